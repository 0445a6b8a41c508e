"""Runs what a generator function returned, sync or async, item by item."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any, Protocol


class Sink(Protocol):
    """Takes items."""

    @property
    def must_wait(self) -> bool:
        """Whether `wait_for_reader` would wait."""

    def add(self, value: Any) -> None:
        """The next item."""

    def wait_for_reader(self) -> None:
        """Return when the next item may be made."""

    def flush(self) -> None:
        """Send what was added."""


def run_generator(result: Any, sink: Sink) -> None:
    """Hand every item to `sink`; the generator is closed when this ends, however that is.

    Raises:
        ValueError: it is no generator.
    """
    if hasattr(result, "__anext__"):
        with asyncio.Runner() as runner:
            runner.run(run_async_generator(result, sink))
    elif hasattr(result, "__next__"):
        _run(result, sink)
    else:
        raise ValueError(
            f'the task returned a {type(result).__name__}, but with num_returns="streaming" it must return a generator'
        )


def _run(generator: Iterator[Any], sink: Sink) -> None:
    try:
        sink.wait_for_reader()
        for value in generator:
            sink.add(value)
            del value  # it may be large
            sink.wait_for_reader()
    finally:
        if hasattr(generator, "close"):
            generator.close()


async def run_async_generator(generator: AsyncIterator[Any], sink: Sink) -> None:
    """In a running loop, which goes on while this waits for the reader."""
    try:
        await _wait(sink)
        async for value in generator:
            sink.add(value)
            del value
            await _wait(sink)
    finally:
        if hasattr(generator, "aclose"):
            await generator.aclose()


async def _wait(sink: Sink) -> None:
    if sink.must_wait:
        await asyncio.to_thread(sink.wait_for_reader)
