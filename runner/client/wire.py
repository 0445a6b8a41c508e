"""Protobuf framing written by hand where building messages would cost more than everything else a call does.

A test holds each function against what protobuf itself writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from runner.errors import BadOptionsError
from runner.objects.refs import ObjectRef
from runner.rpc.limits import ITEM_BYTES_MAX

# A length-delimited field's tag: its number times 8, plus 2.
_REQUEST_FRAME = b"\x12"  # SessionRequest.frame = 2
_FRAME_SEQ = b"\x08"  # ClientFrame.seq = 1, a varint
_FRAME_OPERATIONS = b"\x12"  # ClientFrame.operations = 2
_VALUE_INLINE = b"\x0a"  # Value.inline = 1
_OPERATION_SUBMIT = b"\x1a"  # Operation.submit = 3


def encode_frame(seq: int, operations: Sequence[bytes]) -> bytes:
    """A serialised SessionRequest with one frame of already serialised operations."""
    parts = [_FRAME_SEQ, varint(seq)]
    for operation in operations:
        parts.append(_FRAME_OPERATIONS)
        parts.append(varint(len(operation)))
        parts.append(operation)
    body = b"".join(parts)
    return b"".join((_REQUEST_FRAME, varint(len(body)), body))


def encode_submit(spec: bytes) -> bytes:
    """A serialised Operation that submits a serialised TaskSpec."""
    return b"".join((_OPERATION_SUBMIT, varint(len(spec)), spec))


def encode_inline(data: bytes) -> bytes:
    """A serialised Value that is inline and contains no refs."""
    return b"".join((_VALUE_INLINE, varint(len(data)), data))


def bounded(operation: bytes, what: str, refs: Iterable[ObjectRef[object]] = ()) -> bytes:
    """The operation, if it can be sent. `refs` are told twice: in the operation, and beside their values.

    Raises:
        BadOptionsError: it is larger than a message.
    """
    size_bytes = 256 + len(operation) + sum(len(ref.id) + 8 for ref in refs)
    if size_bytes > ITEM_BYTES_MAX:
        raise BadOptionsError(
            f"{what} takes {size_bytes} bytes to tell, without large values but with the id of every ref in it and all"
            f" options; the limit is {ITEM_BYTES_MAX}. Pass fewer refs at once, or refs to lists of values."
        )
    return operation


def varint(number: int) -> bytes:
    """Protobuf's variable-length integer."""
    if number < 0x80:
        return _ONE_BYTE[number]
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


_ONE_BYTE = [bytes((number,)) for number in range(0x80)]
