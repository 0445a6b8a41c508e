"""Calls of the API against hand-written answers; each test names the row of facts that its answers were written from."""

from __future__ import annotations

import asyncio
import email.utils
import time
from collections.abc import Callable, Coroutine
from typing import Any

import httpx
import pytest

from runner.providers.fly.connection import Limiter, Token
from runner.providers.fly.errors import FlyError, Kind
from runner.providers.fly.limits import Rate
from runner.providers.fly.model import Config, ExecResult
from tests.unit.providers.fly.scripted import (
    ID,
    MACHINES,
    OK,
    ONE,
    Answer,
    ScriptedFly,
    api_of,
    exit_event,
    machine,
    refused,
    run,
)


def failure(call: Callable[[], Coroutine[Any, Any, Any]]) -> FlyError:
    async def main() -> None:
        with pytest.raises(FlyError) as caught:
            await call()
        found.append(caught.value)

    found: list[FlyError] = []
    run(main)
    return found[0]


# ---- 1.1 connecting ----
@pytest.mark.parametrize(
    ("text", "header"),
    [
        ("fo1_abc", "Bearer fo1_abc"),
        ("fm2_abc,fm2_def", "FlyV1 fm2_abc,fm2_def"),
        ("FlyV1 fm2_abc", "FlyV1 fm2_abc"),
        ("Bearer fo1_abc\n", "Bearer fo1_abc"),
    ],
)
def test_the_scheme_of_a_token(text: str, header: str) -> None:
    """1.1: Authorization is Bearer; macaroons carry the scheme FlyV1."""
    fly = ScriptedFly().on("GET /apps/fleet", Answer(200, {"id": "a", "name": "fleet"}))
    run(lambda: api_of(fly, token=Token(text)).get_app())
    assert fly.seen[0].headers["authorization"] == header


# ---- 1.3 what is sent again ----
@pytest.mark.parametrize(
    "face",
    [
        refused(500, "internal"),
        Answer(502, "<html>bad gateway</html>", is_strange=True),
        httpx.ConnectError("refused"),
        httpx.ReadError("reset"),
        httpx.RemoteProtocolError("Server disconnected without sending a response."),
        httpx.ConnectTimeout("dns"),
        Answer(200, "not json", is_strange=True),
    ],
    ids=str,
)
def test_a_read_is_sent_again(face: Any) -> None:
    """1.3, retryable: 5xx, reset, refused, DNS, EOF."""
    fly = ScriptedFly().on(f"GET {ONE}", face, face, Answer(200, machine()))

    async def main() -> None:
        assert (await api_of(fly).machines.get(ID)).id == ID

    took_s = run(main)
    assert len(fly.seen) == 3
    assert 0.3 < took_s < 5


@pytest.mark.parametrize(
    ("face", "kind"),
    [
        (refused(408, "request timeout"), Kind.TIMEOUT),
        (refused(504, "gateway timeout"), Kind.SERVER),
        (httpx.ReadTimeout("60 s"), Kind.INTERRUPTED),
        (httpx.RemoteProtocolError("EOF"), Kind.INTERRUPTED),
        (Answer(200, {"state": "created"}, is_strange=True), Kind.INTERRUPTED),
    ],
)
def test_a_create_whose_fate_is_unknown_is_not_sent_again(face: Any, kind: Kind) -> None:
    """0.4: a 408 or timeout on create is ambiguous."""
    fly = ScriptedFly().on(f"POST {MACHINES}", face)
    error = failure(lambda: api_of(fly).machines.create(Config({"image": "i"}), name="n"))
    assert error.kind is kind
    assert len(fly.seen) == 1


@pytest.mark.parametrize("face", [refused(429, "rate limit"), httpx.ConnectError("refused")])
def test_a_create_that_was_not_done_is_sent_again(face: Any) -> None:
    """1.3: 429 and a refused connection did nothing."""
    fly = ScriptedFly().on(f"POST {MACHINES}", face, Answer(200, machine("created")))
    run(lambda: api_of(fly).machines.create(Config({"image": "i"}), name="n"))
    assert len(fly.seen) == 2


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_honoured(form: str) -> None:
    """9: whether 429 carries Retry-After is not settled; both forms are understood."""
    text = "7" if form == "seconds" else email.utils.formatdate(time.time() + 8, usegmt=True)
    fly = ScriptedFly().on(
        f"GET {ONE}", refused(429, "slow down", headers={"retry-after": text}), Answer(200, machine())
    )
    took_s = run(lambda: api_of(fly).machines.get(ID))
    assert 6.5 <= took_s <= 11


def test_never_again_after_the_callers_own_deadline() -> None:
    """1.3: never retry when the caller's own deadline passed."""
    fly = ScriptedFly().on(f"GET {ONE}", refused(503, "unavailable"))

    async def main() -> None:
        deadline_s = asyncio.get_running_loop().time() + 5
        with pytest.raises(FlyError) as caught:
            await api_of(fly).until(deadline_s).machines.get(ID)
        assert caught.value.kind in {Kind.DEADLINE, Kind.SERVER}
        assert "unavailable" in str(caught.value)

    assert run(main) <= 5.01
    assert all(seen.at_s <= fly.seen[0].at_s + 5 for seen in fly.seen)


def test_an_answer_that_does_not_come_ends_with_the_deadline() -> None:
    fly = ScriptedFly().on(f"GET {ONE}", Answer(200, machine(), after_s=500))

    async def main() -> None:
        with pytest.raises(FlyError) as caught:
            await api_of(fly).until(asyncio.get_running_loop().time() + 3).machines.get(ID)
        assert caught.value.kind is Kind.DEADLINE

    assert run(main) == pytest.approx(3, abs=0.1)


def test_the_request_id_is_in_the_error() -> None:
    """1.1: response id header."""
    fly = ScriptedFly().on(f"GET {ONE}", refused(404, "machine not found"))
    error = failure(lambda: api_of(fly).machines.get(ID))
    assert (error.kind, error.status, error.request_id) == (Kind.NOT_FOUND, 404, "01REQ-iad")
    assert "fly-request-id 01REQ-iad" in str(error)


# ---- 1.3 limits ----
def test_all_callers_share_one_bucket() -> None:
    """0.2: one request a second and burst 3 for each action of an app."""
    fly = ScriptedFly().on(f"POST {MACHINES}", Answer(200, machine("created")))

    async def main() -> None:
        limiter = Limiter({})
        callers = [api_of(fly, limiter=limiter) for _ in range(4)]
        creates = [each.machines.create(Config({"image": "i"})) for each in callers for _ in range(3)]
        await asyncio.gather(*creates)

    assert run(main) == pytest.approx(9.2, abs=0.1)
    begun_s = fly.seen[0].at_s
    assert [round(seen.at_s - begun_s) for seen in fly.seen] == [0, 0, 0, *range(1, 10)]


def test_a_refusal_slows_all_callers_down_instead_of_being_hammered() -> None:
    """1.3: 429 occurs."""
    fly = ScriptedFly().on(f"POST {MACHINES}", refused(429, "limit"), Answer(200, machine("created")))

    async def main() -> None:
        api = api_of(fly, limiter=Limiter({"create_machine": Rate(10.0, 1)}))
        await asyncio.gather(*(api.machines.create(Config({"image": "i"})) for _ in range(5)))

    run(main)
    gaps = [after.at_s - before.at_s for before, after in zip(fly.seen, fly.seen[1:])]
    assert len(fly.seen) == 6
    assert gaps[0] >= 0.19  # half of ten a second
    assert gaps[-1] < gaps[0]


def test_a_caller_that_gives_up_in_the_queue_takes_no_turn() -> None:
    fly = ScriptedFly().on(f"POST {MACHINES}", Answer(200, machine("created")))

    async def main() -> None:
        api = api_of(fly, limiter=Limiter({"default": Rate(1.0, 1)}))
        first, second, third = (asyncio.ensure_future(api.machines.create(Config({"image": "i"}))) for _ in range(3))
        await first
        second.cancel()
        await third

    assert run(main) == pytest.approx(1.2, abs=0.1)
    assert len(fly.seen) == 2


# ---- 1.2 machines ----
def test_unknown_keys_survive_get_change_and_update() -> None:
    """1.2 update: full replace, no merge; 1.4: keep unknown keys."""
    fly = ScriptedFly().on(f"GET {ONE}", Answer(200, machine())).on(f"POST {ONE}", Answer(200, machine()))

    async def main() -> None:
        machines = api_of(fly).machines
        found = await machines.get(ID)
        await machines.update(ID, found.config.changed(image="new"), current_version=found.version)

    run(main)
    assert fly.calls(f"POST {ONE}")[0].body == {
        "config": {**machine()["config"], "image": "new"},
        "current_version": machine()["instance_id"],
    }


def test_a_list_is_filtered_here_as_well() -> None:
    """1.2 list: `metadata.{key}` is in no published description."""
    other = machine(machine_id="other")
    other["config"] = {**other["config"], "metadata": {"runner_cluster": "c-other"}}
    fly = ScriptedFly().on(f"GET {MACHINES}", Answer(200, [machine(), other]))

    async def main() -> None:
        found = await api_of(fly).machines.list(
            {"runner_cluster": "c-5f2a9c01d3e4"}, region="iad", state="started", include_deleted=True
        )
        assert [each.id for each in found] == [ID]

    run(main)
    assert fly.seen[0].query == {
        "metadata.runner_cluster": "c-5f2a9c01d3e4",
        "region": "iad",
        "state": "started",
        "include_deleted": "true",
    }


def test_stop_suspend_restart_signal_and_cordon() -> None:
    """1.2, their rows."""
    fly = ScriptedFly()
    for verb in ("stop", "suspend", "restart", "signal", "cordon", "uncordon"):
        fly.on(f"POST {ONE}/{verb}", Answer(200, OK))

    async def main() -> None:
        machines = api_of(fly).machines
        await machines.stop(ID, signal="SIGTERM", timeout_s=10)
        await machines.suspend(ID)
        await machines.restart(ID, timeout_s=5, force_stop=True, signal="SIGINT")
        await machines.signal(ID, "SIGUSR1")
        await machines.cordon(ID)
        await machines.uncordon(ID)

    run(main)
    assert fly.calls(f"POST {ONE}/stop")[0].body == {"signal": "SIGTERM", "timeout": "10s"}
    assert fly.calls(f"POST {ONE}/restart")[0].query == {"timeout": "5s", "force_stop": "true", "signal": "SIGINT"}


def test_start_waits_while_the_machine_is_replaced() -> None:
    """1.2 start: 412 `unable to start machine from current state`."""
    replacing = refused(412, "unable to start machine from current state: 'replacing'")
    started = Answer(200, {"previous_state": "stopped", "migrated": False, "new_host": ""})
    fly = ScriptedFly().on(f"POST {ONE}/start", replacing, replacing, started)

    async def main() -> None:
        await api_of(fly).until(asyncio.get_running_loop().time() + 30).machines.start(ID)

    run(main)
    assert len(fly.seen) == 3
    fly.on(f"POST {ONE}/start", refused(412, "unable to start machine from current state: 'destroyed'"))
    fly.on(f"GET {ONE}", Answer(200, machine("destroyed")))
    assert failure(lambda: api_of(fly).machines.start(ID)).kind is Kind.WRONG_STATE


@pytest.mark.parametrize("state", ["starting", "started"])
def test_a_start_whose_answer_was_lost_has_worked(state: str) -> None:
    """1.2 start: the second one meets a machine that starts, which is a 412."""
    refusal = refused(412, f"failed_precondition: unable to start machine from current state: '{state}'")
    fly = ScriptedFly().on(f"POST {ONE}/start", httpx.ReadError("reset"), refusal)
    fly.on(f"GET {ONE}", Answer(200, machine(state)))

    async def main() -> None:
        await api_of(fly).machines.start(ID)

    run(main)
    assert len(fly.calls(f"POST {ONE}/start")) == 2


def test_destroy_of_what_is_gone() -> None:
    """0.5: after destroy GET shows `destroyed` for a while, then 404."""
    fly = ScriptedFly().on(f"DELETE {ONE}", Answer(200, OK), refused(404, "machine not found"))

    async def main() -> None:
        machines = api_of(fly).machines
        assert await machines.destroy(ID, force=True)
        assert not await machines.destroy(ID)

    run(main)
    assert [seen.query for seen in fly.seen] == [{"force": "true"}, {}]


def test_a_command_that_fails_is_an_answer() -> None:
    """1.2 exec: 200 even if the command failed."""
    fly = ScriptedFly().on(f"POST {ONE}/exec", Answer(200, {"exit_code": 2, "stdout": "", "stderr": "no such file"}))

    async def main() -> None:
        assert await api_of(fly).machines.execute(ID, ["ls", "/x"]) == ExecResult(2, "", "no such file")

    run(main)
    assert fly.seen[0].body == {"command": ["ls", "/x"], "timeout": 30}


def test_events() -> None:
    """1.2 events, 1.4 event."""
    fly = ScriptedFly().on(f"GET {ONE}/events", Answer(200, [exit_event(1000, exit_code=1), exit_event(2000)]))

    async def main() -> None:
        assert [event.unix_s for event in await api_of(fly).machines.events(ID, limit=5)] == [2, 1]

    run(main)
    assert fly.seen[0].query == {"limit": "5"}


def test_metadata() -> None:
    """1.2 metadata: 204, and 412 when machine_version is not the machine's any more."""
    fly = ScriptedFly().on(f"GET {ONE}/metadata", Answer(200, {"a": "1"}))
    fly.on(f"POST {ONE}/metadata/b", Answer(204)).on(f"DELETE {ONE}/metadata/a", Answer(204))
    fly.on(f"PATCH {ONE}/metadata", Answer(204), refused(412, "machine_version mismatch"))

    async def main() -> None:
        machines = api_of(fly).machines
        assert await machines.get_metadata(ID) == {"a": "1"}
        await machines.set_metadata(ID, "b", "2")
        await machines.delete_metadata(ID, "a")
        await machines.patch_metadata(ID, {"c": "3"}, machine_version="v1")
        with pytest.raises(FlyError) as caught:
            await machines.patch_metadata(ID, {"c": "3"}, machine_version="v1")
        assert caught.value.kind is Kind.STALE

    run(main)
    assert fly.calls(f"PATCH {ONE}/metadata")[0].body == {"metadata": {"c": "3"}, "machine_version": "v1"}
