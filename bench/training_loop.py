"""The training loops of bench_overhead, with torch and nothing of runner."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable
from typing import Any

# Seconds of wall time, and of CPU time of the thread that trains.
Step = tuple[float, float]

WARM_UP = 3

SMALL_STEPS = 65
SMALL_LAYERS, SMALL_WIDTH, SMALL_BATCH = 6, 384, 192

BERT_SENTENCES, BERT_BATCH = 208, 16


def small(report: Callable[..., Any], _examples: str) -> list[Step]:
    """A network of a few linear layers that reports every step, `report` included."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    layers = [
        part for _ in range(SMALL_LAYERS) for part in (torch.nn.Linear(SMALL_WIDTH, SMALL_WIDTH), torch.nn.GELU())
    ]
    model = torch.nn.Sequential(*layers, torch.nn.Linear(SMALL_WIDTH, 2))
    optimizer = torch.optim.AdamW(model.parameters())
    inputs, labels = torch.randn(SMALL_BATCH, SMALL_WIDTH), torch.randint(0, 2, (SMALL_BATCH,))
    ends = []
    for step in range(SMALL_STEPS):
        loss = torch.nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        report({"loss": loss.item()}, step=step)
        ends.append(_now())
    return _steps(ends)


def bert(report: Callable[..., Any], examples: str) -> list[Step]:
    """One epoch of the loop in the folder `examples`, from the end of an optimizer step to the next."""
    sys.path.insert(0, examples)
    import torch
    from torch.optim.optimizer import register_optimizer_step_post_hook

    from bert.config import Config
    from bert.data import load_data
    from bert.train import train

    torch.set_num_threads(1)
    ends: list[Step] = []
    handle = register_optimizer_step_post_hook(lambda *_: ends.append(_now()))
    try:
        data = load_data("snippets", BERT_SENTENCES, BERT_BATCH)
        train(Config("bench", lr=1e-4, batch_size=BERT_BATCH, epochs=1), data, report)
    finally:
        handle.remove()
    return _steps(ends)


def _now() -> Step:
    return time.perf_counter(), time.thread_time()


def _steps(ends: list[Step]) -> list[Step]:
    pairs = itertools.pairwise(ends[WARM_UP:])
    return [(after[0] - before[0], after[1] - before[1]) for before, after in pairs]
