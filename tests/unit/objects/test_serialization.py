from __future__ import annotations

import gc
import pickle
import threading
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from runner.objects.serialization import ALIGNMENT_BYTES, deserialize, is_plain, serialize, serialize_plain

plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
nested = st.recursive(
    plain, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner), max_leaves=20
)


@given(nested)
def test_any_nested_value_comes_back(value: Any) -> None:
    encoded = serialize(value)
    data = encoded.to_bytes()
    assert len(data) == encoded.total_bytes
    assert deserialize(data) == value


@given(nested)
def test_writing_into_memory_gives_the_same_bytes(value: Any) -> None:
    encoded = serialize([value, np.arange(5)])
    target = bytearray(encoded.total_bytes)
    encoded.write_into(memoryview(target))
    assert bytes(target) == encoded.to_bytes()


@given(st.lists(plain))
def test_the_quick_way_is_read_like_the_other(values: list[Any]) -> None:
    assert is_plain(values)
    assert deserialize(serialize_plain(values)) == values


@given(
    st.lists(
        hnp.arrays(
            st.sampled_from([np.uint8, np.float64, np.int32]), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0)
        )
    )
)
def test_arrays_of_any_shape_come_back(arrays: list[np.ndarray[Any, Any]]) -> None:
    back = deserialize(serialize(arrays).to_bytes())
    assert len(back) == len(arrays)
    for one, other in zip(arrays, back, strict=True):
        assert other.dtype == one.dtype
        np.testing.assert_array_equal(one, other)


def test_an_array_is_a_read_only_view_of_the_memory_that_was_passed() -> None:
    memory = bytearray(serialize({"x": np.arange(1000)}).to_bytes())
    array = deserialize(memory)["x"]
    assert not array.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    before = int(array[0])
    for index in range(len(memory) - 8000, len(memory)):
        memory[index] = 0xFF
    assert int(array[0]) != before  # the same memory, not a copy


def test_buffers_are_aligned() -> None:
    data = serialize([np.zeros(3, np.uint8), np.arange(100.0)]).to_bytes()
    for array in deserialize(np.frombuffer(data, np.uint8).copy().data):
        assert array.ctypes.data % 8 == 0
    assert ALIGNMENT_BYTES == 64


def test_fortran_order_and_strides_survive() -> None:
    array = np.asfortranarray(np.arange(12.0).reshape(3, 4))
    back, strided = deserialize(serialize((array, np.arange(10)[::2])).to_bytes())
    assert back.flags.f_contiguous
    np.testing.assert_array_equal(back, array)
    np.testing.assert_array_equal(strided, [0, 2, 4, 6, 8])


def test_functions_travel_by_value() -> None:
    offset = 3
    function = deserialize(serialize(lambda x: x + offset).to_bytes())
    assert function(4) == 7


def test_a_large_bytes_value_comes_back() -> None:
    value = b"x" * 300_000
    assert deserialize(serialize(value).to_bytes()) == value


def test_what_cannot_be_pickled_raises() -> None:
    with pytest.raises(TypeError, match="pickle"):
        serialize({"lock": threading.Lock()})


# ---- torch ----
def test_a_tensor_uses_the_memory_that_was_passed_when_it_may_write_there() -> None:
    memory = bytearray(serialize(torch.arange(1000)).to_bytes())
    tensor = deserialize(memory)
    before = bytes(memory)
    tensor[0] = 77
    assert bytes(memory) != before


def test_a_tensor_from_read_only_memory_is_a_writable_copy() -> None:
    data = serialize(torch.arange(10)).to_bytes()
    tensor = deserialize(data)
    tensor[0] = 77
    assert int(deserialize(data)[0]) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.bool, torch.complex64, torch.int8])
def test_dtypes_survive(dtype: torch.dtype) -> None:
    tensor = torch.ones(3, 2).to(dtype)
    back = deserialize(serialize(tensor).to_bytes())
    assert back.dtype == dtype
    assert torch.equal(back, tensor)


def test_shapes_strides_and_gradients_survive() -> None:
    base = torch.arange(12.0).reshape(3, 4)
    tensors = [base.t(), base[1], torch.empty(0, 5), torch.tensor(3.5), torch.ones(2, requires_grad=True)]
    back = deserialize(serialize(tensors).to_bytes())
    for one, other in zip(tensors, back, strict=True):
        assert other.shape == one.shape
        assert other.requires_grad == one.requires_grad
        assert torch.equal(one.detach(), other.detach())
    assert back[0].stride() == tensors[0].stride()


def test_a_view_brings_only_what_it_shows() -> None:
    assert serialize(torch.zeros(1_000_000)[:10]).total_bytes < 2_000


def test_tied_weights_stay_tied() -> None:
    layer = torch.nn.Linear(4, 4)
    state = {"a": layer.weight.detach(), "b": layer.weight.detach()}
    assert serialize(state).total_bytes < 2 * serialize(state["a"]).total_bytes
    back = deserialize(bytearray(serialize(state).to_bytes()))
    back["a"][0, 0] = 42
    assert float(back["b"][0, 0]) == 42


def test_a_module_comes_back_with_parameters() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    back = deserialize(serialize(model).to_bytes())
    assert [type(p) for p in back.parameters()] == [torch.nn.Parameter] * 4
    for one, other in zip(model.state_dict().values(), back.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_sparse_tensors_are_left_to_torch() -> None:
    tensor = torch.eye(3).to_sparse()
    assert torch.equal(deserialize(serialize(tensor).to_bytes()).to_dense(), torch.eye(3))


def test_plain_pickle_of_the_encoded_pieces_is_protocol_five() -> None:
    data = serialize([1]).to_bytes()
    assert data[:4] == b"\0\0\0\0"
    assert pickle.loads(data[4:]) == [1]


def test_pickling_leaves_no_cycle_that_keeps_the_value_alive() -> None:
    class Big:
        pass

    gc.collect()
    gc.disable()
    try:
        for make in (Big, lambda: np.zeros(100), lambda: torch.zeros(10), lambda: lambda: Big):
            value = make()
            gone = weakref.ref(value)
            serialize([value, 5])
            del value
            assert gone() is None
    finally:
        gc.enable()
