"""What the three scripts have in common: options, the cluster to run on, the last page of output."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

import runner
from bert.baselines import measure_baselines
from bert.config import Config, ConfigError
from bert.ctrl_c import imported
from bert.data import Data, DataMissingError, load_data
from bert.model import PACKAGED, ModelMissingError, packaged_folder
from runner import training
from runner.providers.gpus import detect_gpus

# Imported while the machines boot, and not only when the first run arrives.
PRELOAD = ("torch", "transformers")
SIDE_BY_SIDE = 4  # machines on a host without GPUs, if there are as many runs


def parser(description: str | None, *, n_train: int, n_held_out: int) -> argparse.ArgumentParser:
    """The options that all scripts have."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    options.add_argument(
        "--machines", type=int, help="how many to boot (default: one per GPU, else one per run, at most 4)"
    )
    options.add_argument("--model", default=PACKAGED, help="'minilm' comes from a package; other names from the hub")
    options.add_argument("--dataset", default="snippets", choices=["snippets", "sst2"], help="sst2 comes from the hub")
    options.add_argument("--train", type=int, default=n_train, metavar="N", help="training sentences")
    options.add_argument("--held-out", type=int, default=n_held_out, metavar="N", help="sentences to judge on")
    options.add_argument("--epochs", type=int, default=3)
    options.add_argument("--plain", action="store_true", help="a line per event even on a terminal")
    options.add_argument("--out", type=Path, default=Path("out"), help="folder for the curves (PNG, CSV)")
    return options


def run_variants(function: Any, configs: Sequence[Config], options: argparse.Namespace) -> training.Results:
    """Run the remote `function` on all configs at once and show them live until all have ended."""
    if any(config.model == PACKAGED for config in configs):
        packaged_folder()  # a missing package should be told before anything is booted
    data = load(options)
    gpus = len(detect_gpus())
    machines = options.machines or gpus or min(len(configs), SIDE_BY_SIDE)
    print(f"Booting {machines} machines for {len(configs)} runs ...", flush=True)
    with runner.init(machines=machines, preload=PRELOAD, log_to_driver=False):  # the view shows the log
        shared = runner.put(data)  # stored once, however many runs use it
        share = {"num_gpus": min(1.0, gpus / len(configs))} if gpus else {}
        runs = [function.options(name=config.name, **share).remote(config, shared) for config in configs]
        return training.watch(runs, epochs=max(config.epochs for config in configs), plain=options.plain or None)


def load(options: argparse.Namespace) -> Data:
    return load_data(options.dataset, options.train, options.held_out)


def show(results: training.Results, options: argparse.Namespace, name: str) -> None:
    """Ranking, baselines on the same sentences, boot phases, failures, and where the files are."""
    baselines = measure_baselines(load(options))
    console = Console()
    console.print(results.table(), "", sep="\n")
    for baseline, accuracy in baselines.items():
        console.print(f"baseline  {baseline:<30} accuracy {accuracy:.3f}", highlight=False)
    for row in results.failed:
        console.print(f"\n{row.name} {row.state}: {row.failure}", style="red", markup=False, highlight=False)
    console.print("", results.boot_table(), "", sep="\n")
    picture = results.save_png(options.out / f"{name}.png", baselines={"accuracy": baselines})
    table = results.save_csv(options.out / f"{name}.csv")
    console.print(
        f"{len(results.runs)} runs in {results.total_s:.0f} s; curves: {picture}, {table}",
        highlight=False,
        soft_wrap=True,
    )


def script(main: Callable[[], int]) -> None:
    """Run a script's `main` and exit; what a person can mend is told without a traceback."""

    def told() -> int:
        try:
            return main()
        except (DataMissingError, ModelMissingError, ConfigError) as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            return 2

    imported()
    raise SystemExit(training.run_script(told))
