"""Calls about what hangs on an app: secrets, addresses, deploy tokens; and processes of a machine. Kept, hardly acted on."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Any

from runner.flysim.answers import OK, Answer, ApiError, bad_request
from runner.flysim.calls import Call
from runner.flysim.cloud import Cloud, Token


def create_deploy_token(cloud: Cloud, call: Call) -> Answer:
    """A token for this app alone; it does not expire by time here. [1.1 token]"""
    app = call.app(cloud)
    text = f"fm2_simdeploy{cloud.dice.hex('deploy_token', 32)}"
    cloud.tokens[text] = Token(app.org, app=app.name)
    return Answer(201, {"token": f"FlyV1 {text}"})


def list_secrets(cloud: Cloud, call: Call) -> Answer:
    """Names and digests, never values. [1.2 secrets]"""
    secrets = call.app(cloud).secrets
    shown = [
        {"name": name, "digest": hashlib.sha256(value.encode()).hexdigest()[:16]} for name, value in secrets.items()
    ]
    return Answer(200, {"secrets": shown})


def set_secret(cloud: Cloud, call: Call) -> Answer:
    """For files of machines that name it; base64, as those decode it. [1.2 secrets; 1.4 files]"""
    app, value = call.app(cloud), call.text("value")
    try:
        base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise bad_request("the value of a secret must be base64") from None
    app.secrets[call.path["secret_name"]] = value
    app.secrets_version += 1
    return Answer(201, {"version": app.secrets_version})


def delete_secret(cloud: Cloud, call: Call) -> Answer:
    """404 where there is none. [1.2 secrets]"""
    app = call.app(cloud)
    if app.secrets.pop(call.path["secret_name"], None) is None:
        raise ApiError(404, f"secret {call.path['secret_name']} not found")
    app.secrets_version += 1
    return Answer(200, {"version": app.secrets_version})


def list_ips(cloud: Cloud, call: Call) -> Answer:
    """The app's addresses. No proxy listens on them. [1.6 6PN]"""
    return Answer(200, {"ips": call.app(cloud).ips})


def assign_ip(cloud: Cloud, call: Call) -> Answer:
    """An address of the wanted kind from ranges that are for documentation. [1.6 6PN]"""
    app, kind = call.app(cloud), call.text("type")
    number = cloud.dice.stream("ip").randrange(1, 255)
    address = f"203.0.113.{number}" if kind in ("v4", "shared_v4") else f"2001:db8::{number:x}"
    ip: dict[str, Any] = {"ip": address, "shared": kind == "shared_v4", "created_at": cloud.iso(cloud.now_s)}
    if call.body.get("region"):
        ip["region"] = call.body["region"]
    app.ips.append(ip)
    return Answer(201, ip)


def release_ip(cloud: Cloud, call: Call) -> Answer:
    """404 where it is not assigned. [1.6 6PN]"""
    app = call.app(cloud)
    kept = [each for each in app.ips if each["ip"] != call.path["ip"]]
    if len(kept) == len(app.ips):
        raise ApiError(404, f"address {call.path['ip']} not found")
    app.ips = kept
    return Answer(200, OK)


def list_processes(cloud: Cloud, call: Call) -> Answer:
    """Of a started machine, its main process; the others are not looked into. [1.2 ps]"""
    machine = call.machine(cloud)
    shown = [{"pid": 1, "command": machine.config["image"]}] if machine.is_alive else []
    return Answer(200, shown)
