#!/usr/bin/env bash
# Run all linters, as many at a time as there are cores, and print the findings of those that failed. Run it through `make lint`.
# The last line has the counts: N passed, M failed, K skipped. The exit code is 1 if a linter failed.
set -euo pipefail
cd "$(dirname "$0")/.."

output=$(mktemp -d)
trap 'rm -rf "$output"' EXIT
cores=$(nproc)
names=()
pids=()
skipped=0

# check NAME COMMAND…: start the command as soon as a core is free
check() {
  while (($(jobs -rp | wc -l) >= cores)); do wait -n || true; done
  names+=("$1")
  shift
  "$@" >"$output/${#names[@]}" 2>&1 &
  pids+=($!)
}

# skip NAME REASON
skip() {
  echo "lint: skipped $1: $2"
  skipped=$((skipped + 1))
}

# The slowest first.
check "ansible-lint (production)" ansible-lint -q
check "mypy" mypy --no-error-summary
check "migrations (squawk, and rules of this project)" occupancy-db lint
check "yamllint" yamllint --strict .
check "uv.lock agrees with pyproject.toml" uv lock --check --quiet
check "ruff" ruff check --quiet
check "ruff format" ruff format --check --quiet
check "shellcheck" shellcheck scripts/*.sh .ci/run roles/*/files/*.sh
check "hadolint" hadolint compose/*/Dockerfile
if docker compose version >/dev/null 2>&1; then
  check "docker compose config" docker compose --file compose/compose.yaml --env-file compose/example.env --profile '*' config --quiet
else
  skip "docker compose config" "there is no Docker Compose on this machine (make images installs it)"
fi

failed=0
for number in "${!names[@]}"; do
  if wait "${pids[$number]}"; then
    echo "lint: passed ${names[$number]}"
  else
    echo "lint: FAILED ${names[$number]}"
    cat "$output/$((number + 1))"
    failed=$((failed + 1))
  fi
done
summary="$((${#names[@]} - failed)) passed, $failed failed"
((skipped == 0)) || summary+=", $skipped skipped"
echo "$summary"
((failed == 0))
