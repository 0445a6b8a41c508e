"""No token of Fly's and no join token in any error, log line, repr or note."""

from __future__ import annotations

import base64
import logging
import traceback
from pathlib import Path
from typing import Any

import httpx
import msgpack
import pytest

from runner.errors import ProviderError
from runner.providers.fly.connection import Token
from runner.providers.fly.creating import candidates, machine_config
from runner.providers.fly.options import parse_options
from runner.providers.fly.provider import FlyProvider
from tests.unit.providers.fly.scripted import (
    ID,
    JOIN_TOKEN,
    MACHINES,
    TOKEN,
    Answer,
    ScriptedFly,
    machine,
    make_spec,
    refused,
)
from tests.unit.providers.fly.test_boot import CREATE, DELETE, GET, LIST, WAIT, with_provider

SECOND = "fm2_anothersecretpart"
TOKENS = f"{TOKEN},{SECOND}"


def packed_boot() -> str:
    options = parse_options({"app": "fleet", "image": "i", "token": TOKEN})
    spec = make_spec()
    config = machine_config(spec, options, candidates(spec, options)[0], host_id="h", volume=None)
    boot = str(config.raw["env"]["RUNNER_BOOT"])
    assert JOIN_TOKEN in str(msgpack.unpackb(base64.b64decode(boot)))
    return boot


def echo(request: httpx.Request) -> Answer:
    """A server that repeats in its error all that it was sent."""
    return refused(
        422, f"bad request: {request.headers['authorization']} {SECOND} {request.content.decode()}", is_strange=True
    )


def broken(request: httpx.Request) -> Exception:
    return httpx.LocalProtocolError(f"Illegal header value b'{request.headers['authorization']}'")


FACES: list[Any] = [
    echo,
    broken,
    Answer(500, f"<html>{TOKEN} {TOKENS}</html>", is_strange=True),
    refused(401, f"token {TOKENS} is expired"),
    refused(403, f"{TOKEN} over the allowed quota"),
    refused(409, f"already_exists: {ID} by {TOKEN}", is_strange=True),
    Answer(200, f"not json {TOKEN}", is_strange=True),
]


@pytest.mark.parametrize("face", FACES, ids=range(len(FACES)))
def test_no_secret_in_errors_logs_and_notes(face: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    spoken: list[str] = []
    raw = machine()
    raw["config"] = {**raw["config"], "env": {"RUNNER_BOOT": packed_boot()}}
    fly = ScriptedFly().on(CREATE, face).on(LIST, face).on(GET, face).on(DELETE, face).on(WAIT, face)
    fly.on("GET /apps/fleet", face)

    async def work(provider: FlyProvider) -> None:
        spec = make_spec()
        calls = [
            lambda: provider.create(spec),
            lambda: provider.prepare([]),
            lambda: provider.get(spec.machine_id),
            lambda: provider.list(spec.cluster_id),
            lambda: provider.destroy(spec.machine_id),
        ]
        for call in calls:
            try:
                spoken.append(repr(await call()))
            except ProviderError as error:
                spoken.extend([str(error), repr(error), "".join(traceback.format_exception(error))])
        spoken.extend([repr(provider), repr(vars(provider)), repr(provider._options), repr(spec)])
        spoken.extend(await provider.logs(spec.machine_id))

    with_provider(fly, tmp_path, work, token=TOKENS, boot_deadline_s=5, destroy_deadline_s=5, lag_s=1)
    spoken.extend(record.getMessage() for record in caplog.records)
    spoken.extend(path.read_text() for path in tmp_path.glob("*"))
    everything = "\n".join(spoken)
    assert len(everything) > 500
    for secret in (TOKEN, SECOND, JOIN_TOKEN, packed_boot()[:60]):
        assert secret not in everything


def test_no_secret_in_reprs() -> None:
    token = Token(TOKENS)
    options = parse_options({"app": "fleet", "image": "i", "token": TOKENS, "env": {"HF_TOKEN": "hf_secret"}})
    text = f"{token} {token!r} {[token]} {options!r} {options}"
    assert not any(secret in text for secret in (TOKEN, SECOND, "hf_secret"))


def test_the_echoing_server_really_has_the_secrets() -> None:
    """Else the test above would show nothing."""
    request = httpx.Request("POST", f"https://x/v1{MACHINES}", json={"a": JOIN_TOKEN}, headers={"authorization": TOKEN})
    text = echo(request).body["error"]
    assert TOKEN in text and JOIN_TOKEN in text
