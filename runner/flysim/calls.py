"""One request as the rules see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from runner.flysim.answers import bad_request, machine_not_found
from runner.flysim.cloud import Cloud
from runner.flysim.records import App, Machine
from runner.flysim.states import State


@dataclass(slots=True)
class Call:
    """A request: path parameters, query (each name with all its values), JSON body, headers in lower case."""

    path: Mapping[str, str]
    query: Mapping[str, list[str]] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    org: str = ""  # of the token, set by the gate

    def first(self, name: str, default: str = "") -> str:
        """The first value of a query parameter."""
        return (self.query.get(name) or [default])[0]

    def all(self, name: str) -> list[str]:
        """The values of a parameter that is repeated or a comma list. [1.2 wait]"""
        return [word for value in self.query.get(name, []) for word in value.split(",") if word]

    def is_true(self, name: str) -> bool:
        return self.first(name).lower() in ("true", "1")

    def text(self, name: str) -> str:
        """A string of the body that has to be there. [1.3 codes: 400]"""
        value = self.body.get(name)
        if not isinstance(value, str) or not value:
            raise bad_request(f"{name} is required")
        return value

    def app(self, cloud: Cloud) -> App:
        """The app of the path; the gate has looked whether the caller may see it."""
        return cloud.apps[self.path["app_name"]]

    def machine(self, cloud: Cloud) -> Machine:
        """The machine of the path; 404 too early and too late. [0.5, 1.5 states]"""
        machine = cloud.machines.get(self.path["machine_id"])
        if machine is None or machine.app != self.path["app_name"] or not is_visible(cloud, machine):
            raise machine_not_found()
        return machine


def is_visible(cloud: Cloud, machine: Machine) -> bool:
    """Not yet for a moment after create, and no more a while after destroy. [0.5, 1.5 states]"""
    if cloud.now_s < machine.visible_s:
        return False
    if machine.state is State.DESTROYED:
        return cloud.now_s < machine.destroyed_s + cloud.settings.destroyed_visible_s
    return True
