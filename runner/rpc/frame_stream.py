"""A byte stream of msgpack arrays `[kind, field, ...]`, cut into frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgpack

from runner.errors import ProtocolViolationError

Frame = list[Any]


class FrameDecoder:
    """Cuts a byte stream into frames; keeps what is incomplete."""

    def __init__(self, lengths: Mapping[int, int], limit_bytes: int) -> None:
        """`lengths`: the number of elements of each kind's array. No frame may be larger than `limit_bytes`."""
        self._lengths = lengths
        self._unpacker = msgpack.Unpacker(max_buffer_size=limit_bytes, strict_map_key=False)

    def feed(self, data: bytes | memoryview) -> list[Frame]:
        """All frames that `data` completes, in order.

        Raises:
            ProtocolViolationError: no frame can look like this, or one is larger than the limit. The stream is of no use afterwards.
        """
        try:
            self._unpacker.feed(data)
            return [checked(frame, self._lengths) for frame in self._unpacker]
        except msgpack.BufferFull:
            raise ProtocolViolationError("a frame is larger than the limit") from None
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise ProtocolViolationError(f"the stream holds no frame: {type(error).__name__} {error}") from None


def checked(frame: Any, lengths: Mapping[int, int]) -> Frame:
    """The frame, if it is one of these kinds.

    Raises:
        ProtocolViolationError: it is not.
    """
    if type(frame) is list and frame and type(frame[0]) is int and lengths.get(frame[0]) == len(frame):
        return frame
    raise ProtocolViolationError(f"not a frame: {repr(frame)[:80]}")
