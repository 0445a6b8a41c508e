"""Which containers have ended: the engine's event stream, read in one thread, opened again whenever it breaks."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable
from typing import Any

from runner.providers.container.engine import ENGINE_ERRORS, Engine, in_words

log = logging.getLogger(__name__)

RETRY_S = 2.0

# (container id, exit code); (container id)
OnDied = Callable[[str, int], None]


class EndWatch:
    """Tells of every end that the engine reports, and each time that the stream was away.

    Callbacks run in the event loop: `on_died(id, exit code)`, `on_oom(id)`, and `on_gap()` whenever ends may have been
    missed: after each opening of the stream, and every RETRY_S while it cannot be opened.
    """

    def __init__(
        self, engine: Engine, label: str, on_died: OnDied, on_oom: Callable[[str], None], on_gap: Callable[[], None]
    ) -> None:
        self._engine = engine
        self._label = label
        self._on_died = on_died
        self._on_oom = on_oom
        self._on_gap = on_gap
        self._loop = asyncio.get_running_loop()
        self._closing = threading.Event()
        self._stream: Any = None
        self._thread = threading.Thread(target=self._run, name="container-events", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the stream and its thread. Idempotent."""
        self._closing.set()
        stream = self._stream
        if stream is not None:
            try:
                stream.close()
            except ENGINE_ERRORS as error:
                log.debug("closing the event stream: %s", error)
        self._thread.join(1.0)

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                # Podman 4.3 finds nothing when kinds of events are named too.
                filters = {"type": "container", "label": self._label}
                self._engine.probe()
                self._stream = self._engine.client.events(filters=filters, decode=True)
                self._tell(self._on_gap)
                for event in self._stream:
                    if self._closing.is_set():
                        return
                    self._take(event)
            except Exception as error:
                if not self._closing.is_set():
                    log.warning("the engine's events at %s: %s", self._engine.url, in_words(error))
                    self._tell(self._on_gap)
            self._closing.wait(RETRY_S)

    def _take(self, event: dict[str, Any]) -> None:
        actor = event.get("Actor") or {}
        container_id = str(actor.get("ID") or event.get("id") or "")
        attributes = actor.get("Attributes") or {}
        action = event.get("Action") or event.get("status")
        if action == "oom":
            self._tell(self._on_oom, container_id)
        elif action == "die":
            code = str(attributes.get("exitCode") or attributes.get("containerExitCode") or "")
            self._tell(self._on_died, container_id, int(code) if code.lstrip("-").isdigit() else -1)

    def _tell(self, callback: Callable[..., None], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:  # the loop is closed
            self._closing.set()


def exit_in_words(code: int, *, was_oom: bool = False, memory_bytes: int = 0) -> str:
    """A container's exit code: `exited with code 1`, or `was killed by signal 9 (SIGKILL)`."""
    if code < 0:
        return "ended; its exit code is not known"
    if code <= 128:
        words = f"exited with code {code}"
    else:
        try:
            name = signal.Signals(code - 128).name
        except ValueError:
            return f"exited with code {code}"
        words = f"was killed by signal {code - 128} ({name})"
    if was_oom:
        words += "; it ran out of memory"
        if memory_bytes:
            words += f" (limit {memory_bytes / (1 << 20):.0f} MiB)"
    return words
