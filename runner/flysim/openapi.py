"""Holds requests and answers to an OpenAPI 3.1 description: a small validator for tests of clients, and for the simulator itself."""

from __future__ import annotations

import functools
import importlib.resources
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import yaml
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

_METHODS = ("get", "put", "post", "delete", "patch")
_ROOT = "urn:description"


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path."""

    name: str  # operationId
    method: str  # upper case
    path: str  # with {parameters}, without the version in front
    pattern: re.Pattern[str]
    parameters: tuple[Mapping[str, Any], ...]
    body: Mapping[str, Any] | None
    responses: Mapping[str, Mapping[str, Any]]
    query_patterns: tuple[str, ...]

    @property
    def is_change(self) -> bool:
        return self.method != "GET"


class Description:
    """A description and its questions. Paths are given without the server's prefix (`/v1`)."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        resource: Resource[Any] = Resource.from_contents(document, default_specification=DRAFT202012)
        self._registry: Registry[Any] = Registry().with_resource(_ROOT, resource)
        # By identity: the document lives as long as this object, and its schemas are looked up in it again and again.
        self._validators: dict[int, jsonschema.Draft202012Validator] = {}
        self.operations: dict[str, Operation] = {each.name: each for each in self._read_operations()}

    @classmethod
    def load(cls, path: Path | None = None) -> Description:
        """From this file; by default runner's description of Fly Machines."""
        if path is None:
            text = importlib.resources.files("runner.providers.fly").joinpath("openapi.yaml").read_text("utf-8")
        else:
            text = path.read_text("utf-8")
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as quick, where it is there
        return cls(yaml.load(text, loader))  # noqa: S506  both are safe

    def find(self, method: str, path: str) -> tuple[Operation, dict[str, str]] | None:
        """The operation that serves this call, with its path parameters."""
        for operation in self.operations.values():
            match = operation.pattern.fullmatch(path) if operation.method == method.upper() else None
            if match is not None:
                return operation, match.groupdict()
        return None

    def request_faults(
        self,
        operation: Operation,
        query: Mapping[str, list[str]],
        headers: Mapping[str, str],
        body: Any,
        *,
        has_body: bool,
    ) -> list[str]:
        """What of a request breaks the description, in words; header names in lower case."""
        faults = list(self._query_faults(operation, query))
        needed = [each["name"] for each in operation.parameters if each["in"] == "header" and each.get("required")]
        faults += [f"header {name} is required" for name in needed if name.lower() not in headers]
        if operation.body is None:
            if has_body:
                faults.append("no body is expected")
        elif has_body:
            faults += self._schema_faults(_json_schema(operation.body), body, "body")
        elif operation.body.get("required"):
            faults.append("a body is required")
        return faults

    def answer_faults(self, operation: Operation, status: int, body: Any, *, has_body: bool) -> list[str]:
        """What of an answer breaks the description, in words."""
        response = operation.responses.get(str(status)) or operation.responses.get(f"{status // 100}XX")
        if response is None:
            return [f"status {status} is not listed"]
        schema = _json_schema(response)
        if schema is None:
            return ["no body is expected"] if has_body else []
        if not has_body:
            return [] if schema in (True, {}) else ["a body is expected"]
        return self._schema_faults(schema, body, "body")

    # ---- reading ----
    def _read_operations(self) -> Iterator[Operation]:
        for path, item in self._document["paths"].items():
            shared = [self._resolve(each) for each in item.get("parameters", [])]
            for method in _METHODS:
                if method not in item:
                    continue
                own = item[method]
                responses = {code: self._resolve(each) for code, each in own["responses"].items()}
                yield Operation(
                    name=own["operationId"],
                    method=method.upper(),
                    path=path,
                    pattern=re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(path))),
                    parameters=(*shared, *(self._resolve(each) for each in own.get("parameters", []))),
                    body=self._resolve(own["requestBody"]) if "requestBody" in own else None,
                    responses=responses,
                    query_patterns=tuple(own.get("x-query-patterns", ())),
                )

    def _resolve(self, node: Mapping[str, Any]) -> Mapping[str, Any]:
        found: Any = node
        while "$ref" in found:
            steps = found["$ref"].removeprefix("#/").split("/")
            found = functools.reduce(lambda at, step: at[step], steps, self._document)
        assert isinstance(found, Mapping)
        return found

    # ---- checking ----
    def _query_faults(self, operation: Operation, query: Mapping[str, list[str]]) -> Iterator[str]:
        known = {each["name"]: each for each in operation.parameters if each["in"] == "query"}
        for name, parameter in known.items():
            if parameter.get("required") and name not in query:
                yield f"query parameter {name} is required"
        for name, values in query.items():
            if name in known:
                schema = known[name].get("schema", True)
                for value in values:
                    yield from self._schema_faults(schema, _coerced(schema, value), f"query parameter {name}")
            elif not any(re.search(pattern, name) for pattern in operation.query_patterns):
                yield f"query parameter {name} is unknown"

    def _schema_faults(self, schema: Any, value: Any, where: str) -> list[str]:
        validator = self._validators.get(id(schema))
        if validator is None:
            validator = jsonschema.Draft202012Validator(_rooted(schema), registry=self._registry)
            self._validators[id(schema)] = validator
        found = sorted(validator.iter_errors(value), key=lambda error: [str(step) for step in error.absolute_path])
        return [f"{'.'.join([where, *map(str, error.absolute_path)])}: {error.message}" for error in found]


def _json_schema(holder: Mapping[str, Any]) -> Any:
    content = holder.get("content", {}).get("application/json")
    return None if content is None else content.get("schema", True)


def _rooted(schema: Any) -> Any:
    """The schema with its references made to those of the whole description."""
    if isinstance(schema, Mapping):
        return {
            key: f"{_ROOT}{value}" if key == "$ref" and isinstance(value, str) and value[0] == "#" else _rooted(value)
            for key, value in schema.items()
        }
    return [_rooted(each) for each in schema] if isinstance(schema, list) else schema


def _coerced(schema: Any, text: str) -> Any:
    """What a query's text means for this schema; the text itself where it means nothing."""
    if schema is True:
        return text
    if schema.get("type") == "integer" and re.fullmatch(r"-?\d+", text):
        return int(text)
    if schema.get("type") == "boolean" and text in ("true", "false"):
        return text == "true"
    return text
