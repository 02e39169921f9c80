#!/usr/bin/env bash
# All linters, each said by name. Ends at the first that finds something. Run it through `make lint`.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { echo "lint: $1"; shift; "$@"; }

step "uv.lock is in step with pyproject.toml" uv lock --check --quiet
step "ruff" ruff check --quiet
step "ruff format" ruff format --check --quiet
step "mypy" mypy --no-error-summary
step "migrations (squawk, and rules of our own)" occupancy-db lint
step "yamllint" yamllint --strict .
step "ansible-lint (production)" ansible-lint -q
step "shellcheck" shellcheck scripts/*.sh .ci/run roles/*/files/*.sh
step "hadolint" hadolint compose/*/Dockerfile
if docker compose version >/dev/null 2>&1; then
  step "docker compose config" docker compose --file compose/compose.yaml --env-file compose/example.env --profile '*' config --quiet
else
  echo "lint: docker compose config was skipped: no Docker Compose here (make images brings it)"
fi
