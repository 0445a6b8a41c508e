"""The container engine: where it listens, its blocking calls in a few threads, and its errors in words."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import docker
from docker.errors import APIError, DockerException
from docker.tls import TLSConfig
from requests.exceptions import RequestException

from runner.config import Settings
from runner.errors import BadOptionsError, ProviderError
from runner.providers.container.options import ContainerOptions

T = TypeVar("T")

CALL_S = 60.0  # one call; starting a container on a busy host takes seconds
# Podman 4.3 with runc on 2 busy cores: 16 creations took 4 to 8 s whatever their number; 16 removals took 6.3 s with 1
# thread, 4.4 with 2, 1.9 with 4, 1.5 with 8 and 1.4 with 16.
CALLS_MAX = 8
_PORT, _TLS_PORT = 2375, 2376  # as the SDK, where the URL names none
_USUAL_SOCKETS = ("/var/run/docker.sock", "/run/podman/podman.sock")
ENGINE_ERRORS = (DockerException, RequestException, OSError)


class Engine:
    """One engine's API. Calls are made in threads of a small pool, so that the event loop never waits for one."""

    def __init__(self, url: str, tls_dir: str = "") -> None:
        """`url`: unix:///path or tcp://host:port. Nothing is asked yet.

        Raises:
            BadOptionsError: `tls_dir` lacks a file.
        """
        self.url = url
        self.is_local = url.startswith("unix://")
        self._tls = _tls(tls_dir)
        self._client: docker.APIClient | None = None
        self._pool = ThreadPoolExecutor(CALLS_MAX, thread_name_prefix="container-engine")

    @property
    def client(self) -> docker.APIClient:
        """The SDK's client. The first use asks the engine for its version: not in the event loop, please.

        Raises:
            One of ENGINE_ERRORS.
        """
        if self._client is None:
            self.probe()
            self._client = docker.APIClient(base_url=self.url, timeout=CALL_S, tls=self._tls or False)  # type: ignore[arg-type]
        return self._client

    def probe(self) -> None:
        """See whether anybody listens; the SDK leaves a socket behind when nobody does. Blocking.

        Raises:
            OSError: nobody does.
        """
        if self.is_local:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(CALL_S)
                probe.connect(self.url.removeprefix("unix://"))

    def version_and_info(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the engine is, and what its host has; blocking."""
        return self.client.version(), self.client.info()

    async def connect(self, limit_bytes: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection beside the SDK's, for a line of `limit_bytes` at most.

        Raises:
            OSError: nobody answers, or TLS fails.
        """
        if self.is_local:
            return await asyncio.open_unix_connection(self.url.removeprefix("unix://"), limit=limit_bytes)
        split = urlsplit(self.url)
        context = None
        if self._tls is not None:
            context = ssl.create_default_context(cafile=self._tls.ca_cert)
            certificate, key = self._tls.cert or ("", None)
            context.load_cert_chain(certificate, key)
        port = split.port or (_PORT if context is None else _TLS_PORT)
        return await asyncio.open_connection(split.hostname, port, ssl=context, limit=limit_bytes)

    async def call(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run a blocking function that uses `client`.

        Raises:
            One of ENGINE_ERRORS, as the function raises it.
        """
        return await asyncio.get_running_loop().run_in_executor(self._pool, partial(function, *args, **kwargs))

    def close(self) -> None:
        """Free connections and threads; calls under way end by themselves. Idempotent."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._client is not None:
            self._client.close()

    # ---- blocking ----
    def inspect(self, name_or_id: str) -> dict[str, Any] | None:
        """A container, or None when there is none."""
        try:
            found: dict[str, Any] = self.client.inspect_container(name_or_id)
        except APIError as error:
            if is_gone(error):
                return None
            raise
        return found

    def remove(self, name_or_id: str) -> None:
        """End everything in a container, with SIGKILL, and take it away; also succeeds when there is none.

        Podman's forced removal would ask politely first: containers are made with a stop timeout of 0, and it does not.
        """
        try:
            self.client.remove_container(name_or_id, force=True, v=True)
        except APIError as error:
            # 409: the engine's own removal is under way (auto-remove); its end is waited for.
            if not is_gone(error) and error.status_code != 409:
                raise

    def pause(self, name_or_id: str) -> None:
        """Have everything in a container stand still; one that does already is no error."""
        try:
            self.client.pause(name_or_id)
        except APIError as error:
            if not self._is(name_or_id, "paused", error):
                raise

    def unpause(self, name_or_id: str) -> None:
        """Let it go on; one that runs is no error."""
        try:
            self.client.unpause(name_or_id)
        except APIError as error:
            if not self._is(name_or_id, "running", error):
                raise

    def _is(self, name_or_id: str, status: str, error: APIError) -> bool:
        """Whether a refusal (Docker: 409, Podman: 500) only says that there is nothing to do."""
        if is_gone(error):
            return False
        found = self.inspect(name_or_id)
        return found is not None and str((found.get("State") or {}).get("Status", "")).lower() == status


def find_engine(options: ContainerOptions, settings: Settings) -> Engine:
    """The engine that is named, or that listens in one of the usual places.

    Raises:
        ProviderError: a permanent one: none is named, and none of the usual sockets exists.
        BadOptionsError: DOCKER_HOST is of no kind that works here.
    """
    named = options.socket or settings.docker_host
    if named:
        if not named.startswith(("unix://", "tcp://")):
            raise BadOptionsError(f"DOCKER_HOST is {named!r}; expected unix:///path/to.sock or tcp://host:port")
        return Engine(named, options.tls_dir)
    looked = [*_sockets(settings)]
    for path in looked:
        if os.access(path, os.R_OK | os.W_OK):
            return Engine(f"unix://{path}")
    states = ", ".join(f"{path} ({'no right to use it' if os.path.exists(path) else 'not there'})" for path in looked)
    error = ProviderError(
        f"no container engine was found; looked at {states}; start Docker, or Podman's API with "
        f"`systemctl start podman.socket`, or name it: provider_options={{'socket': 'unix:///path/to.sock'}} or DOCKER_HOST",
        phase="prepare",
    )
    error.is_permanent = True
    raise error


def _sockets(settings: Settings) -> Iterator[str]:
    yield _USUAL_SOCKETS[0]
    if settings.runtime_dir is not None:
        yield str(settings.runtime_dir / "podman" / "podman.sock")
        yield str(settings.runtime_dir / "docker.sock")
    yield from _USUAL_SOCKETS[1:]


def _tls(folder: str) -> TLSConfig | None:
    if not folder:
        return None
    files = {name: str(Path(folder) / f"{name}.pem") for name in ("ca", "cert", "key")}
    if missing := [path for path in files.values() if not os.path.isfile(path)]:
        raise BadOptionsError(f"option tls_dir is {folder!r}, which lacks {', '.join(missing)}")
    return TLSConfig(client_cert=(files["cert"], files["key"]), ca_cert=files["ca"], verify=True)


def is_gone(error: BaseException) -> bool:
    """Whether the engine says that there is no such container. Podman answers 500 while it removes one."""
    if not isinstance(error, APIError):
        return False
    return error.status_code == 404 or "no such container" in in_words(error).lower()


def in_words(error: BaseException) -> str:
    """What the engine said, without the SDK's wrapping."""
    text = str(getattr(error, "explanation", None) or error) or type(error).__name__
    return re.sub(r"\s+", " ", text).strip()
