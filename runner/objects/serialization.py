"""Values as bytes: pickle protocol 5 with its large buffers beside it.

Layout. Without buffers: four zero bytes, then the pickle. With buffers:

    u32 little-endian length of the header
    header: msgpack [pickle_len, [buffer lengths], [indexes of buffers that must be writable]]
    pickle, then each buffer; each of them starts at a multiple of 64 bytes

Buffers come back as views into the memory that was passed to `deserialize`, without a copy. numpy arrays are read-only.
torch needs writable memory: it gets the mapping itself, which is private to the process, or a copy when the memory is
read-only (small inline values).
"""

from __future__ import annotations

import io
import pickle
import struct
import sys
from collections.abc import Iterable
from typing import Any

import cloudpickle
import msgpack

from runner.objects import tensors
from runner.objects.refs import ObjectRef, check_sendable, load_ref

ALIGNMENT_BYTES = 64
_NO_BUFFERS = b"\0\0\0\0"
_HEADER_LEN = struct.Struct("<I")
_PROTOCOL = 5
# Exact types whose pickles need neither refs nor cloudpickle. Containers are judged by their items, one level deep.
_PLAIN = frozenset({type(None), bool, int, float, complex, str, bytes})

Buffer = bytes | bytearray | memoryview


class Serialized:
    """One encoded value that is not yet laid out; holds views into the object's own memory until it is written."""

    __slots__ = ("_head", "_parts", "contained_refs", "total_bytes")

    def __init__(self, body: bytes, buffers: list[memoryview], writable: list[int], refs: list[ObjectRef[Any]]) -> None:
        self.contained_refs: list[ObjectRef[Any]] = refs  # refs inside, kept alive until the value is sent
        self._parts: list[bytes | memoryview] = [body, *buffers]
        if not buffers:
            self._head = _NO_BUFFERS
            self.total_bytes = len(_NO_BUFFERS) + len(body)
            return
        header = msgpack.packb([len(body), [view.nbytes for view in buffers], writable])
        self._head = _HEADER_LEN.pack(len(header)) + header
        offset = len(self._head)
        for part in self._parts:
            offset = _aligned(offset) + (part.nbytes if isinstance(part, memoryview) else len(part))
        self.total_bytes = offset

    def chunks(self) -> Iterable[bytes | memoryview]:
        """The encoded value in pieces, padding included; together `total_bytes` long."""
        yield self._head
        if len(self._parts) == 1:
            yield self._parts[0]
            return
        offset = len(self._head)
        for part in self._parts:
            start = _aligned(offset)
            if start > offset:
                yield bytes(start - offset)
            yield part
            offset = start + (part.nbytes if isinstance(part, memoryview) else len(part))

    def to_bytes(self) -> bytes:
        """One bytes object; copies."""
        return b"".join(self.chunks())

    def write_into(self, target: memoryview) -> None:
        """Copy into `target`, which is at least `total_bytes` long, one-dimensional and of format B."""
        offset = 0
        for chunk in self.chunks():
            end = offset + len(chunk)
            target[offset:end] = chunk
            offset = end


def serialize(obj: Any) -> Serialized:
    """Encode `obj`.

    Raises whatever pickling raises; callers that face users go through `pickling_errors` to say where it happened.
    """
    if type(obj) in _PLAIN:
        return Serialized(pickle.dumps(obj, _PROTOCOL), [], [], [])
    found = _Found()
    with io.BytesIO() as file:
        _Pickler(file, found).dump(obj)
        body = file.getvalue()
    return Serialized(body, found.views, found.writable, found.refs)


def is_plain(values: Iterable[Any]) -> bool:
    """True when plain pickle encodes every one of `values` as well as `serialize` does."""
    return all(type(value) in _PLAIN for value in values)


def serialize_plain(obj: Any) -> bytes:
    """Encode an object that holds only plain values (see `is_plain`); the quick way."""
    return _NO_BUFFERS + pickle.dumps(obj, _PROTOCOL)


def deserialize(data: Buffer) -> Any:
    """Decode; the result may hold views into `data`, which then stays alive as long as they do."""
    view = memoryview(data)
    (header_len,) = _HEADER_LEN.unpack_from(view)
    start = _HEADER_LEN.size + header_len
    if not header_len:
        return pickle.loads(view[start:])
    body_len, lengths, writable = msgpack.unpackb(view[_HEADER_LEN.size : start])
    offset = _aligned(start)
    body = view[offset : offset + body_len]
    offset += body_len
    frozen = view.toreadonly()
    buffers: list[memoryview] = []
    for index, length in enumerate(lengths):
        offset = _aligned(offset)
        buffers.append((view if index in writable else frozen)[offset : offset + length])
        offset += length
    return pickle.loads(body, buffers=buffers)


class _Found:
    """What a pickler takes out of the stream. Apart from the pickler, which would else be part of a reference cycle and
    keep the arguments of every call alive until the next garbage collection."""

    def __init__(self) -> None:
        self.views: list[memoryview] = []
        self.writable: list[int] = []
        self.refs: list[ObjectRef[Any]] = []
        self.torch_buffers: set[int] = set()

    def take_buffer(self, buffer: pickle.PickleBuffer) -> bool:
        try:
            view = buffer.raw()
        except BufferError:
            return True  # not contiguous: stays inside the pickle
        if id(buffer) in self.torch_buffers:
            self.torch_buffers.remove(id(buffer))
            self.writable.append(len(self.views))
        self.views.append(view)
        return False


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """cloudpickle, with refs collected and buffers taken out."""

    def __init__(self, file: io.BytesIO, found: _Found) -> None:
        super().__init__(file, protocol=_PROTOCOL, buffer_callback=found.take_buffer)
        self._found = found
        self._storages: dict[int, tensors.Storage] = {}
        # Looked up once: torch is never imported for the sake of pickling.
        self._tensor_type = getattr(sys.modules.get("torch"), "Tensor", None)

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if kind is ObjectRef:
            check_sendable(obj)
            obj._owner.share(obj.id)
            self._found.refs.append(obj)
            return load_ref, (obj.id,)
        if kind is self._tensor_type:
            return tensors.reduce_tensor(obj, self._storages)
        if kind is tensors.Storage:
            buffer = pickle.PickleBuffer(obj.memory())
            self._found.torch_buffers.add(id(buffer))
            return tensors.load_storage, (buffer,)
        return super().reducer_override(obj)


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
