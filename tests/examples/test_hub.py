"""Other models and data come through the hub's own libraries; here from a cache that the test makes, with the network off."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

TRAIN = """
import sys
from bert.config import Config
from bert.data import load_data
from bert.train import train
data = load_data(sys.argv[1], 16, 8)
train(Config("a", model="bert-base-uncased", batch_size=8, epochs=1, max_len=16), data, lambda *_, **__: None)
print("trained on", data.train.texts[0])
"""


def run(arguments: list[str], home: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "examples"), os.environ.get("PYTHONPATH", "")]),
    }
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("hub")
    made = run([str(Path(__file__).with_name("hub_cache.py")), "model", str(home)], home)
    assert made.returncode == 0, made.stderr
    return home


def test_a_model_of_the_hub_is_trained(hub: Path) -> None:
    done = run(["-c", TRAIN, "snippets"], hub)
    assert done.returncode == 0, done.stderr
    assert "trained on" in done.stdout


@pytest.mark.skipif(importlib.util.find_spec("datasets") is None, reason="the `datasets` package is not installed")
def test_sst2_of_the_hub_is_trained_on(hub: Path) -> None:
    made = run([str(Path(__file__).with_name("hub_cache.py")), "dataset", str(hub)], hub)
    assert made.returncode == 0, made.stderr
    done = run(["-c", TRAIN, "sst2"], hub)
    assert done.returncode == 0, done.stderr
    assert "trained on" in done.stdout


def test_sst2_without_its_package_is_told(hub: Path) -> None:
    hide = "import sys; sys.modules['datasets'] = None\nfrom bert.data import load_data\nload_data('sst2', 1, 1)"
    done = run(["-c", hide], hub)
    assert "DataMissingError: --dataset sst2 needs the `datasets` package (pip install datasets)" in done.stderr
