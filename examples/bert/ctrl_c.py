"""Imported first by each script: Ctrl-C while the others are imported, which takes a while, ends it without a traceback.

Nothing runs yet that had to be stopped. An exception would not do: some imports swallow it.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType

EXIT_INTERRUPTED = 130


def _leave(_signum: int, _frame: FrameType | None) -> None:
    os.write(2, b"\nInterrupted before anything was started.\n")
    os._exit(EXIT_INTERRUPTED)


def imported() -> None:
    """From now on Ctrl-C raises KeyboardInterrupt as usual."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


_is_script = Path(sys.argv[0]).resolve().parent == Path(__file__).resolve().parents[1]
if _is_script and signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else somebody wants it otherwise
    signal.signal(signal.SIGINT, _leave)
