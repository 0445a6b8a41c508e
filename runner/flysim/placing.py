"""Where machines go: regions, hosts, room; and how the API says that there is none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner.flysim.answers import NO_CAPACITY, ApiError, bad_request
from runner.flysim.cloud import Cloud
from runner.flysim.records import Host, Machine
from runner.flysim.states import HOLDS_PLACE

_CONTINENTS = {
    "na": ("iad", "ord", "ewr", "dfw", "lax", "sjc", "sea", "yyz"),
    "eu": ("ams", "fra", "cdg", "lhr", "arn", "mad"),
    "us": ("iad", "ord", "ewr", "dfw", "lax", "sjc", "sea"),
}


def regions_for(cloud: Cloud, wanted: str | None) -> list[str]:
    """The regions to try, in order: a code, an alias (`na`, `eu`, `us`, `any`), or a list of them. [1.2 create, region]

    An unknown one is a 400; its words are unconfirmed.
    """
    known = [region.code for region in cloud.settings.regions]
    found: list[str] = []
    for word in (wanted or "any").split(","):
        name = word.strip()
        if name == "any":
            found += known
        elif name in known:
            found.append(name)
        elif name in _CONTINENTS:
            found += [code for code in known if code in _CONTINENTS[name]]
        else:
            raise bad_request(f"region {name!r} not found")
    return list(dict.fromkeys(found))


def room_on(cloud: Cloud, host: Host, memory_mb: int) -> int:
    """How many more machines of this memory fit there. [1.3 capacity]"""
    if host.status != "ok":
        return 0
    there = cloud.machines_on(host)
    free_mb = host.memory_mb - sum(machine.memory_mb for machine in there)
    return max(0, min(host.room - len(there), free_mb // memory_mb))


def place(cloud: Cloud, regions: list[str], config: Mapping[str, Any], host: Host | None) -> Host:
    """The host for a new machine: the emptiest of the first region with room, or the one that its volume is on. [1.2 volumes, 1.3 capacity]"""
    memory_mb = int(config["guest"]["memory_mb"])
    check_quota(cloud)
    if host is not None:
        if room_on(cloud, host, memory_mb) == 0:
            raise no_capacity(cloud, has_volume=True)
        return host
    for region in regions:
        rooms = [(room_on(cloud, each, memory_mb), each) for each in cloud.hosts if each.region == region]
        room, best = max(rooms, key=lambda pair: pair[0], default=(0, None))
        if room and best is not None:
            return best
    raise no_capacity(cloud, has_volume=False)


def check_quota(cloud: Cloud) -> None:
    """The fourth face of "no": the organisation's quota. [1.3 capacity: 403]"""
    quota = cloud.settings.machines_quota
    if quota and sum(machine.state in HOLDS_PLACE for machine in cloud.machines.values()) >= quota:
        raise ApiError(403, f"You are over the allowed quota of {quota} machines", NO_CAPACITY)


def no_capacity(cloud: Cloud, *, has_volume: bool) -> ApiError:
    """A full region or host, in the form that the settings choose. [1.3 capacity: five faces]"""
    if has_volume:
        return ApiError(422, "insufficient resources to create new machine with existing volume", NO_CAPACITY)
    face = cloud.settings.capacity_face
    if face == "mixed":
        face = cloud.dice.stream("capacity_face").choice(("412", "409", "403"))
    if face == "409":
        text = "aborted: could not reserve resource for machine: insufficient memory available to fulfill request"
        return ApiError(409, text, NO_CAPACITY)
    if face == "403":
        return ApiError(403, "You are over the allowed quota", NO_CAPACITY)
    return ApiError(412, "insufficient resources available to fulfill request", NO_CAPACITY)


def volume_without_capacity() -> ApiError:
    """What createVolume says where no host has room. [1.3 capacity: 400]"""
    return ApiError(400, "no capacity", NO_CAPACITY)


def check_room_to_start(cloud: Cloud, machine: Machine) -> None:
    """A machine that gave its place back gets it on its own host or not at all. [1.3 capacity: 412, 1.7 capacity]"""
    if machine.state not in HOLDS_PLACE and room_on(cloud, machine.host, machine.memory_mb) == 0:
        raise ApiError(412, "insufficient resources available to fulfill request", NO_CAPACITY)


def placements(cloud: Cloud, body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How many of `count` machines of this `compute` each region would take. [1.2 placements]"""
    memory_mb = int((body.get("compute") or {}).get("memory_mb") or 256)
    wanted = int(body.get("count") or 1)
    answer = []
    for region in regions_for(cloud, body.get("region")):
        room = sum(room_on(cloud, host, memory_mb) for host in cloud.hosts if host.region == region)
        if room:
            answer.append({"Region": region, "Count": min(room, wanted), "Concurrency": min(room, wanted)})
    return answer


def regions_view(cloud: Cloud, memory_mb: int) -> dict[str, Any]:
    """The regions with their room. The keys are those of the published types. [1.2 platform/regions]"""
    regions = [
        {
            "code": region.code,
            "name": region.code.upper(),
            "capacity": sum(room_on(cloud, host, memory_mb) for host in cloud.hosts if host.region == region.code),
            "gateway_available": False,
            "requires_paid_plan": False,
            "deprecated": False,
        }
        for region in cloud.settings.regions
    ]
    return {"Regions": regions, "Nearest": regions[0]["code"]}
