"""Sends requests to the API: at the allowed rate, again where that is safe, until one deadline."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import random
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import httpx

from runner.providers.fly.errors import RETRYABLE, FlyError, Kind, body_texts, classify, named_machine, scrub
from runner.providers.fly.limits import Buckets, Rate, parse_retry_after, pause_before_retry

log = logging.getLogger(__name__)

NONCE_HEADER = "fly-machine-lease-nonce"
REQUEST_ID_HEADER = "fly-request-id"
CALL_S = 60.0  # deadline of a call for which nobody set one
_CONNECT_S = 10.0
_ANSWER_S = 70.0  # the proxy in front of the API gives up after 60 s
_LANDING_S = 30.0  # for a request that cannot be called back, after its caller gave up
_MACAROONS = ("fm1r_", "fm1a_", "fm2_")


class Token:
    """A secret for the Authorization header, with or without its scheme. Never printed."""

    __slots__ = ("_scheme", "_secret")

    def __init__(self, text: str) -> None:
        """`text` as it stands in FLY_API_TOKEN: with a scheme before it, or without."""
        scheme, space, rest = text.strip().partition(" ")
        has_scheme = bool(space) and scheme.lower() in {"bearer", "flyv1"}
        self._secret = rest.strip() if has_scheme else text.strip()
        is_macaroon = self._secret.startswith(_MACAROONS) or (has_scheme and scheme.lower() == "flyv1")
        self._scheme = "FlyV1" if is_macaroon else "Bearer"

    def __repr__(self) -> str:
        return "Token(not shown)"

    def __bool__(self) -> bool:
        return bool(self._secret)

    @property
    def is_clean(self) -> bool:
        """Whether it can stand in a header."""
        return self._secret.isascii() and self._secret.isprintable() and " " not in self._secret

    def header(self) -> str:
        """The value of the Authorization header."""
        return f"{self._scheme} {self._secret}"

    def secrets(self) -> tuple[str, ...]:
        """What must not be seen: the whole, and each of several tokens in it."""
        return (self._secret, *(each for each in self._secret.split(",") if len(each) >= 8))


@dataclass(frozen=True, slots=True)
class Request:
    """One call of the API."""

    action: str  # with `identifier` it names the token bucket
    identifier: str  # the App or Machine ID that it is counted for
    method: str
    path: str  # without /v1
    params: Mapping[str, Any] = field(default_factory=dict)
    body: Any = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    is_repeatable: bool = True  # doing it twice is doing it once; otherwise it is sent again only where it was not done
    secrets: tuple[str, ...] = field(default=(), repr=False)  # in the body; blacked out in errors that repeat it
    sent: Callable[[], None] | None = None  # called when its turn has come, just before it goes out
    landed: Callable[[Any], None] | None = None  # gets the answer even when the caller gave up in the meantime


class Limiter:
    """Makes all callers of one API in one event loop take turns."""

    def __init__(self, rates: Mapping[str, Rate] | None) -> None:
        self._buckets = Buckets(rates)
        self._turns: dict[tuple[str, str], asyncio.Lock] = {}

    async def take(self, action: str, identifier: str) -> None:
        """Return when one such request may be sent; first come, first served."""
        loop = asyncio.get_running_loop()
        bucket = self._buckets.bucket(action, identifier, loop.time())
        turn = self._turns.setdefault((action, identifier), asyncio.Lock())
        async with turn:
            wait_s = bucket.take(loop.time())
            while wait_s > 0:
                await asyncio.sleep(wait_s)
                wait_s = bucket.take(loop.time())  # a refusal in the meantime has made it longer for all
        if len(self._turns) > 1000:
            self._turns = {key: lock for key, lock in self._turns.items() if lock.locked()}

    def refused(self, action: str, identifier: str, retry_after_s: float) -> None:
        """The server said 429."""
        now_s = asyncio.get_running_loop().time()
        self._buckets.bucket(action, identifier, now_s).refused(now_s, retry_after_s)

    def accepted(self, action: str, identifier: str) -> None:
        """The server took one."""
        self._buckets.bucket(action, identifier, asyncio.get_running_loop().time()).accepted()


_limiters: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Limiter]] = WeakKeyDictionary()


def shared_limiter(base_url: str, rates: Mapping[str, Rate] | None) -> Limiter:
    """The one limiter of this event loop for that server; the first caller's rates hold."""
    of_loop = _limiters.setdefault(asyncio.get_running_loop(), {})
    return of_loop.setdefault(base_url, Limiter(rates))


def _know_that_sniffio_is_missing() -> None:
    """httpcore tries to import it several times for each request, and looks through all folders each time that it is not there:
    a third of the time that a boot of many machines takes here.
    """
    if "sniffio" not in sys.modules and importlib.util.find_spec("sniffio") is None:
        sys.modules["sniffio"] = None  # type: ignore[assignment]  # as documented: importing it fails at once


class Connection:
    """One server and one token. For one event loop."""

    def __init__(
        self,
        base_url: str,
        token: Token | None,
        limiter: Limiter,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        trust_env: bool = True,
    ) -> None:
        """`base_url` without /v1. `transport`: how bytes travel, by default over the network. `trust_env`: use the proxies that
        the environment names.
        """
        _know_that_sniffio_is_missing()
        self._limiter = limiter
        self._secrets = token.secrets() if token else ()
        self._random = random.Random()
        self._settings: dict[str, Any] = {
            "base_url": base_url.rstrip("/") + "/v1",
            "headers": {"Authorization": token.header()} if token else {},
            "timeout": httpx.Timeout(_ANSWER_S, connect=_CONNECT_S, pool=None),
            "limits": httpx.Limits(max_connections=200, max_keepalive_connections=50),
            "transport": transport,
            "trust_env": trust_env,
        }
        self._client: httpx.AsyncClient | None = None
        self.nonces: dict[str, str] = {}  # of the leases that are held through this connection, by machine id

    async def close(self) -> None:
        """Let go of all sockets. A later call opens new ones, for another `close`."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def call(self, request: Request, deadline_s: float | None = None) -> Any:
        """The decoded body of the answer (None where it has none). `deadline_s` on the loop's clock.

        Raises:
            FlyError: it was refused, or there was no answer until the deadline.
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + CALL_S if deadline_s is None else deadline_s
        last: FlyError | None = None
        tries = 0
        try:
            async with asyncio.timeout_at(until_s):
                while True:
                    await self._limiter.take(request.action, request.identifier)
                    try:
                        return await self._send(request)
                    except FlyError as error:
                        last = error
                        pause_s = self._pause(request, error, tries, until_s)
                    if pause_s is None:
                        raise last
                    log.debug("%s: %s; again in %.2f s", request.action, last, pause_s)
                    tries += 1
                    await asyncio.sleep(pause_s)
        except TimeoutError:
            raise self._too_late(request, last) from None

    def _pause(self, request: Request, error: FlyError, tries: int, until_s: float) -> float | None:
        """Seconds until it is sent again; None: it is not."""
        safe = request.is_repeatable or error.kind in {Kind.UNREACHABLE, Kind.RATE_LIMITED}
        if error.kind not in RETRYABLE or not safe:
            return None
        if error.kind is Kind.RATE_LIMITED:
            self._limiter.refused(request.action, request.identifier, error.retry_after_s)
        return pause_before_retry(
            tries,
            now_s=asyncio.get_running_loop().time(),
            deadline_s=until_s,
            # The bucket holds everybody back for what the server asked; here only the spread is added.
            retry_after_s=0.0 if error.kind is Kind.RATE_LIMITED else error.retry_after_s,
            random=self._random.random(),
        )

    def _too_late(self, request: Request, last: FlyError | None) -> FlyError:
        """The deadline passed: while waiting for a turn or a retry, or for the answer itself."""
        seen = f"{request.action}: no answer until the deadline"
        if last is not None:
            seen += f"; the last one was {last}"
        return FlyError(Kind.DEADLINE, seen, action=request.action, request_id="" if last is None else last.request_id)

    async def _send(self, request: Request) -> Any:
        if request.landed is None:
            return await self._exchange(request)
        # What may have been created must become known: the answer is waited for even if the caller gives up.
        sending = asyncio.ensure_future(self._exchange(request))
        try:
            return await asyncio.shield(sending)
        except asyncio.CancelledError:
            await asyncio.wait([sending], timeout=_LANDING_S)
            if not sending.done():
                sending.cancel()
            elif not sending.cancelled():
                sending.exception()
            raise

    async def _exchange(self, request: Request) -> Any:
        begun_s = time.monotonic()
        if request.sent is not None:
            request.sent()
        try:
            if self._client is None:
                self._client = httpx.AsyncClient(**self._settings)
            answer = await self._client.request(
                request.method,
                request.path,
                params=dict(request.params),
                json=request.body,
                headers=dict(request.headers),
            )
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol) as error:
            raise self._lost(Kind.UNREACHABLE, request, error) from None
        except httpx.HTTPError as error:
            raise self._lost(Kind.INTERRUPTED, request, error) from None
        request_id = answer.headers.get(REQUEST_ID_HEADER, "")
        took_ms = 1000 * (time.monotonic() - begun_s)
        log.debug("%s %s: %d in %.0f ms, %s", request.method, request.path, answer.status_code, took_ms, request_id)
        if answer.is_success:
            self._limiter.accepted(request.action, request.identifier)
            decoded = self._decode(request, answer, request_id)
            if request.landed is not None:
                request.landed(decoded)
            return decoded
        raise self._refusal(request, answer, request_id)

    def _decode(self, request: Request, answer: httpx.Response, request_id: str) -> Any:
        if not answer.content:
            return None
        try:
            return json.loads(answer.content)
        except ValueError:
            text = f"the answer to {request.action} is no JSON"
            raise FlyError(Kind.INTERRUPTED, text, action=request.action, request_id=request_id) from None

    def _refusal(self, request: Request, answer: httpx.Response, request_id: str) -> FlyError:
        try:
            code, text = body_texts(json.loads(answer.content))
        except ValueError:
            code, text = "", answer.text or answer.reason_phrase
        return FlyError(
            classify(answer.status_code, code, text),
            scrub(text, (*self._secrets, *request.secrets)),
            action=request.action,
            status=answer.status_code,
            request_id=request_id,
            retry_after_s=parse_retry_after(answer.headers.get("retry-after"), time.time()),
            machine_id=named_machine(text),
        )

    def _lost(self, kind: Kind, request: Request, error: Exception) -> FlyError:
        said = scrub(str(error), (*self._secrets, *request.secrets)) or type(error).__name__
        return FlyError(kind, f"{request.action}: {said}", action=request.action)
