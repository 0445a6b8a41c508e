"""Time of a training step under runner against the same loop in a bare process, in turn in one run."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

import runner
from bench import training_loop
from bench.harness import ROOT, Figure, main

# The task gets a copy of the bench folder, so this one has to be told.
EXAMPLES = str(ROOT / "examples")
LOOPS = {
    "demo's BERT": "batch of 16, one thread, five reports and a checkpoint an epoch",
    "small network": "every step reported, one thread",
}
FUNCTIONS = {"demo's BERT": "bert", "small network": "small"}


@runner.remote(num_cpus=1)
def under_runner(loop: str, examples: str) -> list[training_loop.Step]:
    """The loop in a task."""
    return getattr(training_loop, loop)(runner.report, examples)


def bare(loop: str) -> list[training_loop.Step]:
    """The loop in a process of its own, with a report that does nothing."""
    code = f"import json; from bench.training_loop import {loop} as run; print(json.dumps(run(lambda *_, **__: None, {EXAMPLES!r})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return [(wall_s, cpu_s) for wall_s, cpu_s in json.loads(done.stdout.splitlines()[-1])]


def medians_ms(steps: list[training_loop.Step]) -> tuple[float, float]:
    """Wall and CPU time of the median step."""
    wall_s, cpu_s = zip(*steps, strict=True)
    return statistics.median(wall_s) * 1e3, statistics.median(cpu_s) * 1e3


def compare(title: str, repeats: int) -> list[Figure]:
    """Bare and under runner in turn, so that a slow minute of the machine meets both."""
    loop = FUNCTIONS[title]
    bare_ms = Figure(f"{title}: step, bare script", "ms", note=f"median of a run's steps; {LOOPS[title]}")
    under_ms = Figure(f"{title}: step, under runner", "ms", note="the same")
    percent = Figure(f"{title}: overhead of a step", "%", target=2.0, note="per pair of runs")
    cpu_percent = Figure(f"{title}: overhead in CPU time of the thread", "%", note="not moved by what else runs")
    for index in range(repeats):
        plain_ms, plain_cpu_ms = medians_ms(bare(loop))
        task = under_runner.options(name=f"{loop}-{index}").remote(loop, EXAMPLES)
        ours_ms, ours_cpu_ms = medians_ms(runner.get(task))
        bare_ms.samples.append(plain_ms)
        under_ms.samples.append(ours_ms)
        percent.samples.append((ours_ms / plain_ms - 1) * 100)
        cpu_percent.samples.append((ours_cpu_ms / plain_cpu_ms - 1) * 100)
    return [bare_ms, under_ms, percent, cpu_percent]


def measure(repeats: int) -> list[Figure]:
    """Step time under runner against the bare loop."""
    with runner.init(machines=1, num_cpus=1):
        # The first task of the torch layer waits for the template.
        runner.get(under_runner.options(name="warm-up").remote("small", EXAMPLES))
        bert = compare("demo's BERT", repeats)
        return [*bert, *compare("small network", 3 * repeats)]


if __name__ == "__main__":
    sys.exit(main("overhead", measure))
