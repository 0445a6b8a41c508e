"""Calls about what hangs on a machine: metadata, events, versions, commands inside."""

from __future__ import annotations

from runner.flysim.answers import Answer, ApiError, bad_request
from runner.flysim.calls import Call
from runner.flysim.cloud import Cloud
from runner.flysim.machine_calls import changeable
from runner.flysim.states import State

_COMMANDS = {"true": (0, ""), "false": (1, "")}


def get_metadata(cloud: Cloud, call: Call) -> Answer:
    """All of it. [1.2 metadata]"""
    return Answer(200, dict(call.machine(cloud).metadata))


def get_metadata_key(cloud: Cloud, call: Call) -> Answer:
    """One value. [1.2 metadata]"""
    found = call.machine(cloud).metadata
    if call.path["key"] not in found:
        raise ApiError(404, f"metadata key {call.path['key']!r} not found")
    return Answer(200, {"value": found[call.path["key"]]})


def post_metadata_key(cloud: Cloud, call: Call) -> Answer:
    """204; makes no new version. [1.2 metadata]"""
    machine = changeable(cloud, call)
    value = call.body.get("value")
    if not isinstance(value, str):
        raise bad_request("value is required")
    machine.metadata[call.path["key"]] = value
    cloud.changes += 1
    return Answer(204)


def delete_metadata_key(cloud: Cloud, call: Call) -> Answer:
    """204. [1.2 metadata]"""
    changeable(cloud, call).metadata.pop(call.path["key"], None)
    cloud.changes += 1
    return Answer(204)


def put_metadata(cloud: Cloud, call: Call) -> Answer:
    """204; all of it replaced. 412 when `machine_version` is not the current one. [1.2 metadata]"""
    return _write_metadata(cloud, call, keeps_rest=False)


def patch_metadata(cloud: Cloud, call: Call) -> Answer:
    """204; the named keys replaced, an empty value removes. 412 as for PUT. [1.2 metadata]"""
    return _write_metadata(cloud, call, keeps_rest=True)


def _write_metadata(cloud: Cloud, call: Call, *, keeps_rest: bool) -> Answer:
    machine = changeable(cloud, call)
    expected = call.body.get("machine_version")
    if expected and expected != machine.instance_id:
        raise ApiError(412, f"failed_precondition: machine version is {machine.instance_id}, not {expected}")
    values = call.body.get("metadata")
    if not isinstance(values, dict) or not all(isinstance(each, str) for each in values.values()):
        raise bad_request("metadata must map strings to strings")
    base = machine.metadata if keeps_rest else {}
    machine.metadata = {key: value for key, value in {**base, **values}.items() if value or not keeps_rest}
    cloud.changes += 1
    return Answer(204)


def list_events(cloud: Cloud, call: Call) -> Answer:
    """Newest first. [1.2 events]"""
    limit = int(call.first("limit") or 20)
    return Answer(200, [dict(event) for event in call.machine(cloud).events[:limit]])


def list_versions(cloud: Cloud, call: Call) -> Answer:
    """The versions, newest first. [1.2 versions]"""
    versions = reversed(call.machine(cloud).versions)
    return Answer(200, [{"version": each.instance_id, "user_config": each.config} for each in versions])


def exec_in_machine(cloud: Cloud, call: Call) -> Answer:
    """200 also when the command failed. In an imagined machine there are `true`, `false` and `echo`. [1.2 exec]"""
    machine = changeable(cloud, call)
    if machine.state is not State.STARTED:
        raise ApiError(400, f"failed_precondition: machine is not started, it is {machine.state.value}")
    command = call.body.get("command") or str(call.body.get("cmd") or "").split()
    if not isinstance(command, list) or not command:
        raise bad_request("command is required")
    name, arguments = str(command[0]).rpartition("/")[2], [str(each) for each in command[1:]]
    if name == "echo":
        return Answer(200, {"exit_code": 0, "stdout": " ".join(arguments) + "\n", "stderr": ""})
    if name in _COMMANDS:
        code, text = _COMMANDS[name]
        return Answer(200, {"exit_code": code, "stdout": text, "stderr": ""})
    return Answer(200, {"exit_code": 127, "stdout": "", "stderr": f"{name}: not found in the simulated machine\n"})
