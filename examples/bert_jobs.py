"""Run a batch of fine-tuning jobs, one per TOML or JSON file of a folder. Exit status 1 if one of them failed.

python examples/bert_jobs.py examples/jobs
"""

from __future__ import annotations

import argparse
import json
import tomllib
from pathlib import Path
from typing import Any

import bert.ctrl_c  # noqa: F401  before what takes long to import
import runner
from bert.command import parser, run_variants, script, show
from bert.config import Config, ConfigError
from bert.data import Data


@runner.remote(max_retries=2)
def finetune(config: Config, data: Data) -> float:
    from bert.train import train  # torch is needed on the machines, not here

    return train(config, data, report=runner.report, checkpoint=runner.get_checkpoint())


def read_jobs(folder: Path, options: argparse.Namespace) -> list[Config]:
    """A config per file, called after the file unless it sets `name`. All are read before the first one starts.

    Raises:
        ConfigError: no files, or one that is wrong; the message names it.
    """
    files = sorted(path for path in folder.glob("*") if path.suffix in {".toml", ".json"})
    if not files:
        raise ConfigError(f"no .toml or .json files in {folder}")
    jobs = []
    for path in files:
        base = Config(path.stem, epochs=options.epochs, model=options.model)
        try:
            jobs.append(base.with_settings(_read(path)))
        except ValueError as error:  # of the parsers too
            raise ConfigError(f"{path}: {error}") from None
    return jobs


def _read(path: Path) -> dict[str, Any]:
    text = path.read_text(encoding="utf-8")
    settings: dict[str, Any] = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    return settings


def main() -> int:
    arguments = parser(__doc__, n_train=320, n_held_out=300)
    arguments.add_argument("folder", type=Path, help="where the job files are")
    options = arguments.parse_args()
    results = run_variants(finetune, read_jobs(options.folder, options), options)
    show(results, options, "bert_jobs")
    return 1 if results.failed else 0


if __name__ == "__main__":
    script(main)
