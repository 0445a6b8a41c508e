"""Records as the API shows them."""

from __future__ import annotations

from typing import Any

from runner.flysim.cloud import Cloud
from runner.flysim.lifecycle import private_ip
from runner.flysim.records import App, Machine, Volume


def machine_view(cloud: Cloud, machine: Machine) -> dict[str, Any]:
    """The machine object. Its configuration is incomplete while its host is not ok. [1.4 machine]"""
    config = {**machine.config, "metadata": dict(machine.metadata)}
    shown = {
        "id": machine.machine_id,
        "name": machine.name,
        "state": machine.state.value,
        "region": machine.region,
        "instance_id": machine.instance_id,
        "version": machine.instance_id,
        "private_ip": private_ip(cloud, machine),
        "config": config,
        "image_ref": image_view(machine.config["image"]),
        "created_at": cloud.iso(machine.created_s),
        "updated_at": cloud.iso(machine.updated_s or machine.created_s),
        "events": [dict(event) for event in machine.events[:20]],
        "checks": [],
        "host_status": machine.host.status,
        "cordoned": machine.is_cordoned,
    }
    if machine.host.status != "ok":
        shown["incomplete_config"] = config
        del shown["config"]
    return shown


def image_view(image: str) -> dict[str, Any]:
    """An image reference in its parts. [1.4 machine: image_ref]"""
    rest, _, digest = image.partition("@")
    registry, slash, repository = rest.partition("/")
    if not slash or not ("." in registry or ":" in registry):
        registry, repository = "docker-hub-mirror.fly.io", rest
    name, _, tag = repository.partition(":")
    return {"registry": registry, "repository": name, "tag": tag or ("" if digest else "latest"), "digest": digest}


def app_view(cloud: Cloud, app: App) -> dict[str, Any]:
    """The app object. [1.2 apps]"""
    return {
        "id": app.app_id,
        "name": app.name,
        "machine_count": len([each for each in cloud.machines_of(app.name) if each.destroyed_s == 0.0]),
        "network": app.network,
        "organization": {"name": app.org, "slug": app.org},
        "status": "deployed" if cloud.machines_of(app.name) else "pending",
    }


def volume_view(cloud: Cloud, volume: Volume) -> dict[str, Any]:
    """The volume object. [1.2 volumes]"""
    return {
        "id": volume.volume_id,
        "name": volume.name,
        "state": "created",
        "region": volume.region,
        "zone": volume.host.name,
        "size_gb": volume.size_gb,
        "encrypted": True,
        "attached_machine_id": volume.machine_id or None,
        "created_at": cloud.iso(volume.created_s),
        "host_status": volume.host.status,
    }
