"""Which containers have ended: the engine's event stream, opened again whenever it breaks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
from collections.abc import AsyncGenerator, Callable
from typing import Any
from urllib.parse import urlencode

from runner.providers.container.engine import CALL_S, Engine, in_words

log = logging.getLogger(__name__)

RETRY_S = 2.0
_EVENT_BYTES_MAX = 1 << 20

# (container id, exit code); (container id)
OnDied = Callable[[str, int], None]


class EndWatch:
    """Tells of every end that the engine reports, and each time that the stream was away.

    Callbacks run in the event loop: `on_died(id, exit code)`, `on_oom(id)`, and `on_gap()` whenever ends may have been
    missed: after each opening of the stream, and every RETRY_S while it cannot be opened.

    The SDK would read events in a thread, which nothing ends surely: not while it connects or waits for the answer.
    """

    def __init__(
        self, engine: Engine, label: str, on_died: OnDied, on_oom: Callable[[str], None], on_gap: Callable[[], None]
    ) -> None:
        self._engine = engine
        self._label = label
        self._on_died = on_died
        self._on_oom = on_oom
        self._on_gap = on_gap
        self._task = asyncio.create_task(self._run(), name="container-events")

    async def close(self) -> None:
        """End the stream, wherever it is. Idempotent."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            try:
                # Podman 4.3 finds nothing when kinds of events are named too.
                filters = {"type": ["container"], "label": [self._label]}
                async with contextlib.aclosing(_events(self._engine, filters, self._on_gap)) as stream:
                    async for event in stream:
                        self._take(event)
            except Exception as error:
                log.warning("the engine's events at %s: %s", self._engine.url, in_words(error))
                self._on_gap()
            await asyncio.sleep(RETRY_S)

    def _take(self, event: dict[str, Any]) -> None:
        actor = event.get("Actor") or {}
        container_id = str(actor.get("ID") or event.get("id") or "")
        attributes = actor.get("Attributes") or {}
        action = event.get("Action") or event.get("status")
        if action == "oom":
            self._on_oom(container_id)
        elif action == "die":
            code = str(attributes.get("exitCode") or attributes.get("containerExitCode") or "")
            self._on_died(container_id, int(code) if code.lstrip("-").isdigit() else -1)


async def _events(
    engine: Engine, filters: dict[str, list[str]], on_open: Callable[[], None]
) -> AsyncGenerator[dict[str, Any], None]:
    """The engine's events from now on, until it ends the stream.

    Raises:
        OSError: it does not answer, or refuses.
        ValueError: what it says is no event.
    """
    async with asyncio.timeout(CALL_S):
        reader, writer = await engine.connect(_EVENT_BYTES_MAX)
    try:
        query = urlencode({"filters": json.dumps(filters)})
        # 1.0: then the answer has no parts, and each line is an event.
        writer.write(f"GET /events?{query} HTTP/1.0\r\nHost: engine\r\n\r\n".encode())
        async with asyncio.timeout(CALL_S):
            status = (await reader.readline()).split()
            while (await reader.readline()).strip():
                pass
        if status[1:2] != [b"200"]:
            raise OSError(f"the request for events was answered {b' '.join(status).decode(errors='replace')!r}")
        on_open()
        while line := await reader.readline():
            yield json.loads(line)
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):  # it broke
            await writer.wait_closed()


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
