"""A simulated cloud with imagined programs, driven call by call on a clock that the test turns."""

from __future__ import annotations

import dataclasses
from typing import Any

from runner.flysim.answers import Answer, ApiError
from runner.flysim.calls import Call
from runner.flysim.imaginary import ImaginaryProcesses
from runner.flysim.openapi import Description
from runner.flysim.settings import Delay, Region, SimSettings
from runner.flysim.world import WAIT, World

DESCRIPTION = Description.load()
AT_ONCE = {each.name: Delay(0.0) for each in dataclasses.fields(SimSettings) if each.name.endswith("_delay")}
ONE_HOST = (Region("iad", capacity=4, hosts=1), Region("fra", capacity=4, hosts=1))
CONFIG: dict[str, Any] = {"image": "runner-worker:1"}


class Sim:
    """`call` answers like the API does; every answer is held to the description."""

    def __init__(self, *, is_checked: bool = True, **settings: Any) -> None:
        self.is_checked = is_checked  # against the description, which takes a while
        self.settings = SimSettings(**{"rate_limit": False, "regions": ONE_HOST, **AT_ONCE, **settings})
        self.world = World(self.settings)
        self.cloud = self.world.cloud
        self.now_s = 0.0
        self.processes = ImaginaryProcesses(self._exited)
        self.token = next(iter(self.cloud.tokens))
        self.call("createApp", body={"app_name": "app", "org_slug": "personal"})

    def _exited(self, machine_id: str, life: int, exit_code: int, number: int) -> None:
        self.world.process_exited(machine_id, life, exit_code, number, self.now_s)

    def pump(self) -> None:
        self.world.advance(self.now_s)
        while commands := self.world.take_commands():
            for command in commands:
                self.processes.carry_out(command)
            self.world.advance(self.now_s)

    def pass_s(self, duration_s: float) -> None:
        """Let time pass, stopping where something is due."""
        until_s = self.now_s + duration_s
        while (due_s := self.world.next_wakeup_s()) is not None and due_s <= until_s:
            self.now_s = max(self.now_s, due_s)
            self.pump()
        self.now_s = until_s
        self.pump()

    def call(
        self, operation: str, *path: str, body: Any = None, token: str | None = None, nonce: str = "", **query: Any
    ) -> Answer:
        """The answer, errors too; `path` are the parameters after the app. An app `a_name=` is app."""
        described = DESCRIPTION.operations[operation]
        names = list(described.pattern.groupindex)
        given = ("app", *path) if names[:1] == ["app_name"] and len(path) < len(names) else path
        headers = {"authorization": f"Bearer {self.token if token is None else token}"}
        if nonce:
            headers["fly-machine-lease-nonce"] = nonce
        listed = {
            name: [str(each) for each in (value if isinstance(value, list) else [value])]
            for name, value in query.items()
        }
        request = Call(dict(zip(names, given, strict=True)), listed, body or {}, headers)
        try:
            self.world.enter(operation, request, self.now_s)
            answer = self._perform(operation, request)
        except ApiError as error:
            answer = error.answer()
        self.pump()
        if not self.is_checked:
            return answer
        faults = DESCRIPTION.answer_faults(described, answer.status, answer.body, has_body=answer.body is not None)
        assert faults == [], (operation, answer)
        return answer

    def _perform(self, operation: str, request: Call) -> Answer:
        if operation != WAIT:
            return self.world.perform(operation, request, self.now_s)
        self.world.wait_timeout_s(request)
        answer = self.world.poll_wait(request, self.now_s, is_over=True)
        assert answer is not None
        return answer

    # ---- shortcuts ----
    def create(self, name: str = "m", **config: Any) -> Answer:
        return self.call("createMachine", body={"name": name, "config": {**CONFIG, **config}})

    def created(self, name: str = "m", **config: Any) -> str:
        """The id of a machine that was made, in whatever state it is by now."""
        answer = self.create(name, **config)
        assert answer.status == 200, answer
        return str(answer.body["id"])

    def started(self, name: str = "m", **config: Any) -> str:
        machine_id = self.created(name, **config)
        self.pass_s(60.0)
        assert self.state(machine_id) == "started"
        return machine_id

    def state(self, machine_id: str) -> str:
        return self.cloud.machines[machine_id].state.value

    def trail(self, machine_id: str) -> list[str]:
        return [state.value for state in self.cloud.machines[machine_id].trail]

    def events(self, machine_id: str) -> list[str]:
        """Kinds, oldest first."""
        return [event["type"] for event in reversed(self.cloud.machines[machine_id].events)]

    def error(self, answer: Answer) -> tuple[int, str]:
        """Status and text."""
        return answer.status, answer.body["error"]

    def crash(self, machine_id: str, number: int = 9) -> None:
        """The main process is signalled by somebody inside."""
        machine = self.cloud.machines[machine_id]
        self.processes._end(machine_id, number)
        assert machine.life
        self.pump()

    def exits(self, machine_id: str, exit_code: int) -> None:
        """The main process ends by itself."""
        machine = self.cloud.machines[machine_id]
        self.processes._running.pop(machine_id)
        self.world.process_exited(machine_id, machine.life, exit_code, 0, self.now_s)
        self.pump()
