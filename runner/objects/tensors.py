"""torch CPU tensors in pickles: their memory travels as a buffer. Imports torch only where a tensor is at hand."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class Storage:
    """The memory of one or more tensors; pickled once per value, so tensors that share it still share it afterwards."""

    __slots__ = ("owner", "pointer", "size_bytes")

    def __init__(self, owner: Any, pointer: int, size_bytes: int) -> None:
        self.owner = owner  # keeps the memory alive
        self.pointer = pointer
        self.size_bytes = size_bytes

    def memory(self) -> Any:
        """A buffer over the memory. By address, because torch offers the buffer protocol only through numpy."""
        memory = (ctypes.c_ubyte * self.size_bytes).from_address(self.pointer)
        memory.owner = self.owner  # type: ignore[attr-defined]  # lives as long as any view of it
        return memory


def reduce_tensor(tensor: torch.Tensor, storages: dict[int, Storage]) -> Any:
    """`reducer_override` for a plain tensor; NotImplemented leaves it to torch (CUDA, sparse, quantised, hooks)."""
    import torch

    if (
        tensor.device.type != "cpu"
        or tensor.layout is not torch.strided
        or tensor.is_quantized
        or tensor.is_conj()
        or tensor.is_neg()
        or tensor.__dict__
        or getattr(tensor, "_backward_hooks", None)
    ):
        return NotImplemented
    data = tensor.detach()
    if data.untyped_storage().nbytes() != data.numel() * data.element_size():
        # A view of something larger: send what it shows, not all that lies behind it.
        data = data.clone(memory_format=torch.contiguous_format)
    raw = data.untyped_storage()
    storage = storages.get(raw.data_ptr()) if raw.nbytes() else None
    if storage is None:
        storage = Storage(raw, raw.data_ptr(), raw.nbytes())
        storages[storage.pointer] = storage
    layout = (data.storage_offset(), tuple(data.size()), data.stride())
    return load_tensor, (storage, tensor.dtype, layout, tensor.requires_grad)


def load_storage(buffer: Any) -> torch.Tensor:
    """The bytes of a storage as a uint8 tensor, on `buffer` itself when that is writable."""
    import torch

    view = memoryview(buffer)
    if not view.nbytes:
        return torch.empty(0, dtype=torch.uint8)
    return torch.frombuffer(bytearray(view) if view.readonly else view, dtype=torch.uint8)


def load_tensor(
    memory: torch.Tensor, dtype: torch.dtype, layout: tuple[int, tuple[int, ...], tuple[int, ...]], requires_grad: bool
) -> torch.Tensor:
    """A tensor on the storage of `memory`."""
    import torch

    offset, size, stride = layout
    tensor = torch.empty(0, dtype=dtype)
    tensor.set_(memory.untyped_storage(), offset, size, stride)
    return tensor.requires_grad_(requires_grad) if requires_grad else tensor
