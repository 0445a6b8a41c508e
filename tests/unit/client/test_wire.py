from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.client.wire import encode_frame, encode_inline, encode_submit, varint
from runner.rpc.gen import client_pb2, types_pb2


@given(st.integers(min_value=1, max_value=2**63), st.lists(st.text(), max_size=5))
def test_a_frame_is_what_protobuf_writes(seq: int, task_ids: list[str]) -> None:
    operations = [client_pb2.Operation(cancel=client_pb2.Cancel(task_id=task_id)) for task_id in task_ids]
    expected = client_pb2.SessionRequest(frame=client_pb2.ClientFrame(seq=seq, operations=operations))
    assert encode_frame(seq, [each.SerializeToString() for each in operations]) == expected.SerializeToString()


@given(st.text(), st.binary(max_size=500))
def test_a_submit_is_what_protobuf_writes(task_id: str, inline: bytes) -> None:
    spec = types_pb2.TaskSpec(task_id=task_id, args=types_pb2.Value(inline=inline))
    expected = client_pb2.Operation(submit=spec)
    assert encode_submit(spec.SerializeToString()) == expected.SerializeToString()


def test_large_lengths() -> None:
    assert varint(300) == b"\xac\x02"
    assert varint(0) == b"\0"


@pytest.mark.parametrize("size", [0, 1, 127, 128, 100_000])
def test_inline_values_are_written_as_protobuf_does(size: int) -> None:
    value = types_pb2.Value.FromString(encode_inline(bytes(size)))
    assert value.inline == bytes(size)
    assert value.SerializeToString() == encode_inline(bytes(size))
