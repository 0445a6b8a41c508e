"""Calls about the machines of one app."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from runner.providers.fly.connection import NONCE_HEADER, Connection, Request
from runner.providers.fly.errors import FlyError, Kind
from runner.providers.fly.model import Config, Event, ExecResult, Lease, Machine, format_duration, newest_first

_UP_STATES = frozenset({"starting", "started"})
WAIT_S_MIN, WAIT_S_MAX = 1, 60  # of one wait request


class Machines:
    """Each call raises FlyError. A held lease's nonce is sent with every change of its machine."""

    def __init__(self, connection: Connection, app: str, deadline_s: float | None) -> None:
        """`deadline_s` of all calls made through this one, on the loop's clock."""
        self._connection = connection
        self._app = app
        self._deadline_s = deadline_s
        self._path = f"/apps/{quote(app)}/machines"

    # ---- looking ----
    async def get(self, machine_id: str) -> Machine:
        return _machine(await self._call("get_machine", machine_id, "GET"))

    async def list(
        self,
        metadata: Mapping[str, str] | None = None,
        *,
        region: str = "",
        state: str = "",
        include_deleted: bool = False,
    ) -> tuple[Machine, ...]:
        """Those that carry all of `metadata`. That filter is not in the published description, so it is applied here too."""
        params = {f"metadata.{key}": value for key, value in (metadata or {}).items()}
        params |= {key: value for key, value in (("region", region), ("state", state)) if value}
        if include_deleted:
            params["include_deleted"] = "true"
        request = Request("list_machines", self._app, "GET", self._path, params)
        machines = [_machine(each) for each in await self._connection.call(request, self._deadline_s) or ()]
        wanted = dict(metadata or {}).items()
        return tuple(each for each in machines if wanted <= dict(each.config.metadata).items())

    async def events(self, machine_id: str, *, limit: int | None = None) -> tuple[Event, ...]:
        """What happened to it, newest first."""
        params = {} if limit is None else {"limit": limit}
        answer = await self._call("list_events", machine_id, "GET", "/events", params=params)
        return newest_first(Event(each) for each in answer or ())

    # ---- making, changing, ending ----
    async def create(
        self,
        config: Config,
        *,
        name: str = "",
        region: str = "",
        lease_ttl_s: int | None = None,
        skip_launch: bool = False,
        secrets: tuple[str, ...] = (),
        sent: Callable[[], None] | None = None,
        landed: Callable[[Machine], None] | None = None,
    ) -> Machine:
        """Create one; it boots unless `skip_launch`. Not idempotent: after an AMBIGUOUS error look for `name`.

        `secrets` in the configuration are blacked out in errors. `landed` gets the machine even if the caller is cancelled while
        the request is under way; `sent` is called when it goes out.
        """
        body: dict[str, Any] = {"config": config.raw}
        body |= {key: value for key, value in (("name", name), ("region", region)) if value}
        if lease_ttl_s is not None:
            body["lease_ttl"] = lease_ttl_s
        if skip_launch:
            body["skip_launch"] = True

        def note(answer: Any) -> None:
            if landed is not None:
                landed(_machine(answer))

        request = Request(
            "create_machine",
            self._app,
            "POST",
            self._path,
            body=body,
            is_repeatable=False,
            secrets=secrets,
            sent=sent,
            landed=note,
        )
        machine = _machine(await self._connection.call(request, self._deadline_s))
        if machine.nonce:
            self._connection.nonces[machine.id] = machine.nonce
        return machine

    async def update(
        self, machine_id: str, config: Config, *, current_version: str = "", skip_launch: bool = False
    ) -> Machine:
        """Replace its whole configuration (keys left out are dropped; `Config.changed` keeps them) and reboot it.

        `current_version`: refuse (STALE) if another update came first.
        """
        body: dict[str, Any] = {"config": config.raw}
        if current_version:
            body["current_version"] = current_version
        if skip_launch:
            body["skip_launch"] = True
        return _machine(await self._change("update_machine", machine_id, "POST", body=body, is_repeatable=False))

    async def start(self, machine_id: str) -> None:
        """Boot or resume it; while it is being replaced this waits. One that starts or runs already is no error."""
        while True:
            try:
                await self._change("start_machine", machine_id, "POST", "/start")
                return
            except FlyError as error:
                # As after a start whose answer was lost.
                if error.kind is Kind.WRONG_STATE and (await self.get(machine_id)).state in _UP_STATES:
                    return
                if error.kind is not Kind.REPLACING:
                    raise
                await self._pause(error)

    async def stop(self, machine_id: str, *, signal: str = "", timeout_s: float | None = None) -> None:
        """Have its main process end: by the signal (SIGINT where none is named), and after the timeout by SIGKILL."""
        body: dict[str, Any] = {"signal": signal} if signal else {}
        if timeout_s is not None:
            body["timeout"] = format_duration(timeout_s)
        await self._change("stop_machine", machine_id, "POST", "/stop", body=body)

    async def suspend(self, machine_id: str) -> None:
        await self._change("suspend_machine", machine_id, "POST", "/suspend")

    async def restart(
        self, machine_id: str, *, signal: str = "", timeout_s: float | None = None, force_stop: bool = False
    ) -> None:
        params = {} if timeout_s is None else {"timeout": format_duration(timeout_s)}
        params |= {"signal": signal} if signal else {}
        params |= {"force_stop": "true"} if force_stop else {}
        await self._change("restart_machine", machine_id, "POST", "/restart", params=params, is_repeatable=False)

    async def signal(self, machine_id: str, signal: str) -> None:
        """Send its main process a signal, as "SIGUSR1"."""
        body = {"signal": signal}
        await self._change("signal_machine", machine_id, "POST", "/signal", body=body, is_repeatable=False)

    async def destroy(self, machine_id: str, *, force: bool = False) -> bool:
        """False: it was gone already. Without `force` only one that does not run."""
        params = {"force": "true"} if force else {}
        try:
            await self._change("destroy_machine", machine_id, "DELETE", params=params)
        except FlyError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise
            return False
        finally:
            self._connection.nonces.pop(machine_id, None)
        return True

    async def cordon(self, machine_id: str) -> None:
        """Take it out of the proxy's routing; it runs on."""
        await self._change("cordon_machine", machine_id, "POST", "/cordon")

    async def uncordon(self, machine_id: str) -> None:
        await self._change("uncordon_machine", machine_id, "POST", "/uncordon")

    async def execute(
        self, machine_id: str, command: Sequence[str], *, timeout_s: float = 30, stdin: str = ""
    ) -> ExecResult:
        """Run a command inside it. A command that fails is a result, with its exit code."""
        body: dict[str, Any] = {"command": list(command), "timeout": math.ceil(timeout_s)}
        if stdin:
            body["stdin"] = stdin
        answer = await self._call("exec_machine", machine_id, "POST", "/exec", body=body, is_repeatable=False)
        said = answer if isinstance(answer, Mapping) else {}
        return ExecResult(int(said.get("exit_code") or 0), str(said.get("stdout") or ""), str(said.get("stderr") or ""))

    # ---- waiting ----
    async def wait(
        self,
        machine_id: str,
        state: str = "started",
        *,
        instance_id: str = "",
        from_event_id: str = "",
        deadline_s: float,
        slice_s: float = WAIT_S_MAX,
        gone_states: Collection[str] = (),
    ) -> Machine | None:
        """Wait until it is in `state`, asking again every `slice_s` (1 to 60 s); None when it is, a Machine when it never will be.

        That is one that was seen in one of `gone_states` between two slices. `stopped` needs an `instance_id`.

        Raises:
            FlyError: DEADLINE, NOT_FOUND, STALE (that instance was replaced by another), or what else the API says.
        """
        loop = asyncio.get_running_loop()
        late = FlyError(Kind.DEADLINE, f"it did not become {state} in time", action="wait")
        params: dict[str, Any] = {"state": state}
        params |= {key: text for key, text in (("instance_id", instance_id), ("from_event_id", from_event_id)) if text}
        while True:
            left_s = deadline_s - loop.time()
            if left_s <= 0:
                raise late
            ask_s = math.ceil(max(WAIT_S_MIN, min(WAIT_S_MAX, slice_s, left_s)))
            path = f"{self._path}/{quote(machine_id)}/wait"
            request = Request(
                "wait_machine", machine_id, "GET", path, {**params, "timeout": ask_s}, is_repeatable=False
            )
            try:
                # The server's own end of the slice comes first, unless the server hangs.
                await self._connection.call(request, deadline_s + WAIT_S_MIN)
                return None
            except FlyError as error:
                if error.kind is Kind.DEADLINE:
                    raise late from None
                if error.kind not in {Kind.TIMEOUT, Kind.REPLACING, Kind.INTERRUPTED, Kind.SERVER}:
                    raise
                if instance_id and "currently replaced" in error.text:
                    raise FlyError(Kind.STALE, error.text, action="wait", request_id=error.request_id) from None
                if error.kind is not Kind.TIMEOUT:
                    await asyncio.sleep(min(1.0, max(0.0, deadline_s - loop.time())))
            if gone_states:
                machine = await self.get(machine_id)
                if machine.state in gone_states:
                    return machine

    # ---- leases ----
    async def get_lease(self, machine_id: str) -> Lease | None:
        """Who holds it; None when nobody does. Whether a reader is shown its nonce is Fly's choice."""
        try:
            return _lease(await self._call("get_lease", machine_id, "GET", "/lease"))
        except FlyError as error:
            if error.kind is Kind.NOT_FOUND:
                return None
            raise

    async def acquire_lease(self, machine_id: str, *, ttl_s: int, description: str = "") -> Lease:
        """Be the only one who changes it for `ttl_s`; while another is, ask again until the deadline.

        From then on its nonce goes with every change made through this connection.
        """
        body = {"ttl": ttl_s} | ({"description": description} if description else {})
        while True:
            try:
                answer = await self._call("acquire_lease", machine_id, "POST", "/lease", body=body, is_repeatable=False)
            except FlyError as error:
                if error.kind is not Kind.LEASED:
                    raise
                await self._pause(error)
            else:
                return self._hold(machine_id, _lease(answer))

    async def refresh_lease(self, machine_id: str, *, ttl_s: int) -> Lease:
        """Keep a held one for another `ttl_s`."""
        answer = await self._change("refresh_lease", machine_id, "POST", "/lease", body={"ttl": ttl_s})
        return self._hold(machine_id, _lease(answer))

    async def release_lease(self, machine_id: str) -> None:
        """Give a held one back; one that ran out is no error."""
        try:
            await self._change("release_lease", machine_id, "DELETE", "/lease")
        except FlyError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise
        finally:
            self._connection.nonces.pop(machine_id, None)

    # ---- metadata ----
    async def get_metadata(self, machine_id: str) -> dict[str, str]:
        return dict(await self._call("get_metadata", machine_id, "GET", "/metadata") or {})

    async def set_metadata(self, machine_id: str, key: str, value: str) -> None:
        """Set one key; no new version of the machine is made."""
        path = f"/metadata/{quote(key, safe='')}"
        await self._change("set_metadata", machine_id, "POST", path, body={"value": value})

    async def delete_metadata(self, machine_id: str, key: str) -> None:
        await self._change("delete_metadata", machine_id, "DELETE", f"/metadata/{quote(key, safe='')}")

    async def patch_metadata(self, machine_id: str, values: Mapping[str, str], *, machine_version: str = "") -> None:
        """Set several at once; with `machine_version` only while that is the current one, else STALE."""
        body: dict[str, Any] = {"metadata": dict(values)}
        if machine_version:
            body["machine_version"] = machine_version
        await self._change("patch_metadata", machine_id, "PATCH", "/metadata", body=body)

    # ---- sending ----
    def _hold(self, machine_id: str, lease: Lease) -> Lease:
        if not lease.nonce:
            raise FlyError(Kind.OTHER, "the answer is no lease that can be used: it has no nonce")
        self._connection.nonces[machine_id] = lease.nonce
        return lease

    async def _pause(self, error: FlyError) -> None:
        """Before asking again for what somebody else holds up; past the deadline the error is raised."""
        loop = asyncio.get_running_loop()
        if self._deadline_s is None or loop.time() + 1.0 >= self._deadline_s:
            raise error
        await asyncio.sleep(max(1.0, error.retry_after_s))

    async def _change(self, action: str, machine_id: str, method: str, below: str = "", **more: Any) -> Any:
        nonce = self._connection.nonces.get(machine_id)
        headers = {NONCE_HEADER: nonce} if nonce else {}
        return await self._call(action, machine_id, method, below, headers=headers, **more)

    async def _call(self, action: str, machine_id: str, method: str, below: str = "", **more: Any) -> Any:
        path = f"{self._path}/{quote(machine_id)}{below}"
        return await self._connection.call(Request(action, machine_id, method, path, **more), self._deadline_s)


def _machine(answer: Any) -> Machine:
    if not isinstance(answer, Mapping) or not isinstance(answer.get("id"), str):
        raise FlyError(Kind.INTERRUPTED, "the answer is no machine: it has no id")
    return Machine(answer)


def _lease(answer: Any) -> Lease:
    """`{"status": "success", "data": {...}}`, or the inner part alone."""
    data = answer.get("data", answer) if isinstance(answer, Mapping) else None
    if not isinstance(data, Mapping):
        raise FlyError(Kind.OTHER, f"the answer is no lease but a {type(data).__name__}")
    return Lease(data)
