"""Lines out of the pipes that are an executor's stdout and stderr."""

from __future__ import annotations

import os

LINE_BYTES_MAX = 64 << 10
# One read takes no more than this, so that a flood does not starve everything else.
READ_BYTES_MAX = 256 << 10


class LinePipe:
    """The read end of one stream."""

    def __init__(self, fd: int, stream: str) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self.stream = stream
        self.is_at_end = False
        self._partial = bytearray()
        self._cut_bytes = 0  # of the current line, beyond its limit

    def read(self) -> list[str]:
        """The lines that are complete by now. All that was written before the call, as far as a pipe can hold it."""
        lines: list[str] = []
        room_bytes = READ_BYTES_MAX
        while room_bytes > 0:
            try:
                data = os.read(self.fd, 64 << 10)
            except BlockingIOError:
                break
            if not data:
                self.is_at_end = True
                break
            room_bytes -= len(data)
            self._split(data, lines)
            if len(data) < 4096:  # a pipe gives a short count only when it is empty
                break
        return lines

    def flush(self) -> list[str]:
        """The last line, when it has no end."""
        return [self._take()] if self._partial or self._cut_bytes else []

    def close(self) -> None:
        """Close the pipe; whoever still writes to it gets SIGPIPE."""
        os.close(self.fd)

    def _split(self, data: bytes, lines: list[str]) -> None:
        *ended, rest = data.split(b"\n")
        for piece in ended:
            self._append(piece)
            lines.append(self._take())
        self._append(rest)

    def _append(self, piece: bytes) -> None:
        room = max(0, LINE_BYTES_MAX - len(self._partial))
        self._partial += piece[:room]
        self._cut_bytes += max(0, len(piece) - room)

    def _take(self) -> str:
        # What a terminal would show of a progress bar: the last state of the line.
        shown = bytes(self._partial).rstrip(b"\r").rpartition(b"\r")[2]
        text = shown.decode(errors="replace")
        if self._cut_bytes:
            text += f" … [{self._cut_bytes} bytes more]"
        self._partial.clear()
        self._cut_bytes = 0
        return text
