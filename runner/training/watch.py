"""Follow runs to their end, show them, and cancel them cleanly on Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol

from runner.errors import RunnerError
from runner.training.board import Board, RunEvent
from runner.training.results import Results

if TYPE_CHECKING:
    from rich.console import Console

EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it
SHOW_CURSOR = "\x1b[?25h"


class Interrupted(KeyboardInterrupt):
    """Ctrl-C ended `watch`, after all runs were cancelled. `results` has what they reported until then."""

    def __init__(self, results: Results) -> None:
        super().__init__("interrupted")
        self.results = results


class View(Protocol):
    """Shows a board; both kinds are context managers."""

    def __enter__(self) -> Any: ...
    def __exit__(self, *exc: object) -> None: ...
    def apply(self, event: RunEvent) -> None: ...
    def notice(self, text: str) -> None: ...


def watch(
    runs: Sequence[Any],
    *,
    epochs: int | None = None,
    metrics: Sequence[str] = ("loss", "accuracy"),
    plain: bool | None = None,
    console: Console | None = None,
    events: Iterable[RunEvent] | None = None,
) -> Results:
    """Show `runs` (refs) until all have settled; a failed run does not raise.

    `epochs` is how many each run makes: with it there is a progress bar. The first of `metrics` is the one drawn
    over time. `plain=None` shows the live table on a terminal and lines elsewhere. `events` replaces
    `runner.stream(runs)`.

    Ctrl-C once cancels the runs and waits until they have ended; twice leaves the process at once.

    Raises:
        Interrupted: after Ctrl-C, when nothing runs any more.
    """
    from rich.console import Console

    from runner.training.screens import LiveView, PlainView

    console = console or Console()
    is_plain = plain if plain is not None else not console.is_terminal or console.is_dumb_terminal
    board = Board()
    make_view: Callable[..., View] = PlainView if is_plain else LiveView
    view = make_view(board, console, tuple(metrics), epochs)
    started_s = time.monotonic()
    with view, _opened(runs, events) as stream, _cancel_on_ctrl_c(runs, view) as interruption:
        for event in stream:
            view.apply(event)
    results = Results.of(board, time.monotonic() - started_s, metrics, epochs)
    if interruption.count:
        console.print(cancelled_text(results), highlight=False, markup=False)
        raise Interrupted(results)
    return results


@contextmanager
def _opened(runs: Sequence[Any], events: Iterable[RunEvent] | None) -> Iterator[Iterable[RunEvent]]:
    if events is not None:
        yield events
        return
    import runner

    with runner.stream(list(runs)) as stream:
        yield stream


def cancelled_text(results: Results) -> str:
    """What Ctrl-C stopped, and how far it had come."""
    total = f" of {results.epochs}" if results.epochs else ""
    stopped = [f"{row.name} (epoch {row.epoch:.3g}{total})" for row in results.runs if row.state == "cancelled"]
    done = sum(row.state == "done" for row in results.runs)
    if not stopped:
        return f"Interrupted: nothing had to be cancelled, {done} runs had finished."
    return f"Interrupted: cancelled {', '.join(stopped)}; {done} runs had finished. Nothing is running any more."


# ---- Ctrl-C ----
class _Interruption:
    count = 0


@contextmanager
def _cancel_on_ctrl_c(runs: Sequence[Any], view: View) -> Iterator[_Interruption]:
    """While inside, SIGINT does not raise: the loop goes on until the cancelled runs have settled.

    A KeyboardInterrupt out of the blue could leave the session or the terminal half-way through something.
    Outside the main thread, or where somebody else handles SIGINT, nothing is changed.
    """
    interruption = _Interruption()
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield interruption
        return
    workers: list[threading.Thread] = []

    def on_sigint(_signal: int, _frame: FrameType | None) -> None:
        interruption.count += 1
        if interruption.count > 1:
            _quit_at_once()
        # The main thread may hold the session's locks right now, so the work is done in another one.
        worker = threading.Thread(target=_cancel_all, args=(runs, view), name="runner-cancel", daemon=True)
        workers.append(worker)
        worker.start()

    signal.signal(signal.SIGINT, on_sigint)
    try:
        yield interruption
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for worker in workers:
            worker.join()


def _cancel_all(runs: Sequence[Any], view: View) -> None:
    import runner

    view.notice(f"Ctrl-C: cancelling {len(runs)} runs, waiting for them to end. Once more: quit at once.")
    for run in runs:
        try:
            runner.cancel(run)
        except RunnerError as error:
            view.notice(f"could not cancel: {error}")


def _quit_at_once() -> None:
    """End this process now; an embedded cluster sees its pipe close and goes as well."""
    if sys.stdout.isatty():
        os.write(sys.stdout.fileno(), f"{SHOW_CURSOR}\n".encode())
    os.write(sys.stderr.fileno(), b"Quit at once.\n")
    os._exit(EXIT_INTERRUPTED)


def run_script(main: Callable[[], int]) -> int:
    """The exit status of a script's `main`: 130 after Ctrl-C, 1 after an error of this library, told without a traceback."""
    try:
        return main()
    except Interrupted:
        return EXIT_INTERRUPTED  # `watch` has said what was cancelled
    except KeyboardInterrupt:
        print("\nInterrupted: nothing is running any more.", file=sys.stderr)  # noqa: T201 - a script's last words
        return EXIT_INTERRUPTED
    except RunnerError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201
        return 1
