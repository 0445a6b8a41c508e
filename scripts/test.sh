#!/usr/bin/env bash
# Runs the named parts of the test suite: fast, slow, long, examples, wheel, container (through .ci/containers), qemu (through .ci/qemu), ray, soak. All of them run even when one fails.
#   PYTEST_ARGS="-x -k name"   handed to pytest
set -uo pipefail
cd "$(dirname "$0")/.."
root=$PWD
python=$root/.venv/bin/python
failed=()
summary=()

# part NAME LIMIT_S COMMAND...: the limit is for a suite that hangs as a whole; single tests have their own.
part() {
    local name=$1 limit_s=$2 start=$SECONDS code
    shift 2
    printf '\n== %s\n' "$name"
    timeout --kill-after=15 "$limit_s" "$@"
    code=$?
    # 5: no test was selected, as when PYTEST_ARGS names one of another part.
    if [ "$code" != 0 ] && [ "$code" != 5 ]; then
        failed+=("$name")
        [ "$code" = 124 ] && printf '%s: stopped, it ran longer than %s s\n' "$name" "$limit_s"
    fi
    summary+=("$(printf '%-10s %4d s  exit %d' "$name" $((SECONDS - start)) "$code")")
}

pytest_in_root() {
    local name=$1 limit_s=$2
    shift 2
    # shellcheck disable=SC2086
    part "$name" "$limit_s" "$python" -m pytest -q "$@" ${PYTEST_ARGS:-}
}

# The same tests against the built wheel, from a folder where the source cannot be imported.
wheel() {
    set -e
    local area=$root/.cache/wheel site
    rm -rf "$area"
    mkdir -p "$area/work"
    "$python" -m build --wheel --no-isolation --outdir "$area/dist" "$root" >"$area/build.log" 2>&1 || { cat "$area/build.log"; return 1; }
    "$python" -m venv --without-pip "$area/venv"
    site=$("$area/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    # The dependencies are hard links to .venv's files: real installs that cost no space. This project's own are left out.
    rm -rf "$site"
    cp -al "$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" "$site"
    rm -rf "$site"/runner-*.dist-info "$site"/*runner*.pth
    "$python" -m pip --disable-pip-version-check --python "$area/venv/bin/python" install --quiet --no-deps --ignore-installed "$area"/dist/*.whl
    cp -r tests pyproject.toml "$area/work/"
    cd "$area/work"
    "$area/venv/bin/python" - "$site" <<'PY'
import sys
import runner
assert runner.__file__.startswith(sys.argv[1]), f"the source was imported, not the wheel: {runner.__file__}"
PY
    "$area/venv/bin/runner" --help >/dev/null
    # shellcheck disable=SC2086
    "$area/venv/bin/python" -m pytest -q -p no:cacheprovider tests/unit tests/integration/test_smoke.py ${PYTEST_ARGS:-}
}

# What is tested of Ray's semantics, on Ray itself: an interpreter of its own, which knows nothing of this project's packages.
ray() {
    set -e
    local area=$root/.cache/ray-semantics wanted
    wanted=$("$python" -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["ray-semantics"], sep="\n")')
    if [ "$(cat "$area/installed" 2>/dev/null)" != "$wanted" ]; then
        "$python" -m venv "$area"
        mapfile -t wanted_list <<<"$wanted"
        "$area/bin/python" -m pip --disable-pip-version-check install --quiet "${wanted_list[@]}"
        printf '%s\n' "$wanted" >"$area/installed"
    fi
    on_ray tests/contract/ray_semantics && return 0
    # Ray's client aborts its process now and then, and some of its cancellations race. What fails is asked again, module by
    # module, twice: a test that Ray does not pass in three tries does not describe Ray.
    local module failed=0
    for module in tests/contract/ray_semantics/test_*.py; do
        on_ray "$module" || on_ray "$module" || { echo "not so on Ray: $module"; failed=1; }
    done
    return "$failed"
}

on_ray() {
    # The folder's own conftest.py only: those above it need this project.
    # shellcheck disable=SC2086
    RAY_SEMANTICS_SYSTEM=ray "$root/.cache/ray-semantics/bin/python" -m pytest -q -p no:cacheprovider \
        --confcutdir=tests/contract/ray_semantics "$1" ${PYTEST_ARGS:-}
}

for name in "$@"; do
    case $name in
        fast) pytest_in_root fast 300 tests/unit tests/properties tests/repo ;;
        slow) pytest_in_root slow 900 -m "not long" tests/contract tests/integration tests/chaos ;;
        long) pytest_in_root long 900 -m long tests/contract tests/integration tests/chaos ;;
        examples) pytest_in_root examples 600 tests/examples ;;
        wheel) part wheel 400 bash -c "$(declare -f wheel); root='$root' python='$python'; wheel" ;;
        ray) part ray 1200 bash -c "$(declare -f ray on_ray); root='$root' python='$python'; ray" ;;
        container) pytest_in_root container 480 tests/container ;;
        qemu) pytest_in_root qemu 600 tests/qemu ;;
        soak)
            RUNNER_SIM_SEEDS="${RUNNER_SIM_SEEDS:-1000}" HYPOTHESIS_PROFILE=soak pytest_in_root properties 3600 tests/properties --timeout=1800
            RUNNER_KILLS_MACHINES="${RUNNER_KILLS_MACHINES:-64}" pytest_in_root chaos 7200 tests/chaos tests/integration --timeout=600
            # A hundred sleeps of a micro-VM; says why not where it cannot.
            RUNNER_SLEEPS="${RUNNER_SLEEPS:-100}" part sleeps 1800 bash .ci/qemu "$python" -m pytest -q tests/qemu/test_suspend.py
            ;;
        *) echo "unknown part: $name" >&2; exit 2 ;;
    esac
done

printf '\n== parts\n'
printf '%s\n' "${summary[@]}"
if [ ${#failed[@]} -gt 0 ]; then
    printf 'tests failed: %s\n' "$(IFS=,; echo "${failed[*]}")" >&2
    exit 1
fi
echo "tests passed"
