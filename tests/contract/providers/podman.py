"""A stand-in for Podman with a working CRIU: its API as far as provider `container` uses it, with containers that are only records.

What the real one answers to the same requests where CRIU does not work was seen with Podman 4.3.1; see docs/suspend.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from runner.ids import ClusterId, MachineId, random_id
from runner.providers.base import Provider
from runner.providers.container.images import client_python
from runner.providers.container.options import parse
from runner.providers.container.provider import ContainerProvider
from runner.providers.container.recipe import container_name
from runner.providers.registry import Place
from runner.rpc.version import PROTOCOL

CRIU = """#!/bin/sh
if [ "$1" = --version ]; then echo "Version: 4.2"; exit 0; fi
if [ "$1" = check ]; then echo "Looks good."; exit 0; fi
exit 64
"""


@dataclass
class Container:
    container_id: str
    name: str
    labels: dict[str, str]
    status: str = "created"
    memory: int = 0  # what a checkpoint saves
    output: asyncio.StreamWriter | None = None


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, str]
    body: bytes


@dataclass
class StandIn:
    """The engine. `seen` are checkpoints and restores; `refuses` has their error, `cuts` ends an answer half way."""

    containers: dict[str, Container] = field(default_factory=dict)
    seen: list[Request] = field(default_factory=list)
    refuses: str = ""
    cuts: bool = False
    watchers: list[asyncio.StreamWriter] = field(default_factory=list)
    connections: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = field(default_factory=dict)
    serial: itertools.count[int] = field(default_factory=itertools.count)

    def kill(self, name: str) -> None:
        """As its main process would end by SIGKILL."""
        container = self.containers.pop(name)
        if container.output is not None:
            container.output.close()
        event = {"Action": "die", "Actor": {"ID": container.container_id, "Attributes": {"containerExitCode": "137"}}}
        for watcher in self.watchers:
            watcher.write(json.dumps(event).encode() + b"\n")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: requests until it ends, or one that is a stream."""
        self.connections[writer] = asyncio.current_task()
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await self._serve_one(reader, writer):
                pass
        writer.close()
        del self.connections[writer]

    async def close(self) -> None:
        """End what is open."""
        serving = [each for each in self.connections.values() if each is not None]
        for writer in [*self.connections]:
            writer.close()
        if serving:
            await asyncio.wait(serving)

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        method, target, _ = head[0].split()
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        split = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(split.query).items()}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        parts = [unquote(each) for each in split.path.strip("/").split("/")]
        if parts[0].startswith("v") and parts[0][1].isdigit():
            parts = parts[1:]
        if parts == ["events"]:
            writer.write(b"HTTP/1.0 200 OK\r\n\r\n")
            self.watchers.append(writer)
            await reader.read()
            return False
        if parts[-1] == "attach":
            writer.write(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
            if (container := self._find(parts[1])) is not None:
                container.output = writer
            await reader.read()
            return False
        status, answer = self._answer(Request(method, "/".join(parts), query, body), parts)
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        size = len(content) + (self.cuts and parts[-1] == "checkpoint")
        kind = "application/x-tar" if isinstance(answer, bytes) else "application/json"
        writer.write(
            f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {size}\r\n\r\n".encode() + content
        )
        await writer.drain()
        return size == len(content)

    def _answer(self, request: Request, parts: list[str]) -> tuple[int, Any]:
        if parts == ["version"]:
            return 200, {"ApiVersion": "1.41", "Version": "4.9", "Components": [{"Name": "Podman Engine"}]}
        if parts == ["info"]:
            return 200, {"MemTotal": 8 << 30, "SecurityOptions": ["name=seccomp,profile=default"]}
        if parts[0] == "images":
            labels = {"runner.python": client_python(), "runner.protocol": str(PROTOCOL)}
            return 200, {"Id": "sha256:1", "Config": {"Labels": labels}}
        if parts[0] == "libpod":
            self.seen.append(request)
            return self._libpod(request, parts[2], parts[3])
        if parts == ["containers", "create"]:
            return self._create(request)
        if parts == ["containers", "json"]:
            label = json.loads(request.query["filters"])["label"][0]
            shown = [each for each in self.containers.values() if label in {f"{k}={v}" for k, v in each.labels.items()}]
            return 200, [{"Id": each.container_id, "Labels": each.labels, "State": each.status} for each in shown]
        container = self._find(parts[1])
        if container is None:
            return 404, {"message": f"no such container {parts[1]}"}
        return self._one(request, container, parts[2:])

    def _create(self, request: Request) -> tuple[int, Any]:
        name = request.query["name"]
        if name in self.containers:
            return 409, {"message": f"the name {name} is already in use"}
        made = Container(f"{next(self.serial):064x}", name, json.loads(request.body)["Labels"])
        self.containers[name] = made
        return 201, {"Id": made.container_id, "Warnings": []}

    def _one(self, request: Request, container: Container, below: list[str]) -> tuple[int, Any]:
        if request.method == "DELETE":
            self.kill(container.name)
            return 204, b""
        if below == ["json"]:
            state = {"Status": container.status, "Running": container.status == "running"}
            return 200, {"Id": container.container_id, "State": state, "Config": {"Labels": container.labels}}
        if below == ["start"]:
            container.status = "running"
        return 204, b""  # start, archive

    def _libpod(self, request: Request, name: str, what: str) -> tuple[int, Any]:
        if self.refuses:
            return 500, {"cause": "CRIU", "message": self.refuses, "response": 500}
        if what == "restore":
            saved = Container(**json.loads(request.body))
            if saved.name in self.containers:
                return 409, {"message": f"the name {saved.name} is already in use"}
            self.containers[saved.name] = saved
            return 200, {"Id": saved.container_id}
        container = self._find(name)
        if container is None or container.status != "running":
            return 500, {"message": f"container {name} is not running"}
        fields = {"container_id": container.container_id, "name": container.name, "labels": container.labels}
        return 200, json.dumps(fields | {"status": "running", "memory": container.memory}).encode()

    def _find(self, name_or_id: str) -> Container | None:
        return next((each for each in self.containers.values() if name_or_id in (each.name, each.container_id)), None)


class PodmanHarness:
    """Provider `container` on it, for the contract suite."""

    def __init__(self, engine: StandIn, socket: str, folder: Path, cluster_id: ClusterId | None = None) -> None:
        self.cluster_id = cluster_id or ClusterId(random_id("c"))
        self.engine = engine
        self.snapshots = folder / "snapshots"
        options = {"socket": socket, "image": "runner-worker:1"}
        place = Place(self.cluster_id, True, options, folder / "logs", str(folder), str(folder), "this-host")
        self.made = ContainerProvider(parse(options), place)
        self.provider: Provider = self.made

    def container(self, name: MachineId) -> Container:
        return self.engine.containers[container_name(self.cluster_id, name)]

    async def end_machine(self, name: MachineId) -> None:
        self.engine.kill(container_name(self.cluster_id, name))

    def running(self, name: MachineId) -> int:
        found = self.engine.containers.get(container_name(self.cluster_id, name))
        return int(found is not None and found.status == "running")

    def left_over(self) -> list[str]:
        files = [str(path) for path in self.snapshots.glob("*")] if self.snapshots.exists() else []
        return [*self.engine.containers, *files]


@asynccontextmanager
async def running_podman(folder: Path, patch: pytest.MonkeyPatch) -> AsyncIterator[tuple[StandIn, str]]:
    """The stand-in and its address; the `criu` that is found says that it works."""
    engine = StandIn()
    (folder / "bin").mkdir()
    (folder / "bin" / "criu").write_text(CRIU)
    (folder / "bin" / "criu").chmod(0o755)
    patch.setenv("PATH", f"{folder}/bin", prepend=os.pathsep)
    server = await asyncio.start_unix_server(engine.serve, folder / "podman.sock")
    try:
        yield engine, f"unix://{folder}/podman.sock"
    finally:
        server.close()
        await engine.close()
