"""What tests and people ask of the simulator itself, under /_sim, with the same token: a look inside, and faults on demand."""

from __future__ import annotations

import dataclasses
import hmac
from collections.abc import Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from runner.errors import BadOptionsError
from runner.flysim.cloud import Token
from runner.flysim.driver import Driver
from runner.flysim.processes import MachineProcesses
from runner.flysim.records import Kill, Machine
from runner.flysim.settings import SimSettings

_LOG_BYTES = 64 * 1024


class Admin:
    """The routes. `violations` is shared with the API."""

    def __init__(self, driver: Driver, processes: MachineProcesses, token: str) -> None:
        self._driver = driver
        self._processes = processes
        self._token = token
        self.violations: list[str] = []
        self._faults: dict[str, Callable[[Mapping[str, Any]], None]] = {
            "fail_host": lambda body: driver.world.fail_host(self._host(body)),
            "restore_host": lambda body: driver.world.restore_host(self._host(body)),
            "capacity": lambda body: driver.world.set_capacity(body["region"], int(body["capacity"])),
            "down": lambda body: driver.world.go_down(float(body["seconds"])),
            "drop_reply": self._drop_reply,
            "expire_token": self._expire_token,
            "add_token": self._add_token,
            "crash": self._crash,
            "lose_snapshot": lambda body: driver.world.lose_snapshot(self._machine(body).machine_id),
            "settings": self._change_settings,
        }

    def routes(self) -> list[Route]:
        """For the application."""
        return [
            Route("/_sim/state", self._state, methods=["GET"]),
            Route("/_sim/logs/{machine_id}", self._logs, methods=["GET"]),
            Route("/_sim/faults", self._fault, methods=["POST"]),
        ]

    async def _state(self, request: Request) -> Response:
        if not self._is_allowed(request):
            return _refused()
        self._driver.pump()
        state = self._driver.world.dump()
        pids = self._processes.pids()
        for machine_id, machine in state["machines"].items():
            machine["pid"] = pids.get(machine_id)
        return JSONResponse({**state, "violations": self.violations})

    async def _logs(self, request: Request) -> Response:
        if not self._is_allowed(request):
            return _refused()
        try:
            machine = self._machine({"machine": request.path_params["machine_id"]})
            with self._processes.log_path(machine.machine_id).open("rb") as file:
                text = file.read()[-_LOG_BYTES:].decode(errors="replace")
        except KeyError:
            return JSONResponse({"error": "no such machine"}, 404)
        except FileNotFoundError:
            text = ""
        return JSONResponse({"lines": text.splitlines()})

    async def _fault(self, request: Request) -> Response:
        if not self._is_allowed(request):
            return _refused()
        body = await request.json()
        kind = body.get("kind")
        if kind not in self._faults:
            return JSONResponse({"error": f"no fault {kind!r}; known are: {', '.join(sorted(self._faults))}"}, 400)
        self._driver.pump()
        try:
            self._faults[kind](body)
        except (KeyError, ValueError, TypeError, BadOptionsError) as error:
            return JSONResponse({"error": f"fault {kind!r}: {type(error).__name__}: {error}"}, 400)
        self._driver.pump()
        return JSONResponse({"ok": True})

    def _is_allowed(self, request: Request) -> bool:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        return hmac.compare_digest(given.encode(), self._token.encode())

    # ---- faults ----
    def _machine(self, body: Mapping[str, Any]) -> Machine:
        """By id, or by name where one living machine has it."""
        machines = self._driver.world.cloud.machines
        if body["machine"] in machines:
            return machines[body["machine"]]
        named = [each for each in machines.values() if each.name == body["machine"] and not each.destroyed_s]
        if not named:
            raise KeyError(body["machine"])
        return named[0]

    def _host(self, body: Mapping[str, Any]) -> str:
        return str(body["host"]) if "host" in body else self._machine(body).host.name

    def _drop_reply(self, body: Mapping[str, Any]) -> None:
        how = body.get("how", "cut")
        if how not in ("cut", "408", "mixed"):
            raise ValueError(f"how is {how!r}; expected cut, 408 or mixed")
        self._driver.world.cloud.drop_next += [how] * int(body.get("count", 1))

    def _expire_token(self, body: Mapping[str, Any]) -> None:
        self._driver.world.cloud.tokens[body.get("token", self._token)].is_expired = bool(body.get("expired", True))

    def _add_token(self, body: Mapping[str, Any]) -> None:
        self._driver.world.cloud.tokens[body["token"]] = Token(body["org"])

    def _crash(self, body: Mapping[str, Any]) -> None:
        machine = self._machine(body)
        if not machine.is_alive:
            raise ValueError(f"machine {machine.machine_id} has no process, it is {machine.state.value}")
        self._driver.world.cloud.tell(Kill(machine.machine_id, machine.life))

    def _change_settings(self, body: Mapping[str, Any]) -> None:
        cloud = self._driver.world.cloud
        fixed = {"seed", "regions", "org", "token"} & set(body["settings"])
        if fixed:
            raise ValueError(f"{', '.join(sorted(fixed))} cannot change while it runs")
        changed = SimSettings.from_dict(body["settings"])
        values = {name: getattr(changed, name) for name in body["settings"]}
        cloud.settings = dataclasses.replace(cloud.settings, **values)


def _refused() -> Response:
    return JSONResponse({"error": "the simulator's token is needed"}, 401)
