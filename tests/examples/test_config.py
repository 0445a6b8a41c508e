from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

from bert.config import Config, ConfigError
from bert_jobs import read_jobs
from bert_sweep import grid

OPTIONS = Namespace(epochs=3, model="minilm")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": 1e-4}, "unknown setting learning_rate; valid ones: name, lr, batch_size"),
        ({"lr": "fast"}, "lr='fast' must be of type float"),
        ({"epochs": 1.5}, "epochs=1.5 must be of type int"),
        ({"epochs": True}, "epochs=True must be of type int"),
        ({"lr": -1}, "lr=-1 is out of range"),
        ({"batch_size": 0}, "batch_size=0 is out of range"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Config("a").with_settings(settings)


def test_settings_replace_defaults() -> None:
    config = Config("a", epochs=2).with_settings({"lr": 1, "name": "b"})
    assert (config.name, config.lr, config.epochs) == ("b", 1, 2)


def test_jobs_are_read_from_toml_and_json(tmp_path: Path) -> None:
    (tmp_path / "b.toml").write_text("lr = 2e-4\n")
    (tmp_path / "a.json").write_text('{"name": "first", "batch_size": 8}')
    (tmp_path / "notes.txt").write_text("not a job")
    assert read_jobs(tmp_path, OPTIONS) == [Config("first", batch_size=8), Config("b", lr=2e-4)]


@pytest.mark.parametrize("content", ["lr = ", "lr = -1", "x = 1"])
def test_the_file_of_a_wrong_job_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text(content)
    with pytest.raises(ConfigError, match=r"job\.toml: "):
        read_jobs(tmp_path, OPTIONS)


def test_a_folder_without_jobs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no \.toml or \.json files"):
        read_jobs(tmp_path, OPTIONS)


def test_the_given_jobs_are_right() -> None:
    folder = Path(__file__).resolve().parents[2] / "examples" / "jobs"
    assert len(read_jobs(folder, OPTIONS)) >= 3


def test_a_grid_is_named_after_what_varies() -> None:
    options = Namespace(lr=[1e-4, 3e-4], batch_size=[8, 16], freeze_layers=[0], epochs=1, model="minilm")
    configs = grid(options)
    assert [config.name for config in configs] == [
        "lr=0.0001 bs=8",
        "lr=0.0001 bs=16",
        "lr=0.0003 bs=8",
        "lr=0.0003 bs=16",
    ]
    assert configs[3].batch_size == 16
    assert grid(Namespace(lr=[1.0], batch_size=[8], freeze_layers=[0], epochs=1, model="minilm"))[0].name == "run"
