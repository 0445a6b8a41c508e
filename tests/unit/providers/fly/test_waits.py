"""Waits and leases against hand-written answers; each test names the row of facts that its answers were written from."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from runner.providers.fly.errors import FlyError, Kind
from runner.providers.fly.guest import Guest
from runner.providers.fly.model import Config
from tests.unit.providers.fly.scripted import (
    ID,
    MACHINES,
    OK,
    ONE,
    Answer,
    ScriptedFly,
    api_of,
    machine,
    refused,
    run,
)

GUEST = Guest("performance-1x", "performance", 1, 2048)
LEASE = {"status": "success", "data": {"nonce": "n-1", "expires_at": 1_800_000_000, "owner": "me", "version": "v"}}


# ---- 1.2 wait ----
WAIT = f"GET {ONE}/wait"
NOT_YET = refused(408, "machine failed to reach desired state, started, currently created", after_s=60)


def wait(fly: ScriptedFly, state: str = "started", *, for_s: float = 600, **kwargs: Any) -> tuple[Any, float]:
    found: list[Any] = []

    async def main() -> None:
        deadline_s = asyncio.get_running_loop().time() + for_s
        try:
            found.append(await api_of(fly).until(deadline_s).machines.wait(ID, state, deadline_s=deadline_s, **kwargs))
        except FlyError as error:
            found.append(error)

    took_s = run(main)
    return found[0], took_s


def test_a_wait_goes_on_in_slices_of_a_minute() -> None:
    """1.2 wait: 1 to 60 s, 408 is not yet; 1.3: 60 s proxy ceiling."""
    fly = ScriptedFly().on(WAIT, NOT_YET, NOT_YET, Answer(200, OK))
    found, took_s = wait(fly)
    assert found is None
    assert took_s == pytest.approx(120, abs=1)
    assert [seen.query for seen in fly.seen] == [{"state": "started", "timeout": "60"}] * 3


def test_a_wait_keeps_to_its_one_deadline() -> None:
    fly = ScriptedFly().on(WAIT, refused(408, "currently created", after_s=10))
    error, took_s = wait(fly, for_s=25, slice_s=10)
    assert error.kind is Kind.DEADLINE
    assert took_s <= 31
    assert [seen.query["timeout"] for seen in fly.seen] == ["10", "10", "5"]


def test_a_wait_for_stopped_names_the_instance() -> None:
    """1.2 wait: `stopped` without instance_id is 400."""
    fly = ScriptedFly().on(WAIT, Answer(200, OK))
    wait(fly, "stopped", instance_id="01HV", from_event_id="ev-1")
    assert fly.seen[0].query == {
        "state": "stopped",
        "instance_id": "01HV",
        "from_event_id": "ev-1",
        "timeout": "60",
    }
    fly.on(WAIT, refused(400, "instance_id required when waiting for stopped machine"))
    assert wait(fly, "stopped")[0].kind is Kind.INVALID


def test_a_wait_ends_when_the_instance_was_replaced() -> None:
    """1.2 wait: the text contains `currently replaced`."""
    replaced = refused(408, "machine failed to reach desired state, stopped, currently replaced")
    fly = ScriptedFly().on(WAIT, replaced, Answer(200, OK))
    assert wait(fly, "stopped", instance_id="01HV")[0].kind is Kind.STALE
    fly.on(WAIT, replaced, Answer(200, OK))
    assert wait(fly)[0] is None


def test_a_wait_sees_between_slices_that_it_is_in_vain() -> None:
    """1.5: launch_failed, failed, destroyed."""
    fly = ScriptedFly().on(WAIT, NOT_YET).on(f"GET {ONE}", Answer(200, machine("failed")))
    found, took_s = wait(fly, gone_states={"failed"})
    assert found.state == "failed"
    assert took_s < 70


def test_a_wait_survives_a_server_that_stumbles() -> None:
    fly = ScriptedFly().on(WAIT, refused(502, "bad gateway"), httpx.ReadError("reset"), Answer(200, OK))
    assert wait(fly)[0] is None


# ---- 1.2 leases ----
LEASES = f"{ONE}/lease"


def test_a_lease_sends_its_nonce_with_every_change_until_it_is_released() -> None:
    """1.2 lease: the nonce must go on every later change."""
    fly = (
        ScriptedFly()
        .on(f"POST {LEASES}", Answer(201, LEASE), Answer(200, LEASE))
        .on(f"POST {ONE}/stop", Answer(200, OK))
    )
    fly.on(f"DELETE {LEASES}", Answer(200, OK)).on(f"POST {ONE}", Answer(200, machine()))
    fly.on(f"GET {LEASES}", Answer(200, LEASE), refused(404, "no lease"))

    async def main() -> None:
        machines = api_of(fly).machines
        lease = await machines.acquire_lease(ID, ttl_s=30, description="resize")
        assert (lease.nonce, lease.owner, lease.expires_unix_s) == ("n-1", "me", 1_800_000_000)
        assert "n-1" not in repr(lease)
        await machines.stop(ID)
        await machines.update(ID, Config({"image": "i"}))
        await machines.refresh_lease(ID, ttl_s=30)
        held = await machines.get_lease(ID)
        assert held is not None and held.nonce == "n-1"
        await machines.release_lease(ID)
        await machines.stop(ID)
        assert await machines.get_lease(ID) is None

    run(main)
    nonces = [(f"{seen.method} {seen.path}", seen.headers.get("fly-machine-lease-nonce")) for seen in fly.seen]
    assert nonces == [
        (f"POST {LEASES}", None),
        (f"POST {ONE}/stop", "n-1"),
        (f"POST {ONE}", "n-1"),
        (f"POST {LEASES}", "n-1"),
        (f"GET {LEASES}", None),
        (f"DELETE {LEASES}", "n-1"),
        (f"POST {ONE}/stop", None),
        (f"GET {LEASES}", None),
    ]


def test_a_lease_that_somebody_holds_is_waited_for_until_the_deadline() -> None:
    """1.2 lease: 409 when another holds it."""
    held = refused(409, "lease currently held by another")
    fly = ScriptedFly().on(f"POST {LEASES}", held, held, Answer(201, LEASE))

    async def main() -> None:
        machines = api_of(fly).until(asyncio.get_running_loop().time() + 10).machines
        await machines.acquire_lease(ID, ttl_s=30)
        fly.on(f"POST {LEASES}", held)
        with pytest.raises(FlyError) as caught:
            await machines.acquire_lease(ID, ttl_s=30)
        assert caught.value.kind is Kind.LEASED

    assert run(main) <= 10.1


def test_a_machine_made_with_a_lease_is_held() -> None:
    """1.2 create: with `lease_ttl` the answer has `nonce`."""
    fly = ScriptedFly().on(f"POST {MACHINES}", Answer(200, machine("created", nonce="n-2")))
    fly.on(f"POST {ONE}/stop", Answer(200, OK))

    async def main() -> None:
        machines = api_of(fly).machines
        await machines.create(Config({"image": "i"}), lease_ttl_s=30, skip_launch=True)
        await machines.stop(ID)

    run(main)
    assert fly.seen[0].body["lease_ttl"] == 30
    assert fly.seen[1].headers["fly-machine-lease-nonce"] == "n-2"


def test_a_lease_that_is_only_looked_at_may_hide_its_nonce() -> None:
    """1.2 lease: the nonce is its holder's; a reader sees who that is."""
    seen_by_others = {"status": "success", "data": {"owner": "me", "expires_at": 1_800_000_000}}
    strange = Answer(200, seen_by_others, is_strange=True)
    fly = ScriptedFly().on(f"GET {LEASES}", strange).on(f"POST {LEASES}", strange)

    async def main() -> None:
        held = await api_of(fly).machines.get_lease(ID)
        assert held is not None and held.owner == "me"
        with pytest.raises(FlyError, match="no nonce"):
            await api_of(fly).machines.acquire_lease(ID, ttl_s=30)

    run(main)
