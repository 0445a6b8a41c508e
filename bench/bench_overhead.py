"""Time of a training step under runner against the same loop in a bare process, alternating in one run."""

from __future__ import annotations

import json
import subprocess
import sys

import runner
from bench.harness import ROOT, Figure, main, percentile
from bench.training_loop import train


@runner.remote(num_cpus=1)
def under_runner() -> list[float]:
    """The loop in a task; every step is reported."""
    return train(runner.report)


def bare() -> list[float]:
    """The loop in a process of its own, with a report that does nothing."""
    code = "import json; from bench.training_loop import train; print(json.dumps(train(lambda *_, **__: None)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return [float(each) for each in json.loads(done.stdout)]


def measure(repeats: int) -> list[Figure]:
    """Step time under runner against the bare loop."""
    bare_ms = Figure("training step, bare script", "ms", note="median of a run's steps, one thread")
    under_ms = Figure("training step, under runner", "ms", note="the same, each step reported")
    percent = Figure("overhead of a training step", "%", target=2.0, note="paired: bare and under runner in turn")
    with runner.init(machines=1, cpus_per_machine=1):
        runner.get(under_runner.options(name="warm-up").remote())
        for index in range(max(repeats, 7)):
            plain = percentile(bare(), 50) * 1e3
            ours = percentile(runner.get(under_runner.options(name=f"train-{index}").remote()), 50) * 1e3
            bare_ms.samples.append(plain)
            under_ms.samples.append(ours)
            percent.samples.append((ours / plain - 1) * 100)
    return [bare_ms, under_ms, percent]


if __name__ == "__main__":
    sys.exit(main("overhead", measure))
