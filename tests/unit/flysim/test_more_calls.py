"""What the smaller calls answer: commands inside, signals, volumes, apps, secrets, addresses."""

from __future__ import annotations

import base64

import pytest

from runner.flysim.config_rules import seconds_of
from runner.flysim.settings import Region
from tests.unit.flysim.drive import Sim


def test_cordon_is_routing_only() -> None:
    sim = Sim()
    machine_id = sim.started()
    sim.call("cordonMachine", machine_id)
    shown = sim.call("getMachine", machine_id).body
    assert (shown["cordoned"], shown["state"]) == (True, "started")
    sim.call("uncordonMachine", machine_id)

    assert sim.call("getMachine", machine_id).body["cordoned"] is False


@pytest.mark.parametrize(
    ("body", "code", "out"),
    [
        ({"command": ["echo", "a", "b"]}, 0, "a b\n"),
        ({"cmd": "echo hi"}, 0, "hi\n"),
        ({"command": ["/bin/false"]}, 1, ""),
        ({"command": ["nvidia-smi"]}, 127, ""),
    ],
)
def test_exec_is_200_even_if_the_command_failed(body: dict[str, object], code: int, out: str) -> None:
    sim = Sim()
    answer = sim.call("execMachine", sim.started(), body=body)

    assert (answer.status, answer.body["exit_code"], answer.body["stdout"]) == (200, code, out)


def test_exec_needs_a_started_machine() -> None:
    sim = Sim()
    machine_id = sim.started()
    sim.call("stopMachine", machine_id)
    sim.pass_s(0)

    assert sim.call("execMachine", machine_id, body={"command": ["true"]}).status == 400


@pytest.mark.parametrize("signal", ["SIGTERM", 9])
def test_signals_by_name_and_by_number(signal: object) -> None:
    sim = Sim()
    machine_id = sim.started(restart={"policy": "no"})

    assert sim.call("signalMachine", machine_id, body={"signal": signal}).status == 200
    assert sim.state(machine_id) == "stopped"
    assert sim.call("signalMachine", machine_id, body={"signal": "SIGWHAT"}).status == 400


def test_a_volume_ties_its_machine_to_its_host_and_serves_one() -> None:
    sim = Sim(regions=(Region("iad", capacity=8, hosts=4),))
    volume = sim.call("createVolume", body={"name": "cache", "region": "iad", "size_gb": 10}).body
    mounts = [{"volume": volume["id"], "path": "/cache"}]
    machine_id = sim.started("a", mounts=mounts)

    assert sim.cloud.machines[machine_id].host.name == volume["zone"]
    assert sim.call("getVolume", volume["id"]).body["attached_machine_id"] == machine_id
    assert sim.create("b", mounts=mounts).status == 422
    assert sim.call("destroyVolume", volume["id"]).status == 412
    sim.call("destroyMachine", machine_id, force="true")
    sim.pass_s(0)
    assert sim.call("destroyVolume", volume["id"]).status == 200
    assert sim.call("listVolumes").body == []


# ---- apps ----
def test_a_taken_app_name_is_422_name_taken() -> None:
    sim = Sim()
    answer = sim.call("createApp", body={"app_name": "app", "org_slug": "personal"})

    assert (answer.status, answer.body["status"]) == (422, "name_taken")
    assert sim.call("createApp", body={"app_name": "Not OK", "org_slug": "personal"}).body["status"] == "unknown"


def test_deleting_an_app_takes_its_machines_and_volumes_along() -> None:
    sim = Sim()
    machine_id = sim.started()
    sim.call("createVolume", body={"name": "cache", "region": "iad"})

    assert sim.call("deleteApp").status == 202
    sim.pass_s(0)
    assert sim.state(machine_id) == "destroyed"
    assert (sim.processes._running, sim.cloud.volumes) == ({}, {})
    assert sim.call("getApp").status == 404


def test_the_organisations_machines_come_in_pages() -> None:
    sim = Sim()
    ids = [sim.started(name) for name in "abc"]
    first = sim.call("listOrgMachines", "personal", limit=2).body
    second = sim.call("listOrgMachines", "personal", limit=2, cursor=first["next_cursor"]).body

    assert [each["id"] for each in first["machines"] + second["machines"]] == ids
    assert second["next_cursor"] == ""


def test_secrets_show_no_values() -> None:
    sim = Sim()
    value = base64.b64encode(b"hidden").decode()
    assert sim.call("setSecret", "BOOT", body={"value": value}).status == 201
    assert sim.call("setSecret", "BAD", body={"value": "not base64!"}).status == 400
    listed = sim.call("listSecrets").body["secrets"]

    assert [each["name"] for each in listed] == ["BOOT"]
    assert value not in str(listed)
    assert sim.call("deleteSecret", "BOOT").status == 200
    assert sim.call("deleteSecret", "BOOT").status == 404


def test_addresses_are_kept() -> None:
    sim = Sim()
    ip = sim.call("assignIp", body={"type": "v6"}).body["ip"]
    assert [each["ip"] for each in sim.call("listIps").body["ips"]] == [ip]

    assert sim.call("releaseIp", "app", ip).status == 200
    assert sim.call("listIps").body["ips"] == []


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("15s", 15.0), ("1m30s", 90.0), ("250ms", 0.25), (7, 7.0), (15_000_000_000, 15.0), ("", 3.0), (None, 3.0)],
)
def test_durations(value: object, seconds: float) -> None:
    assert seconds_of(value, 3.0) == seconds
