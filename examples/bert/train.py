"""The training loop: ordinary PyTorch that knows nothing of machines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from statistics import fmean
from typing import Any

import torch

from bert.config import Config
from bert.data import Data, Sentences
from bert.model import load_model, trainable

REPORTS_PER_EPOCH = 5
EVAL_BATCH = 64


def train(config: Config, data: Data, report: Callable[..., Any], checkpoint: Any = None) -> float:
    """Fine-tune and return the held-out accuracy after the last epoch.

    `report(values, step=epoch, checkpoint=state)` is called after each epoch, and a few times
    within it without a checkpoint; the loss is the mean since the last report. `checkpoint` is
    the state of an earlier report: training goes on after its epoch, with the same batches as
    if it had never stopped.
    """
    torch.manual_seed(config.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer, model = load_model(config.model)
    parameters = dict(trainable(model, config.freeze_layers))
    model.to(device)
    optimizer = torch.optim.AdamW(parameters.values(), lr=config.lr, weight_decay=config.weight_decay)
    steps_per_epoch = -(-len(data.train.texts) // config.batch_size)
    schedule = warmup_then_decay(optimizer, steps_per_epoch * config.epochs, config.warmup)
    print(
        f"{steps_per_epoch} steps an epoch on {device}, {sum(map(torch.numel, parameters.values())):,} weights to train"
    )

    epochs_done, accuracy = 0, 0.0
    if checkpoint is not None:
        epochs_done, accuracy = checkpoint["epoch"], checkpoint["accuracy"]
        model.load_state_dict(checkpoint["model"], strict=False)  # frozen weights are not in it
        optimizer.load_state_dict(checkpoint["optimizer"])
        schedule.load_state_dict(checkpoint["schedule"])

    for epoch in range(epochs_done + 1, config.epochs + 1):
        torch.manual_seed(config.seed * 1000 + epoch)  # order and dropout of an epoch do not depend on a restart
        started_s, losses = time.perf_counter(), []
        model.train()
        for step, batch in enumerate(batches(data.train, tokenizer, config, device, shuffle=True), start=1):
            loss = model(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            if is_report_due(step, steps_per_epoch):
                report({"epoch": epoch - 1 + step / steps_per_epoch, "loss": fmean(losses)}, step=epoch)
                losses.clear()
        samples_per_s = len(data.train.texts) / (time.perf_counter() - started_s)
        accuracy = evaluate(model, batches(data.held_out, tokenizer, config, device))
        report(
            {"epoch": epoch, "loss": fmean(losses), "accuracy": accuracy, "samples_per_s": samples_per_s},
            step=epoch,
            checkpoint={
                "epoch": epoch,
                "accuracy": accuracy,
                "model": {name: value.detach() for name, value in parameters.items()},
                "optimizer": optimizer.state_dict(),
                "schedule": schedule.state_dict(),
            },
        )
    return accuracy


def batches(
    data: Sentences, tokenizer: Any, config: Config, device: torch.device, shuffle: bool = False
) -> Iterator[Any]:
    """Tokenised batches on `device`, each padded to its own longest sentence."""
    order = torch.randperm(len(data.texts)) if shuffle else torch.arange(len(data.texts))
    for rows in order.split(config.batch_size if shuffle else EVAL_BATCH):
        texts = [data.texts[row] for row in rows]
        batch = tokenizer(texts, truncation=True, max_length=config.max_len, padding=True, return_tensors="pt")
        batch["labels"] = torch.tensor([data.labels[row] for row in rows])
        yield batch.to(device)


@torch.no_grad()
def evaluate(model: Any, held_out: Iterator[Any]) -> float:
    """The share of sentences that the model labels right."""
    model.eval()
    right = count = 0
    for batch in held_out:
        labels = batch.pop("labels")
        right += int((model(**batch).logits.argmax(dim=-1) == labels).sum())
        count += len(labels)
    return right / count


def warmup_then_decay(optimizer: Any, steps: int, warmup: float) -> Any:
    """Learning rate: linearly up during the first `warmup` share of the steps, then linearly down to zero."""
    rising = max(1, round(steps * warmup))

    def factor(step: int) -> float:
        return min((step + 1) / rising, (steps - step) / max(1, steps - rising))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def is_report_due(step: int, steps_per_epoch: int) -> bool:
    """A few times within an epoch, but not after its last step: the epoch's own report follows."""
    return step % max(1, steps_per_epoch // REPORTS_PER_EPOCH) == 0 and step < steps_per_epoch
