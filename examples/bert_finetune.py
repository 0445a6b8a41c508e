"""Fine-tune a small BERT a few times at once, each time with another learning rate, and rank the results.

python examples/bert_finetune.py            four variants, 320 training sentences: about two minutes on 2 CPU cores
python examples/bert_finetune.py --full     1,000 training sentences: about 83 % right on sentences never seen
"""

from __future__ import annotations

import argparse

import bert.ctrl_c  # noqa: F401  before what takes long to import
import runner
from bert.command import parser, run_variants, script, show
from bert.config import Config
from bert.data import Data

# From too slow to learn anything in three epochs, to so fast that everything learnt is lost.
LEARNING_RATES = (5e-6, 1e-4, 3e-4, 2e-3, 5e-5, 2e-4, 5e-4, 1e-3)


@runner.remote(max_retries=2)
def finetune(config: Config, data: Data) -> float:
    """Runs on some machine: reports every epoch, and goes on from the last one if its machine dies."""
    from bert.train import train  # torch is needed on the machines, not here

    return train(config, data, report=runner.report, checkpoint=runner.get_checkpoint())


def variants(options: argparse.Namespace) -> list[Config]:
    # Small batches make enough steps out of few sentences.
    batch_size = 32 if options.full else 16
    return [
        Config(f"lr={lr:g}", lr=lr, batch_size=batch_size, epochs=options.epochs, model=options.model)
        for lr in LEARNING_RATES[: options.variants]
    ]


def main() -> int:
    arguments = parser(__doc__, n_train=320, n_held_out=300)
    arguments.add_argument("--variants", type=int, default=4, choices=range(1, 9), metavar="1-8", help="how many")
    arguments.add_argument(
        "--full", action="store_true", help="1,000 training and 1,000 held-out sentences, batches of 32"
    )
    options = arguments.parse_args()
    if options.full:
        options.train, options.held_out = 1000, 1000
    results = run_variants(finetune, variants(options), options)
    show(results, options, "bert_finetune")
    return 1 if results.failed else 0


if __name__ == "__main__":
    script(main)
