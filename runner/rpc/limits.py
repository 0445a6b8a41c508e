"""How large a message may be, and what is made of things that are larger. Known to processes without gRPC too."""

from __future__ import annotations

MESSAGE_BYTES_MAX = 4 * 1024 * 1024
# One thing in a message: an operation, a report, a command, an outcome. The rest is room for what is around it.
ITEM_BYTES_MAX = MESSAGE_BYTES_MAX - 512 * 1024


def cut_text(text: str, limit_bytes: int) -> str:
    """The text, or its head and its tail and how much is missing between them; always valid on the wire."""
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= limit_bytes:
        return data.decode()
    half = limit_bytes // 2
    head, tail = data[:half].decode(errors="ignore"), data[-half:].decode(errors="ignore")
    return f"{head} [... {len(data) - 2 * half} bytes left out ...] {tail}"
