from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import msgpack
import pytest

from runner.errors import NotScalarError
from runner.worker.executor.api import _step, _write, pack_values

np = pytest.importorskip("numpy")


def test_scalars_of_all_kinds() -> None:
    values: dict[str, Any] = {
        "float": 0.5, "int": 3, "huge": 2**70, "bool": True, "text": "x", "none": None,
        "np": np.float32(0.25), "npint": np.int64(7), "npbool": np.bool_(True), "array": np.array([1.5]),
    }  # fmt: skip
    got = msgpack.unpackb(pack_values(values))
    assert got == {
        "float": 0.5, "int": 3, "huge": float(2**70), "bool": True, "text": "x", "none": None,
        "np": 0.25, "npint": 7, "npbool": True, "array": 1.5,
    }  # fmt: skip


def test_nan_and_infinity_are_numbers() -> None:
    got = msgpack.unpackb(pack_values({"nan": math.nan, "inf": np.float64("inf")}))
    assert math.isnan(got["nan"])
    assert got["inf"] == math.inf


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([1], "builtins.list"),
        ({}, "builtins.dict"),
        (np.zeros((2, 3)), r"shape \(2, 3\)"),
        (1j, "complex"),
        (object(), "object"),
    ],
)
def test_anything_else_is_refused_by_name(value: Any, words: str) -> None:
    with pytest.raises(NotScalarError, match=f"metric 'loss'.*{words}"):
        pack_values({"loss": value})


def test_names_are_strings() -> None:
    with pytest.raises(NotScalarError, match="names are strings"):
        pack_values({1: 2})  # type: ignore[dict-item]
    with pytest.raises(NotScalarError, match="takes a dict"):
        pack_values([1])  # type: ignore[arg-type]


@pytest.mark.parametrize("values", [{"path": "\udcff.txt"}, {"path\udcff": 1.0}])
def test_text_with_surrogates_is_refused_by_name(values: dict[str, Any]) -> None:
    with pytest.raises(NotScalarError, match="metric 'path.*not valid text"):
        pack_values({"loss": 1.0, **values})


def test_large_values_belong_into_checkpoints() -> None:
    with pytest.raises(NotScalarError, match="checkpoint="):
        pack_values({"text": "x" * (2 << 20)})


@pytest.mark.parametrize(("step", "number"), [(3, 3), (np.int32(4), 4), (5.0, 5), (True, 1)])
def test_steps(step: Any, number: int) -> None:
    assert _step(step) == number


@pytest.mark.parametrize("step", ["x", 1.5, math.nan, math.inf, 2**64, [], Decimal("nan")])
def test_steps_that_are_none(step: Any) -> None:
    with pytest.raises(NotScalarError, match="step is"):
        _step(step)


def test_a_checkpoint_is_never_seen_half_written(tmp_path: Any) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            raise RuntimeError("in the middle")

    path = tmp_path / "1-0.ckpt"
    with pytest.raises(RuntimeError):
        _write(str(path), [bytes(1000), Bomb()])
    assert list(tmp_path.iterdir()) == []
    digest, size = _write(str(path), {"weights": np.ones(1000)})
    assert path.stat().st_size == size
    assert len(digest) == 64
