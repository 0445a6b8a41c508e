"""What each call answers, by the rows of the facts."""

from __future__ import annotations

from typing import Any

import pytest

from runner.flysim.settings import Delay, Region
from tests.unit.flysim.drive import CONFIG, Sim


# ---- create ----
def test_only_the_image_is_required_and_unknown_keys_are_kept() -> None:
    sim = Sim()
    answer = sim.create("m", later_invention={"a": [1]})

    assert answer.body["config"]["later_invention"] == {"a": [1]}
    assert answer.body["config"]["guest"] == {"cpu_kind": "shared", "cpus": 1, "memory_mb": 256}
    assert len(answer.body["id"]) == 14
    assert len(answer.body["instance_id"]) == 26


def test_a_living_namesake_is_409_with_its_id_and_a_destroyed_one_is_not() -> None:
    sim = Sim()
    machine_id = sim.started("twin")
    status, text = sim.error(sim.create("twin"))
    assert (status, "already_exists" in text, machine_id in text) == (409, True, True)
    sim.call("destroyMachine", machine_id, force="true")
    sim.pass_s(0)

    assert sim.create("twin").status == 200


def test_with_lease_ttl_the_answer_has_a_nonce_that_changes_need() -> None:
    sim = Sim()
    answer = sim.call("createMachine", body={"config": CONFIG, "lease_ttl": 30})
    machine_id, nonce = answer.body["id"], answer.body["nonce"]
    sim.pass_s(1.0)

    assert sim.call("stopMachine", machine_id).status == 409
    assert sim.call("stopMachine", machine_id, nonce=nonce).status == 200


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"image": "nowhere/else:1"}, "manifest unknown"),
        ({"size": "huge-512x"}, "unknown machine size"),
        ({"guest": {"cpus": 1, "memory_mb": 4096}}, "invalid memory size"),
        ({"guest": {"cpus": 1, "memory_mb": 300}}, "invalid memory size"),
        ({"guest": {"cpu_kind": "quantum"}}, "invalid cpu_kind"),
        ({"restart": {"policy": "sometimes"}}, "restart policy"),
        ({"mounts": [{"volume": "vol_1", "path": "/a"}, {"volume": "vol_2", "path": "/b"}]}, "one volume"),
        ({"env": {"A": 1}}, "strings"),
    ],
)
def test_configurations_that_cannot_be(config: dict[str, Any], words: str) -> None:
    status, text = Sim().error(Sim().create(**config))

    assert (status, words in text) == (400, True), text


@pytest.mark.parametrize("config", [{"guest": {"gpu_kind": "l40s", "gpus": 1}}, {"size": "a100-80gb"}])
def test_gpus_are_gone(config: dict[str, Any]) -> None:
    sim = Sim()

    assert sim.error(sim.create(**config)) == (422, "GPU machines are no longer supported")


def test_presets_are_sizes() -> None:
    guest = Sim().create(size="performance-2x").body["config"]["guest"]

    assert guest == {"cpu_kind": "performance", "cpus": 2, "memory_mb": 4096}


def test_a_missing_image_can_show_at_launch_instead() -> None:
    sim = Sim(missing_image_at="launch")
    machine_id = sim.created(image="nowhere/else:1")
    sim.pass_s(0)

    assert sim.state(machine_id) == "failed"


def test_a_region_is_a_code_an_alias_or_a_list() -> None:
    sim = Sim()
    for wanted, got in (("fra", "fra"), ("eu", "fra"), ("na", "iad"), ("any", "iad"), ("fra,iad", "fra")):
        answer = sim.call("createMachine", body={"region": wanted, "config": CONFIG})
        assert answer.body["region"] == got
    assert sim.call("createMachine", body={"region": "mars", "config": CONFIG}).status == 400


# ---- capacity: five faces ----
def full(**settings: Any) -> Sim:
    sim = Sim(regions=(Region("iad", capacity=1, hosts=1),), **settings)
    sim.started("only")
    return sim


@pytest.mark.parametrize(
    ("face", "status", "words"),
    [
        ("412", 412, "insufficient resources"),
        ("409", 409, "aborted: could not reserve"),
        ("403", 403, "over the allowed quota"),
    ],
)
def test_a_full_region_says_so(face: str, status: int, words: str) -> None:
    sim = full(capacity_face=face)
    answer = sim.create("second")

    assert (answer.status, answer.body["status"], words in answer.body["error"]) == (
        status,
        "insufficient_capacity",
        True,
    )


def test_a_quota_is_a_403_before_the_region_is_full() -> None:
    sim = Sim(machines_quota=1)
    sim.started("only")

    assert sim.create("second").status == 403


def test_no_room_beside_a_volume_is_a_422_and_none_for_a_volume_a_400() -> None:
    sim = Sim(regions=(Region("iad", capacity=1, hosts=1),))
    volume = sim.call("createVolume", body={"name": "cache", "region": "iad"}).body["id"]
    sim.started("only")

    answer = sim.create("second", mounts=[{"volume": volume, "path": "/cache"}])
    assert (answer.status, answer.body["status"]) == (422, "insufficient_capacity")
    answer = sim.call("createVolume", body={"name": "more", "region": "iad"})
    assert (answer.status, answer.body["error"]) == (400, "no capacity")


def test_the_next_region_of_the_list_is_tried() -> None:
    sim = Sim(regions=(Region("iad", 1, 1), Region("fra", 1, 1)))
    regions = [sim.call("createMachine", body={"region": "iad,fra", "config": CONFIG}) for _ in range(3)]

    assert [answer.body.get("region") for answer in regions] == ["iad", "fra", None]


def test_a_stopped_machine_gives_its_place_back_and_may_not_get_it_again() -> None:
    sim = full()
    first = next(iter(sim.cloud.machines))
    sim.call("stopMachine", first)
    sim.pass_s(0)
    sim.started("second")

    assert sim.error(sim.call("startMachine", first)) == (412, "insufficient resources available to fulfill request")


def test_a_suspended_machine_keeps_its_place() -> None:
    sim = full()
    sim.call("suspendMachine", next(iter(sim.cloud.machines)))
    sim.pass_s(0)

    assert sim.create("second").status == 412


def test_memory_is_room_too() -> None:
    sim = Sim(regions=(Region("iad", capacity=9, hosts=1, host_memory_mb=512),))
    sim.started("a")
    sim.started("b")

    assert sim.create("c").status == 412


def test_placements_tell_the_room_and_reserve_nothing() -> None:
    sim = Sim(regions=(Region("iad", 3, 1), Region("fra", 1, 1)))
    sim.started("one")
    asked = {"compute": {"memory_mb": 256, "cpus": 1}, "region": "any", "count": 2}
    for _ in range(2):
        answer = sim.call("findPlacements", body=asked)
        assert [(each["Region"], each["Count"]) for each in answer.body["Regions"]] == [("iad", 2), ("fra", 1)]


# ---- reading ----
def test_get_wait_and_list_know_a_machine_only_after_a_while() -> None:
    sim = Sim(visible_delay=Delay(2.0))
    machine_id = sim.created()
    assert sim.call("getMachine", machine_id).status == 404
    assert sim.call("waitMachine", machine_id, state="started").status == 404
    assert sim.call("listMachines").body == []
    sim.pass_s(2.1)

    assert sim.call("getMachine", machine_id).status == 200
    assert [each["id"] for each in sim.call("listMachines").body] == [machine_id]


def test_the_list_filters() -> None:
    sim = Sim()
    a = sim.started("a", metadata={"cluster": "c1", "kind": "x"})
    b = sim.started("b", metadata={"cluster": "c1"})
    sim.call("stopMachine", b)
    sim.pass_s(0)

    def ids(**query: str) -> list[str]:
        return [each["id"] for each in sim.call("listMachines", **query).body]

    assert ids() == [a, b]
    assert ids(**{"metadata.cluster": "c1", "metadata.kind": "x"}) == [a]
    assert ids(**{"metadata.cluster": "c2"}) == []
    assert ids(state="stopped") == [b]
    assert ids(region="fra") == []
    sim.call("destroyMachine", a, force="true")
    sim.pass_s(0)
    assert ids() == [b]
    assert ids(include_deleted="true") == [a, b]


def test_events_are_newest_first() -> None:
    sim = Sim()
    machine_id = sim.started()
    sim.call("stopMachine", machine_id)
    sim.pass_s(0)

    kinds = [event["type"] for event in sim.call("listEvents", machine_id).body]
    assert kinds == ["stop", "exit", "stop", "start", "start", "launch"]
    assert [event["type"] for event in sim.call("listEvents", machine_id, limit=1).body] == ["stop"]


# ---- wait ----
@pytest.mark.parametrize("timeout", ["0", "61", "9999"])
def test_a_wait_takes_1_to_60_seconds(timeout: str) -> None:
    sim = Sim()
    status, text = sim.error(sim.call("waitMachine", sim.started(), timeout=timeout))

    assert (status, "invalid_argument" in text) == (400, True)


def test_a_wait_for_stopped_needs_the_version() -> None:
    sim = Sim()
    machine_id = sim.started()
    assert sim.error(sim.call("waitMachine", machine_id, state="stopped")) == (
        400,
        "instance_id required when waiting for stopped machine",
    )
    version = sim.cloud.machines[machine_id].instance_id

    for name in ("instance_id", "version"):
        status, text = sim.error(sim.call("waitMachine", machine_id, **{"state": "stopped", name: version}))
        assert (status, text) == (408, "machine failed to reach desired state, stopped, currently started")


def test_a_wait_for_a_replaced_version_says_so() -> None:
    sim = Sim()
    machine_id = sim.started()
    old = sim.cloud.machines[machine_id].instance_id
    sim.call("updateMachine", machine_id, body={"config": CONFIG})

    status, text = sim.error(sim.call("waitMachine", machine_id, instance_id=old))
    assert (status, "currently replaced" in text) == (408, True)


def test_a_wait_takes_several_states_and_settled() -> None:
    sim = Sim(start_delay=Delay(5.0))
    machine_id = sim.created()
    sim.pass_s(1.0)
    assert sim.call("waitMachine", machine_id, state="settled").status == 408
    sim.pass_s(5.0)

    assert sim.call("waitMachine", machine_id, state="settled").body == {"ok": True}
    assert sim.call("waitMachine", machine_id, state="suspended,started").status == 200
    assert sim.call("waitMachine", machine_id, state=["suspended", "started"]).status == 200
    assert sim.call("waitMachine", machine_id, state="sleeping").status == 400


# ---- lease ----
def test_a_lease_is_refreshed_with_its_nonce_held_against_others_and_runs_out() -> None:
    sim = Sim()
    machine_id = sim.started()
    first = sim.call("acquireLease", machine_id, body={"ttl": 10})
    nonce = first.body["data"]["nonce"]
    assert first.status == 201
    assert sim.call("acquireLease", machine_id, body={"ttl": 10}).status == 409
    again = sim.call("acquireLease", machine_id, body={"ttl": 60}, nonce=nonce)
    assert again.body["data"]["nonce"] == nonce
    assert again.body["data"]["expires_at"] - first.body["data"]["expires_at"] == 50
    assert sim.call("setMetadataKey", machine_id, "k", body={"value": "v"}).status == 409
    sim.pass_s(61.0)

    assert sim.call("setMetadataKey", machine_id, "k", body={"value": "v"}).status == 204
    assert sim.call("getLease", machine_id).status == 404


def test_a_lease_is_given_back_with_its_nonce_only() -> None:
    sim = Sim()
    machine_id = sim.started()
    nonce = sim.call("acquireLease", machine_id, ttl="30").body["data"]["nonce"]

    assert sim.call("releaseLease", machine_id, nonce="another").status == 409
    assert sim.call("releaseLease", machine_id, nonce=nonce).status == 200
    assert sim.call("stopMachine", machine_id).status == 200


# ---- metadata ----
def test_metadata_makes_no_version() -> None:
    sim = Sim()
    machine_id = sim.started(metadata={"a": "1"})
    version = sim.cloud.machines[machine_id].instance_id
    assert sim.call("setMetadataKey", machine_id, "b", body={"value": "2"}).status == 204
    assert sim.call("getMetadata", machine_id).body == {"a": "1", "b": "2"}
    assert sim.call("getMetadataKey", machine_id, "b").body == {"value": "2"}
    assert sim.call("deleteMetadataKey", machine_id, "a").status == 204
    merge = {"metadata": {"c": "3"}, "machine_version": version}
    assert sim.call("mergeMetadata", machine_id, body=merge).status == 204
    assert sim.call("getMachine", machine_id).body["config"]["metadata"] == {"b": "2", "c": "3"}
    assert sim.call("replaceMetadata", machine_id, body={"metadata": {"d": "4"}}).status == 204
    assert sim.call("getMetadata", machine_id).body == {"d": "4"}
    stale = {"metadata": {}, "machine_version": "0" * 26}
    assert sim.call("replaceMetadata", machine_id, body=stale).status == 412

    assert sim.cloud.machines[machine_id].instance_id == version
