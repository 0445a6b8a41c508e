"""Holds requests and answers to runner/providers/fly/openapi.yaml."""

from __future__ import annotations

import functools
import importlib.resources
import json
import re
from typing import Any

import httpx
import jsonschema
import yaml

_BASE = "/v1"


@functools.cache
def spec() -> dict[str, Any]:
    text = importlib.resources.files("runner.providers.fly").joinpath("openapi.yaml").read_text(encoding="utf-8")
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


def check_request(request: httpx.Request) -> None:
    """AssertionError or ValidationError where the description does not allow it."""
    item, operation = _operation(request)
    parameters = [_resolve(each) for each in (*item.get("parameters", ()), *operation.get("parameters", ()))]
    queries = {each["name"]: each for each in parameters if each["in"] == "query"}
    for name, value in request.url.params.multi_items():
        if not any(re.search(pattern, name) for pattern in operation.get("x-query-patterns", ())):
            assert name in queries, f"{operation['operationId']} has no query parameter {name}"
            _validate(_typed(value, queries[name]["schema"]), queries[name]["schema"])
    for each in parameters:
        if each.get("required") and each["in"] in {"query", "header"}:
            where = request.url.params if each["in"] == "query" else request.headers
            assert each["name"] in where, f"{operation['operationId']} needs {each['name']}"
    body = operation.get("requestBody")
    if request.content:
        assert body is not None, f"{operation['operationId']} takes no body"
        assert request.headers["content-type"] == "application/json"
        _validate(json.loads(request.content), body["content"]["application/json"]["schema"])
    else:
        assert not (body or {}).get("required"), f"{operation['operationId']} needs a body"


def check_answer(request: httpx.Request, answer: httpx.Response) -> None:
    """The same of an answer to that request."""
    operation = _operation(request)[1]
    code = str(answer.status_code)
    named = [key for key in (code, f"{code[0]}XX") if key in operation["responses"]]
    assert named, f"{operation['operationId']} does not answer {code}"
    content = _resolve(operation["responses"][named[0]]).get("content")
    if content is None:
        assert not answer.content
    else:
        _validate(json.loads(answer.content), content["application/json"]["schema"])


def _operation(request: httpx.Request) -> tuple[dict[str, Any], dict[str, Any]]:
    path = request.url.path.removeprefix(_BASE)
    # A fixed path before one with a name in it.
    for template, item in sorted(spec()["paths"].items(), key=lambda pair: pair[0].count("{")):
        if re.fullmatch(re.sub(r"\{[^}]+\}", "[^/]+", template), path) and request.method.lower() in item:
            return item, item[request.method.lower()]
    raise AssertionError(f"no such operation: {request.method} {path}")


def _resolve(node: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        found: Any = spec()
        for step in node["$ref"].split("/")[1:]:
            found = found[step]
        node = found
    return node


def _typed(value: str, schema: dict[str, Any]) -> Any:
    if schema.get("type") == "integer":
        return int(value)
    return value == "true" if schema.get("type") == "boolean" and value in {"true", "false"} else value


def _validate(value: Any, schema: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator({**schema, "components": spec()["components"]}).validate(value)
