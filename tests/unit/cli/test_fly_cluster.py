"""Booting a coordinator at Fly, against answers written by hand: what is sent, what is kept secret, what is left when it fails."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import msgpack
import pytest

from runner.cli import fly_cluster, fly_end
from runner.cli.fly_cluster import Booted, Wanted
from runner.cli.fly_end import COORDINATOR_TAG
from runner.coordinator.config import CoordinatorConfig
from runner.errors import BadOptionsError, ProviderError, UsageError
from runner.pools import Pool
from runner.providers.fly.options import parse_options
from runner.providers.fly.records import CLUSTER_TAG

ORG_TOKEN, DEPLOY_TOKEN = "fo1_org_token_of_the_user", "FlyV1 fm2_for_this_app_alone"
OPTIONS: dict[str, Any] = {
    "app": "my-app",
    "image": "registry.fly.io/my-app:worker",
    "token": ORG_TOKEN,
    "regions": ["iad", "ord"],
    "rates": False,
    "lag_s": 0.3,
}
CONFIG = CoordinatorConfig(
    home="/not/used",
    cluster_id="c0ffee",
    embedded=False,
    provider="fly",
    provider_options=OPTIONS,
    pools=(Pool(max=4),),
)
MACHINE = "148ed193b95948"
PRIVATE = "fdaa:0:18:a7b:7d:f066:b83b:2"
Answer = tuple[int, Any]


class Fly:
    """Answers each request by the last route that fits it, and keeps all of them."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, Any]] = []
        self.machines: dict[str, dict[str, Any]] = {}
        self.routes: list[tuple[str, str, Callable[[Any], Answer]]] = [
            ("GET", "/apps/my-app", lambda _: (200, {"name": "my-app", "organization": {"slug": "acme"}})),
            ("GET", "/ip_assignments", lambda _: (200, {"ips": [{"ip": "2a09:8280:1::5", "shared": False}]})),
            ("POST", "/ip_assignments", lambda _: (200, {"ip": "2a09:8280:1::77"})),
            ("POST", "/deploy_token", lambda _: (200, {"token": DEPLOY_TOKEN})),
            ("POST", "/apps/my-app/machines", self._create),
            ("GET", "/wait", lambda _: (200, {"ok": True})),
            ("POST", "/exec", lambda _: (200, {"exit_code": 0, "stdout": json.dumps({"ca_pem": "-----CA-----"})})),
        ]

    def on(self, method: str, end: str, *answers: Answer) -> None:
        """These answers, one after the other; the last one stays."""
        left = list(answers)
        self.routes.append((method, end, lambda _: left.pop(0) if len(left) > 1 else left[0]))

    def _create(self, body: Any) -> Answer:
        machine = {
            "id": MACHINE,
            "name": body["name"],
            "state": "created",
            "private_ip": PRIVATE,
            "config": body["config"],
        }
        self.machines[MACHINE] = machine
        return 200, machine

    def destroy_all(self) -> Answer:
        self.machines.clear()
        return 200, {"ok": True}

    def handle(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/v1")
        body = json.loads(request.content) if request.content else None
        self.requests.append((request.method, path, body))
        for method, end, answer in reversed(self.routes):
            if request.method == method and path.endswith(end):
                status, said = answer(body)
                return httpx.Response(status, json=said)
        if path.endswith("/machines"):
            wanted = {key.removeprefix("metadata."): value for key, value in request.url.params.items()}
            found = [each for each in self.machines.values() if wanted.items() <= each["config"]["metadata"].items()]
            return httpx.Response(200, json=found)
        machine_id = path.rpartition("/")[2]
        if request.method == "DELETE" and machine_id in self.machines:
            del self.machines[machine_id]
            return httpx.Response(200, json={"ok": True})
        if machine_id in self.machines:
            return httpx.Response(200, json=self.machines[machine_id])
        return httpx.Response(404, json={"error": "machine not found"})

    def sent(self, method: str, end: str) -> list[Any]:
        """The bodies of such requests."""
        return [body for each, path, body in self.requests if each == method and path.endswith(end)]

    def boot(self, config: CoordinatorConfig = CONFIG, said: list[str] | None = None, **wanted: Any) -> Booted:
        say = ([] if said is None else said).append
        work = fly_cluster.boot(
            config, Wanted(**wanted), "/home/of/it", say, transport=httpx.MockTransport(self.handle)
        )
        return asyncio.run(work)


@pytest.fixture
def fly(monkeypatch: pytest.MonkeyPatch) -> Fly:
    monkeypatch.setattr(fly_cluster, "_POLL_S", 0.01)
    monkeypatch.setattr(fly_end, "_POLL_S", 0.01)
    for name in ("FLY_API_TOKEN", "FLY_FLAPS_BASE_URL", "RUNNER_INSIDE"):
        monkeypatch.delenv(name, raising=False)
    return Fly()


def settings_in(fly: Fly) -> dict[str, Any]:
    """The settings in the environment of the machine that was created."""
    env = fly.sent("POST", "/machines")[0]["config"]["env"]
    packed = msgpack.unpackb(base64.b64decode(env["RUNNER_COORDINATOR"]))
    assert isinstance(packed, dict)
    return packed


def test_the_machine_is_small_frees_itself_and_is_tagged_as_the_coordinators(fly: Fly) -> None:
    booted = fly.boot()

    request = fly.sent("POST", "/machines")[0]
    config = request["config"]
    assert request["name"] == "runner-c0ffee-coordinator"
    assert request["region"] == "iad,ord"
    assert config["guest"] == {"cpu_kind": "shared", "cpus": 2, "memory_mb": 1024}
    assert (config["auto_destroy"], config["restart"]) == (True, {"policy": "no"})
    assert config["init"] == {"exec": ["python", "-m", "runner.coordinator"]}
    assert config["metadata"] == {COORDINATOR_TAG: "c0ffee"}
    assert CLUSTER_TAG not in config["metadata"]  # else its own sweeper would end it
    assert (booted.cluster_id, booted.machine_id, booted.ca_pem) == ("c0ffee", MACHINE, b"-----CA-----")


def test_no_secret_is_in_what_fly_stores(fly: Fly) -> None:
    booted = fly.boot()

    stored = json.dumps(fly.sent("POST", "/machines"))
    decoded = repr(settings_in(fly))
    for secret in (ORG_TOKEN, DEPLOY_TOKEN, booted.token):
        assert secret not in stored
        assert secret not in decoded
    assert booted.token not in repr(booted)


def test_the_secrets_go_in_by_exec_with_a_token_for_this_app_alone(fly: Fly) -> None:
    booted = fly.boot()

    handed = fly.sent("POST", "/exec")[0]
    assert handed["command"] == ["/bin/sh", "/home/of/it/hand-over.sh"]
    assert json.loads(handed["stdin"]) == {"token": booted.token, "provider_options": {"token": DEPLOY_TOKEN}}


def test_the_settings_are_those_of_a_coordinator_that_ends_alone(fly: Fly) -> None:
    booted = fly.boot()

    found = settings_in(fly)
    port = int(booted.address.rpartition(":")[2])
    assert (found["ends_alone"], found["embedded"], found["home"]) == (True, False, "/home/of/it")
    assert (found["host"], found["advertise"], found["port"]) == ("::", "", port)
    assert found["provider_options"]["image"] == OPTIONS["image"]
    assert found["pools"] == [CONFIG.pools[0].to_dict()]


def test_tls_ends_in_the_coordinator(fly: Fly) -> None:
    booted = fly.boot()

    port = int(booted.address.rpartition(":")[2])
    (service,) = fly.sent("POST", "/machines")[0]["config"]["services"]
    assert booted.address == f"[2a09:8280:1::5]:{port}"
    assert service["ports"] == [{"port": port}]  # no handlers: bytes pass as they are
    assert (service["internal_port"], service["autostop"]) == (port, "off")


def test_an_app_with_a_shared_address_only_gets_one_of_its_own(fly: Fly) -> None:
    shared = [{"ip": "66.241.124.9", "shared": True}, {"ip": "fdaa:0:1::3", "shared": False}]
    fly.on("GET", "/ip_assignments", (200, {"ips": shared}))

    booted = fly.boot()

    assert fly.sent("POST", "/ip_assignments") == [{"type": "v6"}]
    assert booted.address.startswith("[2a09:8280:1::77]:")


@pytest.mark.parametrize(("reach", "host"), [("private", f"[{PRIVATE}]"), ("proxy", "127.0.0.1")])
def test_other_ways_publish_nothing(fly: Fly, reach: str, host: str) -> None:
    booted = fly.boot(reach=reach)

    assert booted.address.rpartition(":")[0] == host
    assert "services" not in fly.sent("POST", "/machines")[0]["config"]
    assert fly.sent("GET", "/ip_assignments") == []


def test_without_a_deploy_token_it_gets_the_callers_and_says_so(fly: Fly) -> None:
    fly.on("POST", "/deploy_token", (403, {"error": "not allowed"}))
    said: list[str] = []

    fly.boot(said=said)

    handed = json.loads(fly.sent("POST", "/exec")[0]["stdin"])
    assert handed["provider_options"] == {"token": f"Bearer {ORG_TOKEN}"}
    assert any("token of this shell" in line for line in said)
    assert not any(ORG_TOKEN in line for line in said)


def test_the_hand_over_is_repeated_until_its_process_is_up(fly: Fly) -> None:
    done = (200, {"exit_code": 0, "stdout": json.dumps({"ca_pem": "-----CA-----"})})
    fly.on(
        "POST",
        "/exec",
        (412, {"error": "machine is not started"}),
        (200, {"exit_code": 127, "stderr": "/bin/sh: cannot open hand-over.sh"}),
        (408, {"error": "timed out"}),
        done,
    )

    booted = fly.boot()

    handed = fly.sent("POST", "/exec")
    assert len(handed) == 4
    assert {each["stdin"] for each in handed} == {handed[0]["stdin"]}  # the same secrets each time
    assert booted.machine_id == MACHINE


def test_a_lost_answer_to_create_is_looked_up(fly: Fly) -> None:
    def lost(body: Any) -> Answer:
        fly._create(body)
        return 408, {"error": "request timed out"}

    fly.routes.append(("POST", "/apps/my-app/machines", lost))

    assert fly.boot().machine_id == MACHINE
    assert len(fly.sent("POST", "/machines")) == 1


@pytest.mark.parametrize(
    ("exec_answer", "state", "words"),
    [
        (
            (200, {"exit_code": 1, "stderr": "cluster c0ffee could not start: port 1 is taken"}),
            "started",
            "port 1 is taken",
        ),
        ((200, {"exit_code": 127}), "destroying", "destroying"),
        ((401, {"error": "token expired"}), "started", "token is wrong or expired"),
    ],
    ids=["start failed", "process gone", "token"],
)
def test_a_boot_that_fails_leaves_no_machine(fly: Fly, exec_answer: Answer, state: str, words: str) -> None:
    fly.on("POST", "/exec", exec_answer)
    create = fly._create

    def created(body: Any) -> Answer:
        status, machine = create(body)
        machine["state"] = state
        return status, machine

    fly.routes.append(("POST", "/apps/my-app/machines", created))

    with pytest.raises(ProviderError, match=words) as caught:
        fly.boot()

    assert fly.machines == {}
    assert DEPLOY_TOKEN not in str(caught.value)


def test_a_machine_that_is_not_visible_yet_is_looked_for_again(fly: Fly) -> None:
    fly.on("POST", "/exec", (403, {"error": "no"}))
    left = [3]

    def later(body: Any) -> Answer:
        left[0] -= 1
        return (404, {"error": "machine not found"}) if left[0] else fly.destroy_all()

    fly.routes.append(("DELETE", MACHINE, later))

    with pytest.raises(ProviderError):
        fly.boot()

    assert fly.machines == {}
    assert len(fly.sent("DELETE", MACHINE)) == 3


def test_a_refused_create_leaves_nothing_to_look_for(fly: Fly) -> None:
    fly.on("POST", "/apps/my-app/machines", (422, {"error": "image is not valid"}))

    with pytest.raises(ProviderError, match="image is not valid"):
        fly.boot()

    assert fly.sent("GET", "/machines") == []
    assert fly.sent("DELETE", MACHINE) == []


def test_what_the_coordinator_would_refuse_boots_no_machine_for_it(fly: Fly) -> None:
    with pytest.raises(ProviderError, match="providers that have GPUs are local and container"):
        fly.boot(replace(CONFIG, pools=(Pool(max=4, num_gpus=1),)))
    fly.on("GET", "/platform/regions", (200, {"regions": [{"code": "iad"}, {"code": "ord"}]}))
    with pytest.raises(ProviderError, match="Fly has no region xyz; known are: iad, ord"):
        fly.boot(replace(CONFIG, provider_options={**OPTIONS, "regions": ["xyz"]}))
    assert fly.sent("POST", "/machines") == []


def test_a_refused_create_says_what_to_do(fly: Fly) -> None:
    fly.on("POST", "/apps/my-app/machines", (400, {"error": "failed to resolve image: manifest unknown"}))
    with pytest.raises(ProviderError, match="Fly: 400: failed to resolve image.*; check that image .* exists"):
        fly.boot()


def test_an_error_that_repeats_the_request_shows_no_secret(fly: Fly) -> None:
    def echo(body: Any) -> Answer:
        return 403, {"error": f"denied: {json.dumps(body)}"}

    fly.routes.append(("POST", "/exec", echo))

    with pytest.raises(ProviderError) as caught:
        fly.boot()

    token = json.loads(fly.sent("POST", "/exec")[0]["stdin"])["token"]
    assert token not in str(caught.value)
    assert "fm2_for_this_app_alone" not in str(caught.value)


def test_inside_a_machine_nothing_is_booted(fly: Fly, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNNER_INSIDE", "m-1")

    with pytest.raises(UsageError, match="boot no machines"):
        fly.boot()
    assert fly.requests == []


@pytest.mark.parametrize("given", [{"reach": "telepathy"}, {"size": "a100-40gb"}])
def test_a_machine_that_cannot_be_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(BadOptionsError):
        Wanted(**given)


def test_ends_what_is_left_coordinator_first(fly: Fly) -> None:
    tags = {"w1": CLUSTER_TAG, "w2": CLUSTER_TAG, "co": COORDINATOR_TAG}
    for name, tag in tags.items():
        fly.machines[name] = {"id": name, "state": "started", "config": {"metadata": {tag: "c0ffee"}}}
    fly.machines["other"] = {"id": "other", "state": "started", "config": {"metadata": {CLUSTER_TAG: "another"}}}

    work = fly_end.end(parse_options(OPTIONS), "c0ffee", patience_s=0.0, transport=httpx.MockTransport(fly.handle))
    left = asyncio.run(work)

    assert left.destroyed == ("co", "w1", "w2")
    assert list(fly.machines) == ["other"]


def test_a_worker_that_was_just_being_created_is_ended_too(fly: Fly) -> None:
    fly.machines["co"] = {"id": "co", "state": "started", "config": {"metadata": {COORDINATOR_TAG: "c0ffee"}}}

    def appear(body: Any) -> Answer:
        del fly.machines["co"]
        fly.machines["late"] = {"id": "late", "state": "created", "config": {"metadata": {CLUSTER_TAG: "c0ffee"}}}
        return 200, {"ok": True}

    fly.routes.append(("DELETE", "/co", appear))
    work = fly_end.end(parse_options(OPTIONS), "c0ffee", patience_s=0.0, transport=httpx.MockTransport(fly.handle))

    assert asyncio.run(work).destroyed == ("co", "late")
    assert fly.machines == {}


def test_what_cannot_be_ended_is_named(fly: Fly, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fly_end, "GONE_S", 0.05)
    fly.machines["w1"] = {"id": "w1", "state": "stopping", "config": {"metadata": {CLUSTER_TAG: "c0ffee"}}}
    fly.on("DELETE", "/w1", (200, {"ok": True}))

    work = fly_end.end(parse_options(OPTIONS), "c0ffee", patience_s=0.0, transport=httpx.MockTransport(fly.handle))
    with pytest.raises(ProviderError, match=r"w1 \(stopping\)"):
        asyncio.run(work)
