#!/usr/bin/env bash
# runner beside Ray and Dask, which each have a virtual environment of their own under .cache/peers.
set -euo pipefail
cd "$(dirname "$0")/../.."
area=.cache/peers
prepare() {
    local name=$1
    shift
    [ -x "$area/$name/bin/python" ] || "${PYTHON:-python3}" -m venv "$area/$name"
    "$area/$name/bin/python" -m pip --disable-pip-version-check install --quiet "$@"
}
prepare ray "ray==2.58.0" numpy
prepare dask "distributed==2026.8.0"
.venv/bin/python -m bench.peers.compare "$@"
