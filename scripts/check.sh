#!/usr/bin/env bash
# Every gate, each with its time; all of them run even when one fails.
set -uo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"
failed=()
gate() {
    local name=$1 start=$SECONDS
    shift
    printf '== %s\n' "$name"
    "$@" || failed+=("$name")
    printf -- '-- %s: %d s\n' "$name" $((SECONDS - start))
}
gate "ruff" ruff check --quiet .
gate "format" ruff format --check --quiet .
gate "types" mypy --no-error-summary
gate "layers" lint-imports --no-logo
gate "generated code" python scripts/gen_protos.py --check
gate "states page" python scripts/gen_states.py --check
gate "sizes" python scripts/check_sizes.py
gate "links" python scripts/check_links.py
if [ ${#failed[@]} -gt 0 ]; then
    printf 'check failed: %s\n' "$(IFS=,; echo "${failed[*]}")" >&2
    exit 1
fi
echo "check passed"
