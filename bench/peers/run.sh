#!/usr/bin/env bash
# The same no-op and start-up measures for Ray and Dask, each in a virtual environment of its own under .cache/peers.
set -euo pipefail
cd "$(dirname "$0")/../.."
area=.cache/peers
prepare() {
    local name=$1
    shift
    [ -x "$area/$name/bin/python" ] || "${PYTHON:-python3}" -m venv "$area/$name"
    "$area/$name/bin/python" -m pip --disable-pip-version-check install --quiet "$@"
}
prepare ray "ray==2.58.0"
"$area/ray/bin/python" -m bench.peers.measure ray "$@"
prepare dask "distributed==2026.8.0"
"$area/dask/bin/python" -m bench.peers.measure dask "$@"
