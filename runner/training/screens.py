"""The two ways to show a board: a live picture on a terminal, lines anywhere else."""

from __future__ import annotations

import threading
import time
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live

from runner.training.board import Board, RunEvent
from runner.training.plain import plain_text
from runner.training.view import Look, render

FRAMES_PER_S = 8
# The terminal shows Ctrl-C as ^C behind the last line; were that line full, the cursor would leave the frame.
ECHO_COLUMNS = 3


class PlainView:
    """Prints one line per event."""

    def __init__(self, board: Board, console: Console, metrics: tuple[str, ...], epochs: int | None) -> None:
        self._board, self._console, self._metrics, self._epochs = board, console, metrics, epochs
        self._said: dict[str, str] = {}  # machine id -> what was said of it last

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        """Nothing to put back."""

    def apply(self, event: RunEvent) -> None:
        self._board.apply(event)
        text = plain_text(event, self._board, self._metrics, self._epochs)
        # A machine is told of again when a phase that came earlier becomes known.
        if text and not (event.kind == "machine" and text == self._said.get(event.machine_id)):
            if event.kind == "machine":
                self._said[event.machine_id] = text
            self.notice(f"[{event.time_s - self._board.started_s:7.1f} s] {text}")

    def notice(self, text: str) -> None:
        # Wrapped or coloured lines are hard to grep.
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class LiveView:
    """Redraws the board a few times a second; the terminal is as before afterwards."""

    def __init__(self, board: Board, console: Console, metrics: tuple[str, ...], epochs: int | None) -> None:
        self._board, self._console = board, console
        self._metrics, self._epochs = metrics, epochs
        self._notice = ""
        # Frames are drawn by a thread of rich's.
        self._lock = threading.Lock()
        self._newest_at_s = time.monotonic()
        self._live = Live(
            get_renderable=self._frame,
            console=console,
            refresh_per_second=FRAMES_PER_S,
            transient=True,
            vertical_overflow="crop",
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.stop()

    def apply(self, event: RunEvent) -> None:
        with self._lock:
            self._board.apply(event)
            self._newest_at_s = time.monotonic()

    def notice(self, text: str) -> None:
        self._notice = text

    def _frame(self) -> RenderableType:
        size = self._console.size
        with self._lock:
            # The coordinator's clock, which need not be this machine's.
            now_s = self._board.now_s + time.monotonic() - self._newest_at_s
            look = Look(self._metrics, self._epochs, size.width - ECHO_COLUMNS, size.height, self._notice)
            return render(self._board, look, now_s)
