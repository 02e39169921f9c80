#!/usr/bin/env bash
# Everything that proves the product, in order; ends at the first stage that fails. Run it through `make test`.
set -euo pipefail
cd "$(dirname "$0")/.."
logs=.cache/test
mkdir -p "$logs"
summary=()

# stage NAME PATTERN COMMAND…: runs the command, keeps its output, and puts the last line that matches into the summary
stage() {
  local name=$1 pattern=$2 log=$logs/$1.log start=$SECONDS said
  shift 2
  echo "== $name: $*"
  if ! "$@" 2>&1 | tee "$log"; then
    echo "== $name FAILED after $((SECONDS - start)) s; its output is in $log"
    exit 1
  fi
  # A stage whose output has no such line passed all the same: its exit code was judged above.
  said=$(grep -oE "$pattern" "$log" | tail -n 1 || true)
  summary+=("$(printf '%-9s %4d s  %s' "$name" $((SECONDS - start)) "${said:-passed}")")
}

# The engine and the images first: linting the compose file and Molecule need them.
stage images 'built from [A-Za-z, ]+ packages|was (pulled|already)[a-z ]+' ansible-playbook playbooks/images.yml
stage lint 'docker compose config.*' scripts/lint.sh
stage pytest '[0-9]+ passed.*' pytest
stage faults '[0-9]+ corruptions.*' pytest tests/faults
for scenario in molecule/*/molecule.yml; do
  scenario=$(basename "$(dirname "$scenario")")
  stage "$scenario" '[0-9]+ passed.*' env NO_COLOR=1 molecule test --scenario-name "$scenario"
done

echo
echo "What was proved, and how long it took:"
printf '  %s\n' "${summary[@]}"
passed=$(grep -hoE '[0-9]+ passed' "$logs"/*.log | awk '{sum += $1} END {print sum}')
echo "$passed passed, 0 failed"
