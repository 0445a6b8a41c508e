"""A cluster whose coordinator is a machine at Fly: booting it, and handing it its secrets. `fly_end` ends it."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

import httpx

from runner.cli.fly_end import COORDINATOR_TAG, GONE_S, failed, machines_of, open_api
from runner.cli.up_fly import REACHES
from runner.config import COORDINATOR, LOG_LEVEL, refuse_inside
from runner.coordinator.booted import HAND_OVER_S, encode_config
from runner.coordinator.config import LOOPBACK, STOP_REMOTE_S_MAX, CoordinatorConfig
from runner.coordinator.handover import Secrets, script_command
from runner.coordinator.pool_records import wanted_of
from runner.errors import BadOptionsError, ProviderError
from runner.providers.fly.api import FlyApi
from runner.providers.fly.connection import Request
from runner.providers.fly.errors import AMBIGUOUS, FlyError, Kind
from runner.providers.fly.failures import explain
from runner.providers.fly.guest import SIZES
from runner.providers.fly.model import Config, Machine
from runner.providers.fly.options import FlyOptions, parse_options
from runner.providers.fly.prepare import check_app, check_regions, guests_of
from runner.providers.fly.records import DEAD_STATES, GONE_STATES, describe_end
from runner.rpc.security import new_token

_PORTS_FROM, _PORTS = 20_000, 10_000  # two for each cluster, so that several can share an app's address
_BOOT_S = 180.0
_DEPLOY_TOKEN_HOURS = 24 * 30
_POLL_S = 1.0
_PRIVATE_PREFIX = "fdaa:"

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """The coordinator's machine, and how it is to be reached."""

    reach: str = "public"
    size: str = "shared-cpu-2x"
    memory_mb: int = 1024
    client_lost_after_s: float = 120.0  # long enough to type a line of Python after `runner up`
    region: str = ""  # empty: the first of the fleet's

    def __post_init__(self) -> None:
        if self.reach not in REACHES:
            raise BadOptionsError(f"reach is {self.reach!r}; expected one of {', '.join(REACHES)}")
        if self.size not in SIZES:
            raise BadOptionsError(f"coordinator size {self.size!r} is unknown to Fly; known are: {', '.join(SIZES)}")


@dataclass(frozen=True, slots=True)
class Booted:
    """A coordinator that serves, and all that is needed to reach it and to end it."""

    cluster_id: str
    address: str
    ca_pem: bytes
    token: str = field(repr=False)
    app: str
    machine_id: str
    base_url: str
    reach: str


async def boot(
    config: CoordinatorConfig,
    wanted: Wanted,
    home: str,
    say: Say,
    *,
    transport: httpx.AsyncBaseTransport | None = None,
) -> Booted:
    """Boot the coordinator and wait until it serves. `config` as for one on this host, with a cluster_id; `home`: its state there.

    `transport`: how requests travel, by default over the network.

    An exception, Ctrl-C included, leaves no machine. A death of this process leaves one that ends itself after
    `client_lost_after_s`.

    Raises:
        ProviderError: Fly refused, or the machine did not come up.
        BadOptionsError: a value cannot work.
    """
    refuse_inside()
    options = parse_options(config.provider_options)
    api = open_api(options, transport)
    try:
        deadline_s = asyncio.get_running_loop().time() + _BOOT_S
        launch = _Launch(api.until(deadline_s), options, config, wanted, home, deadline_s, say)
        return await launch.run()
    finally:
        await api.connection.close()


class _Launch:
    """One boot; `machine_id` is set as soon as there may be a machine."""

    def __init__(
        self,
        api: FlyApi,
        options: FlyOptions,
        config: CoordinatorConfig,
        wanted: Wanted,
        home: str,
        deadline_s: float,
        say: Say,
    ) -> None:
        self._api = api
        self._options = options
        self._config = config
        self._wanted = wanted
        self._home = home
        self._deadline_s = deadline_s
        self._say = say
        self._port = _PORTS_FROM + 2 * (zlib.crc32(config.cluster_id.encode()) % (_PORTS // 2))
        self._name = f"runner-{config.cluster_id}-coordinator"
        self._landed: dict[str, Machine] = {}
        self._is_asked = False  # a machine may have come to be, whether or not anybody has heard of it

    async def run(self) -> Booted:
        try:
            await self._check()
            host = await self._public_host()
            machine = await self._create()
            self._say(f"machine {machine.id} is the coordinator's; waiting until it runs")
            await self._await_start(machine)
            secrets = Secrets(new_token(), {"token": await self._provider_token()})
            told = await self._hand_over(machine, secrets)
        except BaseException as error:
            await self._clear_away()
            if isinstance(error, FlyError):
                raise self._explain(error) from None
            raise
        return Booted(
            cluster_id=self._config.cluster_id,
            address=self._address(machine, host),
            ca_pem=told["ca_pem"].encode("ascii"),
            token=secrets.token,
            app=self._options.app,
            machine_id=machine.id,
            base_url=self._options.base_url,
            reach=self._wanted.reach,
        )

    async def _check(self) -> None:
        """The coordinator refuses what can never work, too; but then its machine has been booted for nothing."""
        for pool in self._config.pools:
            guests_of(wanted_of(pool), self._options)
        await check_app(self._api, self._options)
        for warning in await check_regions(self._api, self._options):
            self._say(warning)

    def _explain(self, error: FlyError) -> ProviderError:
        options, wanted = self._options, self._wanted
        regions = wanted.region or ", ".join(options.regions)
        return explain(
            "boot", self._name, error, app=options.app, image=options.image, regions=regions, size=wanted.size
        )

    # ---- how it is reached ----
    async def _public_host(self) -> str:
        """An address of the app that is its own: bytes sent to a shared one are not passed on as they are."""
        if self._wanted.reach != "public" or not self._options.is_real:
            return ""
        path = f"/apps/{quote(self._options.app)}/ip_assignments"
        answer = await self._call("list_ips", "GET", path)
        for each in (answer or {}).get("ips") or ():
            if not each.get("shared") and not str(each.get("ip", "")).startswith(_PRIVATE_PREFIX):
                return str(each["ip"])
        self._say(f"app {self._options.app} has no address of its own; assigning it an IPv6 one (free of charge)")
        assigned = await self._call("assign_ip", "POST", path, body={"type": "v6"})
        return str(assigned["ip"])

    def _address(self, machine: Machine, public_host: str) -> str:
        if not self._options.is_real or self._wanted.reach == "proxy":
            return f"{LOOPBACK}:{self._port}"
        host = public_host or machine.private_ip
        return f"[{host}]:{self._port}" if ":" in host else f"{host}:{self._port}"

    # ---- the machine ----
    def machine_config(self) -> Config:
        """What Fly is to boot. Everybody who may list machines can read it: it holds no secret."""
        kind, cpus = SIZES[self._wanted.size]
        raw: dict[str, Any] = {
            "image": self._options.image,
            "env": {COORDINATOR: encode_config(self._settings()), LOG_LEVEL: "info"},
            "init": {"exec": ["python", "-m", "runner.coordinator"]},
            "guest": {"cpu_kind": kind, "cpus": cpus, "memory_mb": self._wanted.memory_mb},
            # The end of its process is the end of the machine, and that of its process is its own business.
            "auto_destroy": True,
            "restart": {"policy": "no"},
            "stop_config": {"signal": "SIGTERM", "timeout": f"{STOP_REMOTE_S_MAX}s"},
            "metadata": {COORDINATOR_TAG: self._config.cluster_id},
        }
        if self._wanted.reach == "public":
            raw["services"] = [_service(self._port)]
        return Config(raw)

    def _settings(self) -> CoordinatorConfig:
        """The coordinator's, as they are true on that machine, without secrets."""
        options = {key: value for key, value in self._config.provider_options.items() if key != "token"}
        # On Fly it advertises the private address that Fly tells it; in a simulator all is on this host.
        host, advertise = ("::", "") if self._options.is_real else (LOOPBACK, LOOPBACK)
        return replace(
            self._config,
            home=self._home,
            token="",
            provider_options={**options, "base_url": self._options.base_url},
            embedded=False,
            ends_alone=True,
            client_lost_after_s=self._wanted.client_lost_after_s,
            host=host,
            advertise=advertise,
            port=self._port,
            fleet_port=self._port + 1,
        )

    async def _create(self) -> Machine:
        """The name is the idempotency key: a lost answer is looked up."""
        region = self._wanted.region or ",".join(self._options.regions)
        config = self.machine_config()
        while True:
            self._is_asked = True
            try:
                machine = await self._api.machines.create(config, name=self._name, region=region, landed=self._note)
            except FlyError as error:
                if error.kind not in {*AMBIGUOUS, Kind.ALREADY_EXISTS}:
                    self._is_asked = False
                    raise
                if error.kind is Kind.DEADLINE:
                    raise
                found = await self._find()
                if found is None:
                    await asyncio.sleep(_POLL_S)  # not made, or not visible yet
                    continue
                machine = found
            self._note(machine)
            return machine

    async def _find(self) -> Machine | None:
        found = await self._api.machines.list({COORDINATOR_TAG: self._config.cluster_id})
        return next((each for each in found if each.state not in GONE_STATES), None)

    def _note(self, machine: Machine) -> None:
        self._landed[machine.id] = machine

    async def _await_start(self, machine: Machine) -> None:
        loop = asyncio.get_running_loop()
        visible_by_s = loop.time() + self._options.lag_s
        while True:
            try:
                ended = await self._api.machines.wait(
                    machine.id, "started", deadline_s=self._deadline_s, gone_states=DEAD_STATES
                )
            except FlyError as error:
                if error.kind is not Kind.NOT_FOUND or loop.time() > visible_by_s:
                    raise
                await asyncio.sleep(0.5)
                continue
            if ended is not None:
                raise failed("boot", self._name, describe_end(ended), "look at the app's log at Fly")
            return

    # ---- the secrets ----
    async def _provider_token(self) -> str:
        """A token for this app alone, where Fly makes one: the coordinator needs no more than that."""
        own = self._options.token
        if own is None:
            return ""
        path = f"/apps/{quote(self._options.app)}/deploy_token"
        try:
            # One token too many, of a lost answer, is for nobody; the caller's own would be for all of its apps.
            expiry = {"expiry": f"{_DEPLOY_TOKEN_HOURS}h"}
            answer = await self._call("create_deploy_token", "POST", path, expiry, is_repeatable=True)
            return str(answer["token"])
        except (FlyError, KeyError, TypeError) as error:
            self._say(f"the coordinator gets the token of this shell: Fly made none for the app alone ({error})")
            return own.header()

    async def _hand_over(self, machine: Machine, secrets: Secrets) -> Mapping[str, str]:
        """By a command inside the machine, until it has worked: at first its process is not up yet."""
        stdin = secrets.to_json()
        body = {"command": script_command(self._home), "timeout": int(HAND_OVER_S) + 10, "stdin": stdin}
        hidden = (stdin, json.dumps(stdin)[1:-1], secrets.token, *map(str, secrets.provider_options.values()))
        path = f"/apps/{quote(self._options.app)}/machines/{quote(machine.id)}/exec"
        request = Request("exec_machine", machine.id, "POST", path, body=body, is_repeatable=False, secrets=hidden)
        seen = "nothing"
        while asyncio.get_running_loop().time() < self._deadline_s:
            try:
                answer = await self._api.connection.call(request, self._deadline_s)
            except FlyError as error:
                if error.kind not in {*AMBIGUOUS, Kind.NOT_FOUND, Kind.WRONG_STATE, Kind.INVALID}:
                    raise
                seen = str(error)
            else:
                if answer.get("exit_code") == 0:
                    return dict(json.loads(answer.get("stdout") or "{}"))
                seen = str(answer.get("stderr") or "").strip() or f"exit code {answer.get('exit_code')}"
                if answer.get("exit_code") == 1:  # the script ran, and says why
                    raise failed("hand-over", self._name, seen, "look at the app's log at Fly")
            await self._still_runs(machine)
            await asyncio.sleep(_POLL_S)
        raise failed("hand-over", self._name, f"it took no secrets in time; last seen: {seen}", "try again")

    async def _still_runs(self, machine: Machine) -> None:
        try:
            now = await self._api.machines.get(machine.id)
        except FlyError as error:
            if error.kind is Kind.NOT_FOUND:
                raise failed("boot", self._name, describe_end(None), "look at the app's log at Fly") from None
            return
        if now.state in DEAD_STATES:
            raise failed("boot", self._name, describe_end(now), "look at the app's log at Fly")

    async def _clear_away(self) -> None:
        """Nothing of a boot that failed stays. What was just created may be invisible for a while: then it is looked for again."""
        if not self._is_asked:
            return
        loop = asyncio.get_running_loop()
        api = self._api.until(loop.time() + GONE_S)
        visible_by_s = loop.time() + self._options.lag_s
        try:
            while True:
                for machine in await machines_of(api, (COORDINATOR_TAG,), self._config.cluster_id):
                    self._note(machine)
                # One name, one machine: when one was destroyed there is no other.
                for machine_id in self._landed:
                    if await api.machines.destroy(machine_id, force=True):
                        return
                if loop.time() > visible_by_s:
                    return
                await asyncio.sleep(_POLL_S)
        except FlyError as error:
            left = ", ".join(self._landed) or f"with {COORDINATOR_TAG}={self._config.cluster_id} in its metadata"
            self._say(f"a machine may be left in app {self._options.app} ({left}): {error}")

    async def _call(self, action: str, method: str, path: str, body: Any = None, *, is_repeatable: bool = False) -> Any:
        is_repeatable = is_repeatable or method == "GET"
        request = Request(action, self._options.app, method, path, body=body, is_repeatable=is_repeatable)
        return await self._api.connection.call(request, self._deadline_s)


def _service(port: int) -> dict[str, Any]:
    """Bytes pass as they are (no handlers): TLS ends in the coordinator, with the cluster's own certificates."""
    return {
        "protocol": "tcp",
        "internal_port": port,
        "ports": [{"port": port}],
        "autostart": False,
        "autostop": "off",
        "concurrency": {"type": "connections", "soft_limit": 1000, "hard_limit": 2000},
    }
