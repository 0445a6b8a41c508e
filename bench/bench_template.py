"""A model in a new worker process: forked from a template that has it, or loaded there; time and memory."""

from __future__ import annotations

import itertools
import sys

from bench.harness import ROOT, Figure, fresh_process, main

EXAMPLES = str(ROOT / "examples")
# The model of examples/resume_model.py: 22.7 M parameters, 91 MB in float32.
READY = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
import runner
import resume_model as example
def now_s():
    return time.clock_gettime(time.CLOCK_MONOTONIC)
@runner.remote(max_calls=1)
def forked():
    example.bert_model()[1].get()
    ready_s = now_s()
    example.answer(*example.bert_model())
    return ready_s, now_s()
@runner.remote(max_calls=1)
def loading():
    example.load()[1].get()
    return (now_s(),)
took = {}
with runner.init(machines=1):
    for name, task, count in (("loading", loading, 7), ("forked", forked, 20)):
        runner.get(task.remote())
        took[name] = []
        for _ in range(count):
            begin_s = now_s()
            took[name].append([each - begin_s for each in runner.get(task.remote())])
print(json.dumps(took))
"""

MEMORY = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
import runner
from bench.memory import tree_pss_mb
import resume_model as example
is_forked, is_mapped = sys.argv[2] == "template", sys.argv[3] == "mapped"
def make():
    tokenizer, module = example.load_model(example.PACKAGED)
    if not is_mapped:
        for parameter in module.parameters():
            parameter.data = parameter.data.clone()
    return tokenizer, runner.Model(module.eval)
# A class whose code names a template is forked from it.
made = runner.template(lambda: make()) if is_forked else None
class Holder:
    def __init__(self):
        self.parts = made() if is_forked else make()
    def use(self, times):
        for _ in range(times):
            example.answer(*self.parts)
        with open("/proc/self/smaps_rollup", encoding="ascii") as file:
            return sum(int(line.split()[1]) for line in file if line.startswith("Private_")) * 1024
with runner.init(machines=1, num_cpus=8):
    holders = [runner.remote(Holder).remote() for _ in range(8)]
    private = runner.get([each.use.remote(20) for each in holders])
    pss_mb, processes = tree_pss_mb(os.getpid())
print(json.dumps({"pss_mb": pss_mb, "processes": processes, "private_mb": sorted(private)[4] / 1e6}))
"""

WAYS = (("template", "with one template"), ("none", "each loading it"))
# safetensors maps the file, so that processes share its pages; torch.load, or a change of type, makes a copy in each.
WEIGHTS = (("mapped", "weights mapped from the file"), ("own", "weights in memory of their own"))


def measure(repeats: int) -> list[Figure]:
    """Model ready in a new process, and what eight processes with it take."""
    return [*measure_time(repeats), *measure_memory(repeats)]


def measure_time(repeats: int) -> list[Figure]:
    """From the call to the model in hand, each time in a new process."""
    ready = Figure("model ready in a new executor", "ms", target=50, note="from the call on, forked from its template")
    answered = Figure("model has answered in a new executor", "ms", note="the same, and a first forward pass")
    loading = Figure(
        "model loaded in a new executor", "ms", note="without a template; the transformers layer has its imports"
    )
    for _ in range(repeats):
        took = fresh_process(READY, EXAMPLES)
        ready.samples += [each[0] * 1e3 for each in took["forked"]]
        answered.samples += [each[1] * 1e3 for each in took["forked"]]
        loading.samples += [each[0] * 1e3 for each in took["loading"]]
    return [ready, answered, loading]


def measure_memory(repeats: int) -> list[Figure]:
    """Of eight actors that have used the model 20 times, and of all processes of the cluster and its client."""
    figures = []
    for (weights, of_weights), (way, words) in itertools.product(WEIGHTS, WAYS):
        pss = Figure(f"PSS of everything, 8 actors, {words}, {weights}", "MB", note=of_weights)
        private = Figure(
            f"private memory of one of 8, {words}, {weights}", "MB", note=f"median of the eight; {of_weights}"
        )
        for _ in range(repeats):
            found = fresh_process(MEMORY, EXAMPLES, way, weights)
            pss.samples.append(found["pss_mb"])
            private.samples.append(found["private_mb"])
        figures += [pss, private]
    return figures


if __name__ == "__main__":
    sys.exit(main("template", measure))
