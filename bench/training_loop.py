"""The training loops of bench_overhead, with torch and nothing of runner."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

WARM_UP = 5

SMALL_STEPS = 105
SMALL_LAYERS, SMALL_WIDTH, SMALL_BATCH = 6, 384, 192

BERT_SENTENCES, BERT_BATCH = 240, 16


def small(report: Callable[..., Any], _examples: str) -> list[float]:
    """A network of a few linear layers that reports every step; seconds of each step, `report` included."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    layers = [
        part for _ in range(SMALL_LAYERS) for part in (torch.nn.Linear(SMALL_WIDTH, SMALL_WIDTH), torch.nn.GELU())
    ]
    model = torch.nn.Sequential(*layers, torch.nn.Linear(SMALL_WIDTH, 2))
    optimizer = torch.optim.AdamW(model.parameters())
    inputs, labels = torch.randn(SMALL_BATCH, SMALL_WIDTH), torch.randint(0, 2, (SMALL_BATCH,))
    times = []
    for step in range(SMALL_STEPS):
        begin_s = time.perf_counter()
        loss = torch.nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        report({"loss": loss.item()}, step=step)
        times.append(time.perf_counter() - begin_s)
    return times[WARM_UP:]


def bert(report: Callable[..., Any], examples: str) -> list[float]:
    """One epoch of the loop in the folder `examples`; seconds between the ends of its optimizer steps."""
    sys.path.insert(0, examples)
    import torch
    from torch.optim.optimizer import register_optimizer_step_post_hook

    from bert.config import Config
    from bert.data import load_data
    from bert.train import train

    torch.set_num_threads(1)
    ends: list[float] = []
    handle = register_optimizer_step_post_hook(lambda *_: ends.append(time.perf_counter()))
    try:
        data = load_data("snippets", BERT_SENTENCES, BERT_BATCH)
        train(Config("bench", lr=1e-4, batch_size=BERT_BATCH, epochs=1), data, report)
    finally:
        handle.remove()
    return [after - before for before, after in zip(ends[WARM_UP:], ends[WARM_UP + 1 :], strict=False)]
