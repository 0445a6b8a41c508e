"""The description that holds both the client and the simulator: whole, resolvable, and every line with its source."""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml

METHODS = {"get", "put", "post", "delete", "patch"}
ANSWERS = re.compile(r"[1-5](\d\d|XX)")
SPEC: dict[str, Any] = yaml.safe_load(
    importlib.resources.files("runner.providers.fly").joinpath("openapi.yaml").read_text(encoding="utf-8")
)
OPERATIONS = [
    (f"{method} {path}", path, item, operation)
    for path, item in SPEC["paths"].items()
    for method, operation in item.items()
    if method in METHODS
]
each_operation = pytest.mark.parametrize(
    ("path", "item", "operation"), [each[1:] for each in OPERATIONS], ids=[each[0] for each in OPERATIONS]
)
each_schema = pytest.mark.parametrize("name", sorted(SPEC["components"]["schemas"]))


def resolve(node: dict[str, Any]) -> dict[str, Any]:
    """What a `$ref` names; anything else as it is."""
    found: Any = SPEC
    if "$ref" not in node:
        return node
    root, *steps = node["$ref"].split("/")
    assert root == "#", node
    for step in steps:
        found = found[step]
    assert isinstance(found, dict)
    return found


def walk(node: Any) -> Iterator[dict[str, Any]]:
    """Every map in the description."""
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from walk(value)
    elif isinstance(node, list):
        for value in node:
            yield from walk(value)


def schema(name: str) -> dict[str, Any]:
    """One schema with all that it refers to."""
    return {"$ref": f"#/components/schemas/{name}", "components": SPEC["components"]}


def check(name: str, value: Any) -> None:
    jsonschema.Draft202012Validator(schema(name)).validate(value)


def refuses(name: str, value: Any) -> bool:
    return not jsonschema.Draft202012Validator(schema(name)).is_valid(value)


def test_it_is_openapi_3_1_with_unique_operation_names() -> None:
    names = [operation["operationId"] for _, _, _, operation in OPERATIONS]

    assert SPEC["openapi"].startswith("3.1.")
    assert len(names) == len(set(names)) >= 40


def test_every_reference_resolves() -> None:
    references = [node for node in walk(SPEC) if "$ref" in node]

    assert len(references) > 100
    for node in references:
        assert resolve(node), node


def test_no_text_was_cut_in_two_by_a_comma() -> None:
    # "{description: a, b}" is a map with an empty "b".
    empty = [node for node in walk(SPEC) if any(value is None for value in node.values())]

    assert empty == []


def test_nothing_is_defined_that_nobody_uses() -> None:
    used = {node["$ref"] for node in walk(SPEC) if "$ref" in node}
    # What a simulator may show; a client takes any other word as well.
    used.add("#/components/schemas/KnownState")

    defined = {f"#/components/{kind}/{name}" for kind, parts in SPEC["components"].items() for name in parts}

    assert {name for name in defined - used if "/securitySchemes/" not in name} == set()


@each_operation
def test_an_operation_says_where_it_comes_from(path: str, item: dict[str, Any], operation: dict[str, Any]) -> None:
    source = operation["x-source"]

    assert source["section"] in SPEC["x-sections"]
    assert source["row"]
    assert set(source["from"]) <= set(SPEC["x-tags"])
    assert source["from"]


@each_schema
def test_a_schema_is_valid_and_says_where_it_comes_from(name: str) -> None:
    source = SPEC["components"]["schemas"][name]["x-source"]

    jsonschema.Draft202012Validator.check_schema(SPEC["components"]["schemas"][name])
    assert source["section"] in SPEC["x-sections"]
    assert set(source["from"]) <= set(SPEC["x-tags"])


@each_operation
def test_an_operation_can_succeed_and_fail(path: str, item: dict[str, Any], operation: dict[str, Any]) -> None:
    answers = operation["responses"]

    assert all(ANSWERS.fullmatch(code) for code in answers)
    assert any(code.startswith("2") for code in answers)
    assert {"401", "429", "5XX"} <= set(answers)
    for code, answer in answers.items():
        found = resolve(answer)
        assert found["description"]
        if not code.startswith("2"):
            assert found["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Error"}


@each_operation
def test_the_names_in_a_path_are_its_parameters(path: str, item: dict[str, Any], operation: dict[str, Any]) -> None:
    parameters = [resolve(each) for each in [*item.get("parameters", []), *operation.get("parameters", [])]]
    in_path = {each["name"] for each in parameters if each["in"] == "path"}

    assert in_path == set(re.findall(r"{(\w+)}", path))
    assert all(each["required"] for each in parameters if each["in"] == "path")
    for each in parameters:
        jsonschema.Draft202012Validator.check_schema(each["schema"])


@pytest.mark.parametrize("name", ["CreateMachineRequest", "UpdateMachineRequest", "CreateAppRequest", "StopRequest"])
def test_what_we_send_has_no_misspelt_names(name: str) -> None:
    assert SPEC["components"]["schemas"][name]["additionalProperties"] is False


@pytest.mark.parametrize("name", ["Machine", "MachineConfig", "Event", "Error", "Guest", "App", "Volume"])
def test_what_fly_sends_may_hold_more(name: str) -> None:
    assert SPEC["components"]["schemas"][name]["additionalProperties"] is True


def test_a_request_as_flame_makes_it_is_valid() -> None:
    guest = {"cpu_kind": "performance", "cpus": 1, "memory_mb": 4096, "gpu_kind": None, "gpus": None}
    config = {
        "image": "registry.fly.io/app:deployment-01",
        "init": {},
        "guest": {name: value for name, value in guest.items() if value is not None},
        "auto_destroy": True,
        "restart": {"policy": "no"},
        "env": {"FLAME_PARENT": "g2gC"},
        "services": [],
        "metadata": {"flame_parent_ip": "fdaa::3"},
    }

    check("CreateMachineRequest", {"name": "app-flame-0123456789abcdef0123", "region": "iad", "config": config})


@pytest.mark.parametrize(
    "config",
    [
        {},  # an image is required
        {"image": "a", "restart": {"policy": False}},  # what YAML makes of a bare no
        {"image": "a", "size": "shared-cpu-1x", "guest": {"cpus": 1}},
        {"image": "a", "guest": {"memory_mb": 300}},
        {"image": "a", "files": [{"guest_path": "/a"}]},
        {"image": "a", "env": {"N": 1}},
        {"image": "a", "mounts": [{"name": "one"}, {"name": "two"}]},
    ],
)
def test_a_config_that_cannot_work_is_refused(config: dict[str, Any]) -> None:
    assert refuses("CreateMachineRequest", {"config": config})


def test_words_that_yaml_would_take_for_something_else_are_words() -> None:
    schemas = SPEC["components"]["schemas"]

    assert schemas["MachineConfig"]["properties"]["restart"]["properties"]["policy"]["enum"] == [
        "no",
        "always",
        "on-failure",
    ]
    assert schemas["Service"]["properties"]["autostop"]["oneOf"][0]["enum"] == ["off", "stop", "suspend"]
    assert len(schemas["KnownState"]["enum"]) == 17


def test_unknown_keys_and_states_of_a_machine_are_accepted() -> None:
    check("Machine", {"id": "d891234", "state": "hibernating", "new_thing": [1]})


def test_waits_are_sliced() -> None:
    operation = SPEC["paths"]["/apps/{app_name}/machines/{machine_id}/wait"]["get"]
    timeout = next(each for each in operation["parameters"] if each["name"] == "timeout")["schema"]

    assert (timeout["minimum"], timeout["maximum"]) == (1, 60)
    assert "408" in operation["responses"]
