"""A server that gives hand-written answers. Each request, and each answer unless it is meant to be strange, is held to the description."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from runner.core.values import CPU, MEMORY, UNIT, make_shape
from runner.ids import ClusterId, MachineId
from runner.providers.base import BootConfig, MachineSpec
from runner.providers.fly.api import FlyApi
from runner.providers.fly.connection import Connection, Limiter, Token
from runner.providers.fly.options import parse_options
from runner.providers.fly.provider import FlyProvider
from runner.providers.registry import Place
from runner.testing import FakeClock
from tests.unit.providers.fly import described

TOKEN = "fm2_lJPECAAAAsecretsecret"
JOIN_TOKEN = "join-token-nobody-may-see"
CLUSTER = ClusterId("c-5f2a9c01d3e4")
M1, M2 = MachineId("m-1"), MachineId("m-2")
ID = "3d8d9014b32d89"
MACHINES = "/apps/fleet/machines"
ONE = f"{MACHINES}/{ID}"
OK = {"ok": True}


@dataclass(frozen=True)
class Answer:
    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    after_s: float = 0.0
    is_strange: bool = False  # not as described, on purpose

    def response(self) -> httpx.Response:
        headers = {"fly-request-id": "01REQ-iad", **self.headers}
        if isinstance(self.body, str):
            return httpx.Response(self.status, text=self.body, headers=headers)
        content = b"" if self.body is None else json.dumps(self.body).encode()
        return httpx.Response(self.status, content=content, headers=headers)


def refused(status: int, error: str, code: str = "", **more: Any) -> Answer:
    """An error body as in REFERENCE 1.3."""
    return Answer(status, {"error": error} | ({"status": code} if code else {}), **more)


Scripted = Answer | Exception | Callable[[httpx.Request], "Answer | Exception"]


@dataclass
class Seen:
    method: str
    path: str
    query: dict[str, str]
    body: Any
    headers: httpx.Headers
    at_s: float


class ScriptedFly:
    """For each `METHOD path` the answers in their order; the last one is given again and again."""

    def __init__(self) -> None:
        self._answers: dict[str, list[Scripted]] = {}
        self.seen: list[Seen] = []

    def on(self, route: str, *answers: Scripted) -> ScriptedFly:
        self._answers[route] = list(answers)
        return self

    def calls(self, route: str) -> list[Seen]:
        return [each for each in self.seen if f"{each.method} {each.path}" == route]

    async def handle(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/v1")
        body = json.loads(request.content) if request.content else None
        now_s = asyncio.get_running_loop().time()
        self.seen.append(Seen(request.method, path, dict(request.url.params), body, request.headers, now_s))
        described.check_request(request)
        scripted = self._answers.get(f"{request.method} {path}")
        assert scripted, f"no answer was written for {request.method} {path}"
        answer = scripted.pop(0) if len(scripted) > 1 else scripted[0]
        if callable(answer):
            answer = answer(request)
        if isinstance(answer, Exception):
            raise answer
        await asyncio.sleep(answer.after_s)
        response = answer.response()
        if not answer.is_strange:
            described.check_answer(request, response)
        return response

    def connection(self, token: Token | None = None, limiter: Limiter | None = None) -> Connection:
        return Connection(
            "https://api.example",
            token or Token(TOKEN),
            limiter or Limiter(None),
            transport=httpx.MockTransport(self.handle),
        )


def run(work: Callable[[], Coroutine[Any, Any, Any]]) -> float:
    """Run it in time that jumps; how many seconds of it passed."""
    clock = FakeClock()
    begun_s = clock.monotonic_s()
    clock.run(work())
    return clock.monotonic_s() - begun_s


def api_of(fly: ScriptedFly, **kwargs: Any) -> FlyApi:
    return FlyApi(fly.connection(**kwargs), "fleet")


def machine(state: str = "started", *, machine_id: str = ID, name: str = "m-1", **more: Any) -> dict[str, Any]:
    """A machine of ours as in REFERENCE 1.4, with a key that nobody knows."""
    return {
        "id": machine_id,
        "name": f"runner-{CLUSTER}-{name}",
        "state": state,
        "region": "iad",
        "instance_id": "01HV0000000000000000000000",
        "private_ip": "fdaa:0:1::3",
        "config": {
            "image": "registry.fly.io/fleet:1",
            "guest": {"cpu_kind": "performance", "cpus": 1, "memory_mb": 2048},
            "metadata": {"runner_cluster": CLUSTER, "runner_machine": name},
            "key_of_tomorrow": {"deep": [1, 2]},
        },
        "created_at": "2026-11-21T10:00:00.123456789Z",
        "events": [],
        "from_the_future": 7,
    } | more


def exit_event(at_ms: int = 1_700_000_009_000, **end: Any) -> dict[str, Any]:
    return {
        "id": f"ev-{at_ms}",
        "type": "exit",
        "status": "stopped",
        "source": "flyd",
        "timestamp": at_ms,
        "request": {"exit_event": end},
    }


def make_spec(
    name: MachineId = M1, *, cpus: float = 1, memory_bytes: int = 0, size: str = "", **amounts
) -> MachineSpec:
    boot = BootConfig(
        coordinator_address="198.51.100.7:7420",
        ca_pem=b"pem",
        join_token=JOIN_TOKEN,
        machine_id=name,
        cluster_id=CLUSTER,
        cpus=cpus,
        memory_bytes=memory_bytes,
        embedded=True,
        host_id="host-1",
        log_path="/somewhere",
    )
    shape = make_shape({CPU: round(cpus * UNIT), MEMORY: memory_bytes} | amounts)
    return MachineSpec(CLUSTER, name, shape, boot, size=size)


def make_provider(fly: ScriptedFly, folder: Path, **options: Any) -> FlyProvider:
    """A provider whose requests go to `fly`, without limits of its own unless told."""
    host = options.pop("coordinator_host", "198.51.100.7")
    values = {"app": "fleet", "image": "registry.fly.io/fleet:1", "token": TOKEN, "rates": False} | options
    place = Place(CLUSTER, True, values, folder, "", "", "host-1", coordinator_host=host)
    return FlyProvider(parse_options(values), place, transport=httpx.MockTransport(fly.handle))
