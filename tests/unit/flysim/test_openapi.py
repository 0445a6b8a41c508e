"""The validator that clients' tests and the simulator share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from runner.flysim.openapi import Description

DESCRIPTION = Description.load()
CONFIG = {"image": "runner-worker:1"}


def request_faults(name: str, body: Any = None, **query: str) -> list[str]:
    listed = {key: [value] for key, value in query.items()}
    return DESCRIPTION.request_faults(DESCRIPTION.operations[name], listed, {}, body, has_body=body is not None)


@pytest.mark.parametrize(
    ("method", "path", "name", "parameters"),
    [
        ("GET", "/apps", "listApps", {}),
        ("post", "/apps/a/machines", "createMachine", {"app_name": "a"}),
        (
            "GET",
            "/apps/a/machines/m/metadata/k.v",
            "getMetadataKey",
            {"app_name": "a", "machine_id": "m", "key": "k.v"},
        ),
    ],
)
def test_calls_find_their_operation(method: str, path: str, name: str, parameters: dict[str, str]) -> None:
    found = DESCRIPTION.find(method, path)

    assert found is not None
    assert (found[0].name, found[1]) == (name, parameters)


@pytest.mark.parametrize(("method", "path"), [("PUT", "/apps"), ("GET", "/apps/a/b/c"), ("GET", "/apps//machines")])
def test_others_find_none(method: str, path: str) -> None:
    assert DESCRIPTION.find(method, path) is None


@pytest.mark.parametrize(
    ("name", "body", "query", "fault"),
    [
        ("createMachine", None, {}, "a body is required"),
        ("createMachine", {"config": {}}, {}, "body.config: 'image' is a required property"),
        (
            "createMachine",
            {"config": {**CONFIG, "guest": {"cpus": "2"}}},
            {},
            "body.config.guest.cpus: '2' is not of type 'integer'",
        ),
        ("createMachine", {"config": CONFIG, "nmae": "x"}, {}, "('nmae' was unexpected)"),
        (
            "listMachines",
            None,
            {"include_deleted": "yes"},
            "query parameter include_deleted: 'yes' is not of type 'boolean'",
        ),
        ("listMachines", None, {"metadata": "x"}, "query parameter metadata is unknown"),
        ("waitMachine", None, {"timeout": "61"}, "query parameter timeout: 61 is greater than the maximum of 60"),
        ("listApps", None, {}, "query parameter org_slug is required"),
        ("startMachine", {"force": True}, {}, "no body is expected"),
        ("releaseLease", None, {}, "header fly-machine-lease-nonce is required"),
    ],
)
def test_requests_that_break_it(name: str, body: Any, query: dict[str, str], fault: str) -> None:
    faults = request_faults(name, body, **query)

    assert any(fault in each for each in faults), faults


@pytest.mark.parametrize(
    ("name", "body", "query"),
    [
        ("createMachine", {"config": {**CONFIG, "unheard_of": 1}, "region": "iad,us"}, {}),
        ("listMachines", None, {"include_deleted": "true", "metadata.runner": "c1"}),
        ("waitMachine", None, {"timeout": "60", "state": "started,stopped", "instance_id": "x"}),
        ("stopMachine", None, {}),
        ("stopMachine", {"timeout": "15s"}, {}),
    ],
)
def test_requests_that_keep_it(name: str, body: Any, query: dict[str, str]) -> None:
    assert request_faults(name, body, **query) == []


@pytest.mark.parametrize(
    ("name", "status", "body", "fault"),
    [
        ("getMachine", 200, {"id": "m"}, "body: 'state' is a required property"),
        ("getMachine", 200, None, "a body is expected"),
        ("getMachine", 418, {"error": "tea"}, "status 418 is not listed"),
        ("getMachine", 404, {"message": "gone"}, "body: 'error' is a required property"),
        ("setMetadataKey", 204, {"ok": True}, "no body is expected"),
    ],
)
def test_answers_that_break_it(name: str, status: int, body: Any, fault: str) -> None:
    operation = DESCRIPTION.operations[name]
    faults = DESCRIPTION.answer_faults(operation, status, body, has_body=body is not None)

    assert any(fault in each for each in faults), faults


@pytest.mark.parametrize(
    ("name", "status", "body"),
    [
        ("getMachine", 200, {"id": "m", "state": "invented", "new_key": [], "config": None}),
        ("getMachine", 503, {"error": "busy"}),
        ("setMetadataKey", 204, None),
        ("deleteApp", 202, None),
    ],
)
def test_answers_that_keep_it(name: str, status: int, body: Any) -> None:
    operation = DESCRIPTION.operations[name]

    assert DESCRIPTION.answer_faults(operation, status, body, has_body=body is not None) == []


def test_another_description_can_be_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "api.yaml"
    path.write_text(yaml.safe_dump({"paths": {"/x": {"get": {"operationId": "x", "responses": {"200": {}}}}}}))

    assert list(Description.load(path).operations) == ["x"]
