"""The training loop of bench_overhead, with torch and nothing of runner."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

STEPS = 120
WARM_UP = 20
LAYERS, WIDTH, BATCH = 6, 384, 192


def train(report: Callable[..., Any]) -> list[float]:
    """A small multi-layer network; the times of its steps in seconds, `report` included."""
    import time

    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    layers = [part for _ in range(LAYERS) for part in (torch.nn.Linear(WIDTH, WIDTH), torch.nn.GELU())]
    model = torch.nn.Sequential(*layers, torch.nn.Linear(WIDTH, 2))
    optimizer = torch.optim.AdamW(model.parameters())
    inputs, labels = torch.randn(BATCH, WIDTH), torch.randint(0, 2, (BATCH,))
    times = []
    for step in range(STEPS):
        begin_s = time.perf_counter()
        loss = torch.nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        report({"loss": loss.item()}, step=step)
        times.append(time.perf_counter() - begin_s)
    return times[WARM_UP:]
