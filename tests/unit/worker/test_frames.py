from __future__ import annotations

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runner.errors import ProtocolViolationError
from runner.worker.frames import _LENGTHS, Decoder, Frame, Kind, decode_packet, encode

FIELDS = st.one_of(
    st.binary(max_size=300), st.text(max_size=50), st.integers(-(2**63), 2**63 - 1), st.booleans(), st.none()
)


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    kind = draw(st.sampled_from(list(Kind)))
    return [int(kind), *(draw(FIELDS) for _ in range(_LENGTHS[kind] - 1))]


def packed(frame: Frame) -> bytes:
    return encode(Kind(frame[0]), *frame[1:])


def test_every_kind_has_a_length_and_a_row_in_the_table() -> None:
    from runner.worker import frames as module

    assert set(_LENGTHS) == set(Kind)
    assert module.__doc__ is not None
    assert [kind.name for kind in Kind if kind.name not in module.__doc__] == []


@given(st.lists(frames(), max_size=8), st.data())
def test_any_cut_of_the_stream_gives_the_same_frames(sent: list[Frame], data: st.DataObject) -> None:
    stream = b"".join(packed(frame) for frame in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    decoder, got = Decoder(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += decoder.feed(stream[start:end])
    assert got == sent


@given(frames(), st.data())
def test_a_truncated_frame_is_kept_for_later(frame: Frame, data: st.DataObject) -> None:
    stream = packed(frame)
    end = data.draw(st.integers(0, len(stream) - 1))
    decoder = Decoder()
    assert decoder.feed(stream[:end]) == []
    assert decoder.feed(stream[end:]) == [frame]


@given(frames())
def test_a_packet_holds_one_frame(frame: Frame) -> None:
    assert decode_packet(packed(frame)) == frame
    with pytest.raises(ProtocolViolationError):
        decode_packet(packed(frame) * 2)
    with pytest.raises(ProtocolViolationError):
        decode_packet(packed(frame)[:-1])


@given(st.binary(min_size=1, max_size=200))
@example(b"\xde\x00\x01\x90\x00")  # a list as a key
def test_garbage_never_raises_anything_else(data: bytes) -> None:
    try:
        Decoder().feed(data)
        decode_packet(data)
    except ProtocolViolationError:
        pass


@pytest.mark.parametrize("wrong", [1, [], ["x"], [9999], [int(Kind.RUN), 1], {"a": 1}, [True]])
def test_what_is_no_frame_is_refused(wrong: object) -> None:
    with pytest.raises(ProtocolViolationError):
        Decoder().feed(msgpack.packb(wrong))


def test_a_frame_above_the_limit_is_refused() -> None:
    decoder = Decoder(limit_bytes=10_000)
    with pytest.raises(ProtocolViolationError, match="larger"):
        for _ in range(10):
            decoder.feed(encode(Kind.SESSION, bytes(100_000))[:5_000])
