"""Try a grid of settings in parallel; name the best and save every curve.

python examples/bert_sweep.py --lr 1e-4 3e-4 --batch-size 8 16 --freeze-layers 0 3
"""

from __future__ import annotations

import argparse
import itertools

import bert.ctrl_c  # noqa: F401  before what takes long to import
import runner
from bert.command import parser, run_variants, script, show
from bert.config import Config
from bert.data import Data


@runner.remote(max_retries=2)
def finetune(config: Config, data: Data) -> float:
    from bert.train import train  # torch is needed on the machines, not here

    return train(config, data, report=runner.report, checkpoint=runner.get_checkpoint())


def grid(options: argparse.Namespace) -> list[Config]:
    """Every combination, named after the settings that vary."""
    axes = {"lr": options.lr, "batch_size": options.batch_size, "freeze_layers": options.freeze_layers}
    short = {"lr": "lr", "batch_size": "bs", "freeze_layers": "freeze"}
    configs = []
    for values in itertools.product(*axes.values()):
        settings = dict(zip(axes, values, strict=True))
        varying = [f"{short[axis]}={value:g}" for axis, value in settings.items() if len(axes[axis]) > 1]
        configs.append(Config(" ".join(varying) or "run", epochs=options.epochs, model=options.model, **settings))
    return configs


def main() -> int:
    arguments = parser(__doc__, n_train=320, n_held_out=300)
    arguments.add_argument("--lr", type=float, nargs="+", default=[1e-4, 3e-4], help="learning rates")
    arguments.add_argument("--batch-size", type=int, nargs="+", default=[8, 16])
    arguments.add_argument("--freeze-layers", type=int, nargs="+", default=[0], help="lowest layers left as they are")
    options = arguments.parse_args()
    configs = grid(options)
    results = run_variants(finetune, configs, options)
    show(results, options, "bert_sweep")
    best = results.ranking()[0]
    if best.state == "done":
        print(f"best: {next(config for config in configs if config.name == best.name)}")
    return 1 if results.failed else 0


if __name__ == "__main__":
    script(main)
