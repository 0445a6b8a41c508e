"""Volumes: disks that are tied to one host, and so tie their machines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner.flysim.answers import Answer, ApiError, bad_request
from runner.flysim.calls import Call
from runner.flysim.cloud import Cloud
from runner.flysim.placing import regions_for, room_on, volume_without_capacity
from runner.flysim.records import Machine, Volume
from runner.flysim.views import volume_view


def create_volume(cloud: Cloud, call: Call) -> Answer:
    """On a host of the region that has room for a machine; where none has: 400 `no capacity`. [1.2 volumes, 1.3 capacity: 400]"""
    app, name = call.app(cloud), call.text("name")
    codes = regions_for(cloud, call.body.get("region"))
    size_gb = call.body.get("size_gb") or 3
    hosts = [host for host in cloud.hosts if host.region == codes[0] and room_on(cloud, host, 256)]
    if not hosts:
        raise volume_without_capacity()
    host = max(hosts, key=lambda each: room_on(cloud, each, 256) - len(_volumes_on(cloud, each.name)))
    volume_id = f"vol_{cloud.dice.hex('volume', 16)}"
    volume = Volume(volume_id, app.name, name, host.region, host, int(size_gb), cloud.now_s)
    cloud.volumes[volume_id] = volume
    return Answer(200, volume_view(cloud, volume))


def _volumes_on(cloud: Cloud, host: str) -> list[Volume]:
    return [volume for volume in cloud.volumes.values() if volume.host.name == host]


def list_volumes(cloud: Cloud, call: Call) -> Answer:
    """The volumes of an app. [1.2 volumes]"""
    name = call.app(cloud).name
    return Answer(200, [volume_view(cloud, volume) for volume in cloud.volumes.values() if volume.app == name])


def get_volume(cloud: Cloud, call: Call) -> Answer:
    """One volume. [1.2 volumes]"""
    return Answer(200, volume_view(cloud, find_volume(cloud, call.path["app_name"], call.path["volume_id"])))


def delete_volume(cloud: Cloud, call: Call) -> Answer:
    """Only while no machine mounts it (status of the refusal inferred). [1.2 volumes]"""
    volume = find_volume(cloud, call.path["app_name"], call.path["volume_id"])
    if volume.machine_id:
        raise ApiError(412, f"failed_precondition: volume {volume.volume_id} is attached to {volume.machine_id}")
    del cloud.volumes[volume.volume_id]
    return Answer(200, {**volume_view(cloud, volume), "state": "destroyed"})


def find_volume(cloud: Cloud, app: str, volume_id: str) -> Volume:
    """By id within its app; else 404. [1.2 volumes]"""
    volume = cloud.volumes.get(volume_id)
    if volume is None or volume.app != app:
        raise ApiError(404, f"volume {volume_id} not found")
    return volume


def volume_for(cloud: Cloud, app: str, config: Mapping[str, Any]) -> Volume | None:
    """The free volume that this configuration mounts; None where it mounts none. [1.4 mounts]"""
    for mount in config.get("mounts") or []:
        if not mount.get("volume"):
            raise bad_request("config.mounts: the id of a volume is required")
        volume = find_volume(cloud, app, mount["volume"])
        if volume.machine_id:
            raise ApiError(422, f"volume {volume.volume_id} is already attached to machine {volume.machine_id}")
        return volume
    return None


def attach(cloud: Cloud, volume: Volume, machine: Machine) -> None:
    """One machine per volume. [1.4 mounts]"""
    volume.machine_id = machine.machine_id
    cloud.changes += 1
