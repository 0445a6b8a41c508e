"""From asleep to the first result, against a cold start of the same machine, with the same model in memory.

On micro-VMs (docs/qemu.md), since those save their memory; the image is the one that RUNNER_TEST_VM_IMAGE names. Work that
waits wakes the machine, as it would a user's; a cold start is the same, with a snapshot that was cut off before.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import runner
from bench.harness import Figure, main
from runner import config

IMAGE = os.environ.get("RUNNER_TEST_VM_IMAGE", "")
MODEL_MB = 64
LIMIT_S = 120.0
_model: dict[int, bytes] = {}


@runner.remote
def predict(size_mb: int) -> bool:
    """Whether the model was there; else it is made as weights are read: a file that is copied and looked through once."""
    import hashlib

    if size_mb in _model:
        return True
    path = Path("/tmp/weights")
    if not path.exists():
        path.write_bytes(os.urandom(1 << 20) * size_mb)
    weights = path.read_bytes()
    hashlib.sha256(weights).digest()
    _model[size_mb] = weights
    return False


def measure(repeats: int) -> list[Figure]:
    """One machine, asleep and awake in turn, and at last cold."""
    if not IMAGE:
        raise SystemExit("RUNNER_TEST_VM_IMAGE names no image; `runner image build --engine qemu` makes one")
    ratio = Figure(
        "resume / cold start, to the first result", "x", target=0.2, note=f"a model of {MODEL_MB} MB in memory"
    )
    resumed = Figure("asleep -> first result", "s", note="the model is there")
    cold = Figure("cold start -> first result", "s", note="the model is loaded again")
    suspended = Figure("suspend", "s", note="hooks, last reports, memory to a file")
    with runner.init(
        provider="qemu",
        provider_options={"image": IMAGE, "default_memory": "512MiB"},
        machines=1,
        num_cpus=1,
        log_to_driver=False,
    ) as cluster:
        call(expected=False)
        for _ in range(repeats):
            suspended.samples.append(put_to_sleep(cluster))
            resumed.samples.append(call(expected=True))
        for _ in range(repeats):
            put_to_sleep(cluster)
            (snapshot,) = config.load().clusters_dir.glob("*/qemu/*/snapshot")
            os.truncate(snapshot, 8192)
            cold.samples.append(call(expected=False))
    ratio.samples = [a / b for a, b in zip(resumed.samples, cold.samples, strict=True)]
    return [ratio, resumed, cold, suspended]


def put_to_sleep(cluster: Any) -> float:
    begin_s = time.monotonic()
    cluster.suspend(timeout=LIMIT_S)
    return time.monotonic() - begin_s


def call(*, expected: bool) -> float:
    """Seconds to the result."""
    begin_s = time.monotonic()
    was_there = runner.get(predict.remote(MODEL_MB), timeout=LIMIT_S)
    took_s = time.monotonic() - begin_s
    if was_there is not expected:
        raise SystemExit(f"the model was {'there' if was_there else 'not there'}")
    return took_s


if __name__ == "__main__":
    sys.exit(main("resumes", measure))
