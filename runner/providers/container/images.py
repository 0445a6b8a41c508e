"""Whether an image is there, and whether it can serve this client."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from docker.errors import APIError

from runner.errors import ProviderError
from runner.providers.container.engine import ENGINE_ERRORS, Engine, in_words
from runner.rpc.version import PROTOCOL, VERSION

PYTHON_LABEL, PROTOCOL_LABEL, VERSION_LABEL = "runner.python", "runner.protocol", "runner.version"
# What registries say of an image that nobody will ever get with this name and these rights.
_NEVER = ("not found", "unknown", "denied", "unauthorized", "no such", "invalid", "short-name", "does not exist")
_PROGRESS_S = 1.0


def client_python() -> str:
    """The minor version of this process: functions travel as bytecode, so machines need the same."""
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def why_unfit(image: str, labels: Mapping[str, str]) -> str:
    """Why machines of this image could not work for this client, and what to do; empty when they can."""
    build = "build one that fits with `runner image build`"
    python, protocol = labels.get(PYTHON_LABEL), labels.get(PROTOCOL_LABEL)
    if python is None or protocol is None:
        missing = ", ".join(name for name in (PYTHON_LABEL, PROTOCOL_LABEL) if labels.get(name) is None)
        return f"image {image} is no worker image: it has no label {missing}; {build}"
    if python != client_python():
        return (
            f"image {image} has Python {python}, this client runs Python {client_python()}, and functions can only be "
            f"sent between equal minor versions; {build}, or run the client with Python {python}"
        )
    if protocol != str(PROTOCOL):
        return (
            f"image {image} has runner {labels.get(VERSION_LABEL, 'unknown')} with protocol {protocol}, this client has "
            f"runner {VERSION} with protocol {PROTOCOL}; {build}, or install the image's version here"
        )
    return ""


def has_registry(image: str) -> bool:
    """Whether a name says where else than on the engine it may be: a registry, or somebody's repository."""
    first, slash, _ = image.partition("/")
    return bool(slash) and first != "localhost"


def refusal(message: str, *, is_permanent: bool = True) -> ProviderError:
    """An error about the image, which all machines share."""
    error = ProviderError(message, phase="image")
    error.is_permanent = is_permanent
    return error


@dataclass(slots=True)
class _Pull:
    done: asyncio.Task[None]
    listeners: list[Callable[[str], None]] = field(default_factory=list)


class Images:
    """The image of one cluster's machines: looked at once, pulled once however many machines wait for it."""

    def __init__(self, engine: Engine, image: str, pull: str) -> None:
        self._engine = engine
        self._image = image
        self._policy = pull
        self._pull: _Pull | None = None
        self._pulled_unix_s: float | None = None
        self._is_fit = False

    async def check(self) -> None:
        """Refuse an image that cannot work, as far as can be told without pulling it.

        Raises:
            ProviderError: a permanent one.
        """
        labels = await self._labels()
        if labels is None and self._is_nowhere:
            raise refusal(self._missing())
        if labels is not None and self._policy != "always":
            self._judge(labels)

    async def ensure(self, on_progress: Callable[[str], None]) -> float | None:
        """Have the image on the engine; `on_progress` gets lines about a pull. Unix seconds of its end, None without one.

        Raises:
            ProviderError: it cannot be had, or cannot serve this client; `is_permanent` where trying again is in vain.
        """
        if self._is_fit:
            return self._pulled_unix_s
        if self._pull is None:
            if self._policy != "always":
                labels = await self._labels()
                if labels is not None:
                    self._judge(labels)
                    return None
                if self._is_nowhere:
                    raise refusal(self._missing())
        if self._pull is None:  # still: others may have come while this one looked
            self._pull = _Pull(asyncio.create_task(self._do_pull(), name="pull"))
        pull = self._pull
        pull.listeners.append(on_progress)
        on_progress(f"waits for image {self._image}, which is pulled")
        await asyncio.shield(pull.done)
        return self._pulled_unix_s

    async def _do_pull(self) -> None:
        loop = asyncio.get_running_loop()

        def tell(line: str) -> None:
            if self._pull is not None:
                for listener in self._pull.listeners:
                    listener(line)

        try:
            await self._engine.call(self._pull_blocking, lambda line: loop.call_soon_threadsafe(tell, line))
            labels = await self._labels()
            if labels is None:
                raise refusal(self._missing())
            self._pulled_unix_s = time.time()
            self._judge(labels)
        except ENGINE_ERRORS as error:
            words = in_words(error)
            is_permanent = any(word in words.lower() for word in _NEVER)
            raise refusal(
                f"image {self._image} could not be pulled by the engine at {self._engine.url}: {words}; check the name "
                f"and `docker login`, or build one with `runner image build`",
                is_permanent=is_permanent,
            ) from None
        finally:
            self._pull = None

    def _pull_blocking(self, tell: Callable[[str], object]) -> None:
        told_s, layers = 0.0, {}
        repository, tag = _split(self._image)
        for event in self._engine.client.pull(repository, tag=tag, stream=True, decode=True):
            if event.get("error"):
                raise APIError(str(event["error"]))
            detail = event.get("progressDetail") or {}
            if event.get("id") and detail.get("total"):
                layers[event["id"]] = (detail.get("current", 0), detail["total"])
            if layers and time.monotonic() - told_s >= _PROGRESS_S:
                told_s = time.monotonic()
                got, total = (sum(each[side] for each in layers.values()) / 1e6 for side in (0, 1))
                tell(f"pulling image {self._image}: {got:.0f} of {total:.0f} MB")
        tell(f"pulled image {self._image}")

    async def _labels(self) -> dict[str, str] | None:
        """The image's labels; None when the engine does not have it."""
        try:
            found: dict[str, Any] = await self._engine.call(self._engine.client.inspect_image, self._image)
        except APIError as error:
            if error.status_code == 404:
                return None
            raise
        return (found.get("Config") or {}).get("Labels") or {}

    def _judge(self, labels: Mapping[str, str]) -> None:
        reason = why_unfit(self._image, labels)
        if reason:
            raise refusal(reason)
        self._is_fit = True

    @property
    def _is_nowhere(self) -> bool:
        """Whether there is no place to pull it from."""
        return self._policy == "never" or not has_registry(self._image)

    def _missing(self) -> str:
        variant = self._image.rpartition(":")[2]
        how = f"runner image build --variant {variant}" if variant in {"cpu", "cuda", "slim"} else "runner image build"
        return (
            f"image {self._image} is not on the engine at {self._engine.url}, and there is nowhere to pull it from; "
            f"build it with `{how}`, or name one with its registry"
        )


def _split(image: str) -> tuple[str, str]:
    """Repository and tag or digest; the SDK takes a missing tag for all of them."""
    if "@" in image:
        repository, _, digest = image.partition("@")
        return repository, digest
    repository, colon, tag = image.rpartition(":")
    if colon and "/" not in tag:
        return repository, tag
    return image, "latest"
