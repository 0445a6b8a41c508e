"""The same training without `runner`: what the overhead is measured against.

python examples/bert_bare.py --lr 1e-4 --threads 1
"""

from __future__ import annotations

import argparse
from typing import Any

import bert.ctrl_c  # noqa: F401  before what takes long to import
from bert.config import Config
from bert.data import load_data


def print_report(values: dict[str, Any], *, step: int, checkpoint: Any = None) -> None:
    """A line per epoch; the state is thrown away."""
    if checkpoint is not None:
        print(f"epoch {step}  " + "  ".join(f"{name} {value:.4g}" for name, value in values.items()), flush=True)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--lr", type=float, default=1e-4)
    arguments.add_argument("--batch-size", type=int, default=16)
    arguments.add_argument("--epochs", type=int, default=3)
    arguments.add_argument("--train", type=int, default=320, metavar="N")
    arguments.add_argument("--held-out", type=int, default=300, metavar="N")
    arguments.add_argument("--threads", type=int, help="torch's CPU threads (default: torch's choice)")
    options = arguments.parse_args()

    import torch

    from bert.train import train

    if options.threads:
        torch.set_num_threads(options.threads)
    config = Config("bare", lr=options.lr, batch_size=options.batch_size, epochs=options.epochs)
    accuracy = train(config, load_data("snippets", options.train, options.held_out), print_report)
    print(f"accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
