"""Creating machines against hand-written answers: lost ones, taken names, full regions; nothing is left when it fails."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx
import msgpack
import pytest

from runner.errors import ProviderError
from runner.providers.base import BootConfig, MachineState
from runner.providers.fly.provider import FlyProvider
from tests.unit.providers.fly.scripted import (
    CLUSTER,
    ID,
    M1,
    MACHINES,
    OK,
    ONE,
    Answer,
    ScriptedFly,
    exit_event,
    machine,
    make_provider,
    make_spec,
    refused,
    run,
)

CREATE, LIST, WAIT, DELETE, GET = (
    f"POST {MACHINES}",
    f"GET {MACHINES}",
    f"GET {ONE}/wait",
    f"DELETE {ONE}",
    f"GET {ONE}",
)
EXISTS = refused(409, f"already_exists: unique machine name violation, machine ID {ID} already exists")


@pytest.fixture
def fly() -> ScriptedFly:
    """A Fly where everything works."""
    fly = ScriptedFly().on(CREATE, Answer(200, machine("created"))).on(WAIT, Answer(200, OK))
    return fly.on(GET, Answer(200, machine())).on(LIST, Answer(200, [])).on(DELETE, Answer(200, OK))


def with_provider(
    fly: ScriptedFly, folder: Path, work: Callable[[FlyProvider], Coroutine[Any, Any, None]], **options: Any
) -> float:
    async def main() -> None:
        provider = make_provider(fly, folder, **options)
        try:
            await work(provider)
        finally:
            await provider.close()

    return run(main)


def failure(fly: ScriptedFly, folder: Path, spec=None, **options: Any) -> ProviderError:
    found: list[ProviderError] = []

    async def work(provider: FlyProvider) -> None:
        with pytest.raises(ProviderError) as caught:
            await provider.create(spec or make_spec())
        found.append(caught.value)

    with_provider(fly, folder, work, **options)
    return found[0]


def test_what_is_asked_for(fly: ScriptedFly, tmp_path: Path) -> None:
    """1.4 config, 1.8 what FLAME and Livebook set."""

    async def work(provider: FlyProvider) -> None:
        made = await provider.create(make_spec())
        assert (made.name, made.provider_machine_id, made.state) == (M1, ID, MachineState.RUNNING)
        assert await provider.get(M1) == made

    with_provider(fly, tmp_path, work, regions="iad", env={"HF_HOME": "/cache"})
    body = fly.calls(CREATE)[0].body
    config = body.pop("config")
    assert body == {"name": f"runner-{CLUSTER}-m-1", "region": "iad"}
    boot = BootConfig.from_dict(msgpack.unpackb(base64.b64decode(config["env"].pop("RUNNER_BOOT"))))
    assert boot.join_token == make_spec().boot.join_token
    assert (boot.embedded, boot.host_id, boot.log_path) == (False, "", "")
    assert config == {
        "image": "registry.fly.io/fleet:1",
        "env": {"HF_HOME": "/cache"},
        "guest": {"cpu_kind": "performance", "cpus": 1, "memory_mb": 2048},
        "auto_destroy": True,
        "restart": {"policy": "no"},
        "stop_config": {"signal": "SIGTERM", "timeout": "10s"},
        "metadata": {
            "runner_cluster": CLUSTER,
            "runner_machine": "m-1",
            "runner_pool": "default",
            "runner_host": "host-1",
        },
    }


@pytest.mark.parametrize(
    "lost",
    [
        refused(408, "request timeout"),
        httpx.ReadTimeout("60 s"),
        httpx.RemoteProtocolError("Server disconnected"),
        refused(504, "gateway timeout"),
    ],
    ids=["408", "timeout", "EOF", "504"],
)
def test_a_lost_answer_is_looked_up_by_name_and_adopted(lost: Any, fly: ScriptedFly, tmp_path: Path) -> None:
    """0.4."""
    fly.on(CREATE, lost).on(LIST, Answer(200, [machine("starting")]))

    async def work(provider: FlyProvider) -> None:
        assert (await provider.create(make_spec())).provider_machine_id == ID

    with_provider(fly, tmp_path, work)
    assert len(fly.calls(CREATE)) == 1
    assert fly.calls(LIST)[0].query["metadata.runner_cluster"] == CLUSTER


def test_a_lost_answer_of_a_machine_that_was_not_made(fly: ScriptedFly, tmp_path: Path) -> None:
    """0.4: not found by its name, so it is asked for again; should it be there after all, its name tells."""
    fly.on(CREATE, refused(408, "timeout"), EXISTS).on(GET, Answer(200, machine("started")))

    async def work(provider: FlyProvider) -> None:
        assert (await provider.create(make_spec())).provider_machine_id == ID

    with_provider(fly, tmp_path, work)
    assert len(fly.calls(CREATE)) == 2


def test_a_taken_name_is_our_machine(fly: ScriptedFly, tmp_path: Path) -> None:
    """0.4: 409 already_exists, whose text carries the id."""
    fly.on(CREATE, EXISTS)

    async def work(provider: FlyProvider) -> None:
        assert (await provider.create(make_spec())).provider_machine_id == ID

    with_provider(fly, tmp_path, work)


def test_a_taken_name_that_is_somebody_elses(fly: ScriptedFly, tmp_path: Path) -> None:
    stranger = machine()
    stranger["config"] = {**stranger["config"], "metadata": {"runner_cluster": "c-another"}}
    fly.on(CREATE, EXISTS).on(GET, Answer(200, stranger))
    error = failure(fly, tmp_path)
    assert error.is_permanent
    assert "not this cluster's" in str(error)
    assert fly.calls(DELETE) == []


def test_a_taken_name_whose_machine_is_going_away_is_asked_for_again(fly: ScriptedFly, tmp_path: Path) -> None:
    """0.5: visible as destroyed for a while, then 404."""
    fly.on(CREATE, EXISTS, EXISTS, EXISTS, Answer(200, machine("created", machine_id="48e0000000000a")))
    fly.on(GET, Answer(200, machine("destroying")), Answer(200, machine("destroyed")), refused(404, "not found"))
    fly.on(f"GET {MACHINES}/48e0000000000a/wait", Answer(200, OK))

    async def work(provider: FlyProvider) -> None:
        assert (await provider.create(make_spec())).provider_machine_id == "48e0000000000a"

    with_provider(fly, tmp_path, work)


def test_404_for_a_while_after_create_is_nothing(fly: ScriptedFly, tmp_path: Path) -> None:
    """0.5: wait and get straight after create may 404."""
    missing = refused(404, "machine not found")
    fly.on(WAIT, missing, missing, missing, Answer(200, OK))

    async def work(provider: FlyProvider) -> None:
        assert (await provider.create(make_spec())).state is MachineState.RUNNING

    assert with_provider(fly, tmp_path, work) < 10


def test_a_machine_that_ended_before_anybody_looked(fly: ScriptedFly, tmp_path: Path) -> None:
    """1.5: an auto_destroy machine may already be 404 when you first wait."""
    missing = refused(404, "machine not found")
    gone = machine("destroyed", events=[exit_event(exit_code=0, oom_killed=True)])
    fly.on(WAIT, missing).on(GET, missing).on(LIST, Answer(200, [gone])).on(DELETE, missing)
    error = failure(fly, tmp_path)
    assert error.phase == "boot"
    assert "ran out of memory" in str(error.args[0])
    assert any("fly: exit stopped" in line for line in error.log_lines)
    assert fly.calls(LIST)[-1].query["include_deleted"] == "true"


def test_a_machine_that_cannot_launch_is_destroyed_and_says_why(fly: ScriptedFly, tmp_path: Path) -> None:
    """1.5: starting -> launch_failed -> failed."""
    failed = machine("failed", events=[{"id": "1", "type": "launch", "status": "failed", "timestamp": 1000}])
    fly.on(WAIT, refused(408, "currently failed", after_s=15), Answer(200, OK)).on(GET, Answer(200, failed))
    error = failure(fly, tmp_path)
    assert (error.phase, error.is_permanent) == ("boot", False)
    assert "launch failed" in str(error)
    assert len(fly.calls(DELETE)) == 1


def test_a_boot_has_one_deadline(fly: ScriptedFly, tmp_path: Path) -> None:
    fly.on(WAIT, refused(408, "currently created", after_s=15)).on(GET, Answer(200, machine("created")))
    fly.on(DELETE, refused(404, "gone"))

    async def work(provider: FlyProvider) -> None:
        with pytest.raises(ProviderError, match="did not become started in time") as caught:
            await provider.create(make_spec())
        assert caught.value.phase == "boot"

    assert 40 <= with_provider(fly, tmp_path, work, boot_deadline_s=40) <= 62
    assert len(fly.calls(DELETE)) == 1


FULL = [
    refused(412, "insufficient resources"),
    refused(409, "aborted: could not reserve resource for machine: insufficient memory available to fulfill request"),
    refused(422, "no placement", "insufficient_capacity"),
    refused(400, "no capacity"),
    refused(403, "over the allowed quota"),
]


@pytest.mark.parametrize("full", FULL, ids=lambda answer: str(answer.status))
def test_sizes_and_regions_in_turn_when_there_is_no_room(full: Answer, fly: ScriptedFly, tmp_path: Path) -> None:
    """1.3, the five faces; try another region."""
    fly.on(CREATE, full, full, full, Answer(200, machine("created", region="ord")))

    async def work(provider: FlyProvider) -> None:
        assert (await provider.create(make_spec())).region == "ord"

    with_provider(fly, tmp_path, work, regions=["iad", "ord"], sizes=["performance-2x", "performance-1x"])
    tried = [(call.body["config"]["guest"]["cpus"], call.body["region"]) for call in fly.calls(CREATE)]
    assert tried == [(2, "iad"), (2, "ord"), (1, "iad"), (1, "ord")]


def test_no_room_anywhere(fly: ScriptedFly, tmp_path: Path) -> None:
    fly.on(CREATE, FULL[0])
    error = failure(fly, tmp_path, regions=["iad", "ord"])
    assert (error.is_capacity, error.is_permanent, error.phase) == (True, False, "create")
    assert "insufficient resources" in str(error) and "iad, ord" not in error.machine_id
    assert "01REQ-iad" in str(error)
    assert len(fly.calls(CREATE)) == 2


def test_a_size_that_is_asked_for_comes_first(fly: ScriptedFly, tmp_path: Path) -> None:
    async def work(provider: FlyProvider) -> None:
        await provider.create(make_spec(size="shared-cpu-2x"))

    with_provider(fly, tmp_path, work)
    assert fly.calls(CREATE)[0].body["config"]["guest"] == {"cpu_kind": "shared", "cpus": 2, "memory_mb": 512}


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (refused(401, "unauthorized"), "wrong or expired"),
        (refused(403, "forbidden"), "token does not allow it for app 'fleet'"),
        (refused(404, "app not found"), "app 'fleet' does not exist"),
        (refused(404, "failed to get manifest registry.fly.io/fleet:1: not found"), "image 'registry.fly.io/fleet:1'"),
        (refused(422, "failed to get manifest registry.fly.io/fleet:1: unknown"), "image 'registry.fly.io/fleet:1'"),
        (refused(400, "region xyz not found"), "check regions=iad"),
        (refused(422, "invalid config.guest.memory_mb"), "check size 'performance-1x'"),
    ],
)
def test_what_can_never_work_is_permanent_and_names_the_thing(
    answer: Answer, words: str, fly: ScriptedFly, tmp_path: Path
) -> None:
    """1.3, codes; the list of bad input."""
    error = failure(fly.on(CREATE, answer), tmp_path, regions="iad")
    assert error.is_permanent and not error.is_capacity
    assert words in str(error)
    assert len(fly.calls(CREATE)) == 1
    assert fly.calls(DELETE) == fly.calls(LIST) == []


@pytest.mark.parametrize(
    ("spec", "options", "words"),
    [
        ({"GPU": 10_000}, {}, "local and container"),
        ({"size": "huge"}, {}, "no size 'huge'"),
        ({"cpus": 99}, {}, "99 CPUs"),
        ({"cpus": 4}, {"sizes": ["performance-1x"]}, "performance-1x"),
    ],
)
def test_what_no_machine_holds_is_refused_without_a_call(spec, options, words, fly, tmp_path: Path) -> None:
    error = failure(fly, tmp_path, make_spec(**spec), **options)
    assert error.is_permanent
    assert words in str(error)
    assert fly.seen == []


def test_a_provider_that_is_down_is_tried_until_the_deadline(fly: ScriptedFly, tmp_path: Path) -> None:
    """The list of bad input: provider down in the middle."""
    fly.on(CREATE, httpx.ConnectError("refused"))

    async def work(provider: FlyProvider) -> None:
        with pytest.raises(ProviderError) as caught:
            await provider.create(make_spec())
        assert not caught.value.is_permanent
        assert "refused" in str(caught.value)

    assert with_provider(fly, tmp_path, work, boot_deadline_s=60) <= 61
    assert len(fly.calls(CREATE)) > 5
    assert fly.calls(DELETE) == []


def test_a_refusal_that_repeats_the_environment_shows_no_value_of_it(fly: ScriptedFly, tmp_path: Path) -> None:
    fly.on(CREATE, refused(400, "invalid env HF_TOKEN=hf_abcdefghijkl"))
    error = failure(fly, tmp_path, env={"HF_TOKEN": "hf_abcdefghijkl", "DEBUG": "1"})
    assert "hf_abcdefghijkl" not in f"{error} {error.log_lines}"
    assert "400" in str(error)


def test_a_failure_says_each_thing_once(fly: ScriptedFly, tmp_path: Path) -> None:
    error = failure(fly.on(CREATE, refused(400, "failed to resolve the image")), tmp_path)
    assert "failed to resolve" in str(error.args[0])
    assert not [line for line in error.log_lines if "failed to resolve" in line]


def test_many_wait_for_their_turn_and_the_first_run_while_later_ones_boot(fly: ScriptedFly, tmp_path: Path) -> None:
    """0.2: 64 creates in one app take about 61 s at the documented limit."""
    done: list[float] = []

    def make(request: httpx.Request) -> Answer:
        name = json.loads(request.content)["name"].rpartition("-")[2]
        fly.on(f"GET {MACHINES}/id{name}/wait", Answer(200, OK))
        return Answer(200, machine("created", machine_id=f"id{name}", name=f"m-{name}"))

    fly.on(CREATE, make)

    async def work(provider: FlyProvider) -> None:
        loop = asyncio.get_running_loop()

        async def one(number: int) -> None:
            await provider.create(make_spec(type(M1)(f"m-{number}")))
            done.append(loop.time())

        await asyncio.gather(*(one(number) for number in range(64)))

    took_s = with_provider(fly, tmp_path, work, rates={})
    assert took_s == pytest.approx(61, abs=1)
    assert sorted(done)[2] - min(seen.at_s for seen in fly.seen) < 1
    assert len({call.body["name"] for call in fly.calls(CREATE)}) == len(fly.calls(CREATE)) == 64


def test_a_cache_volume_is_mounted_a_free_one_or_a_new_one(fly: ScriptedFly, tmp_path: Path) -> None:
    """1.2 volumes: one host each; create it first, then the machine with `mounts`."""
    rows = [
        {"id": "vol_used", "name": "models", "region": "iad", "state": "created", "attached_machine_id": "x"},
        {"id": "vol_other", "name": "other", "region": "iad", "state": "created", "attached_machine_id": None},
        {"id": "vol_full", "name": "models", "region": "iad", "state": "created", "attached_machine_id": None},
    ]
    new = {"id": "vol_new", "name": "models", "region": "iad", "state": "created", "attached_machine_id": None}
    fly.on("GET /apps/fleet/volumes", Answer(200, rows)).on("POST /apps/fleet/volumes", Answer(201, new))
    fly.on(CREATE, refused(422, "host is full", "insufficient_capacity"), Answer(200, machine("created")))

    async def work(provider: FlyProvider) -> None:
        await provider.create(make_spec())

    volume = {"name": "models", "path": "/cache", "size_gb": 10}
    with_provider(fly, tmp_path, work, regions=["iad"], volume=volume)
    mounts = [call.body["config"]["mounts"] for call in fly.calls(CREATE)]
    assert mounts == [[{"volume": "vol_full", "path": "/cache"}], [{"volume": "vol_new", "path": "/cache"}]]
    assert fly.calls("POST /apps/fleet/volumes")[0].body["compute"]["memory_mb"] == 2048
