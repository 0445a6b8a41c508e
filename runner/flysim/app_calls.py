"""Calls about apps, regions, tokens and organisations."""

from __future__ import annotations

import re
from typing import Any

from runner.flysim.answers import NAME_TAKEN, Answer, ApiError, bad_request
from runner.flysim.calls import Call, is_visible
from runner.flysim.cloud import Cloud
from runner.flysim.lifecycle import begin_destroy
from runner.flysim.placing import placements, regions_view
from runner.flysim.records import App
from runner.flysim.states import State
from runner.flysim.views import app_view, machine_view

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


def list_apps(cloud: Cloud, call: Call) -> Answer:
    """The apps of the token's organisation. [1.2 GET /apps]"""
    wanted = call.first("org_slug", call.org)
    check_org(call, wanted)
    shown = [app_view(cloud, app) for app in cloud.apps.values() if app.org == wanted]
    return Answer(200, {"total_apps": len(shown), "apps": shown})


def create_app(cloud: Cloud, call: Call) -> Answer:
    """201; names are one space for everybody; a taken one is a 422 `name_taken`. [1.2 POST /apps]"""
    name, org = call.text("app_name"), call.text("org_slug")
    check_org(call, org)
    if not _NAME.fullmatch(name):
        raise ApiError(422, f"Validation failed: Name {name!r} may have lower-case letters, digits and dashes only")
    if name in cloud.apps:
        raise ApiError(422, "Validation failed: Name has already been taken", NAME_TAKEN)
    app = App(cloud.dice.hex("app", 16), name, org, str(call.body.get("network") or "default"), cloud.now_s)
    cloud.apps[name] = app
    return Answer(201, {"id": app.app_id, "created_at": int(cloud.unix_s * 1000)})


def get_app(cloud: Cloud, call: Call) -> Answer:
    """One app. [1.2 GET /apps/{app}]"""
    return Answer(200, app_view(cloud, call.app(cloud)))


def delete_app(cloud: Cloud, call: Call) -> Answer:
    """202; its machines and volumes go with it. [1.2 DELETE /apps/{app}]"""
    app = call.app(cloud)
    for machine in cloud.machines_of(app.name):
        if machine.state not in (State.DESTROYING, State.DESTROYED):
            begin_destroy(cloud, machine, source="user")
    for volume_id in [key for key, volume in cloud.volumes.items() if volume.app == app.name]:
        del cloud.volumes[volume_id]
    del cloud.apps[app.name]
    return Answer(202)


def check_org(call: Call, org: str) -> None:
    """A token is of one organisation. [1.1 token]"""
    if org != call.org:
        raise ApiError(403, f"unauthorized: the token has no access to organization {org!r}")


def get_regions(cloud: Cloud, call: Call) -> Answer:
    """Where machines of this size fit. [1.2 platform/regions]"""
    return Answer(200, regions_view(cloud, int(call.first("memory_mb") or 256)))


def post_placements(cloud: Cloud, call: Call) -> Answer:
    """How many would fit where; nothing is reserved. [1.2 placements]"""
    check_org(call, str(call.body.get("org_slug") or call.org))
    return Answer(200, {"Regions": placements(cloud, call.body)})


def current_token(cloud: Cloud, call: Call) -> Answer:
    """What the caller's token is for. [1.2 tokens/current]"""
    token: dict[str, Any] = {"organization": call.org, "org_slug": call.org, "apps": sorted(cloud.apps)}
    return Answer(200, {"tokens": [token]})


def list_org_machines(cloud: Cloud, call: Call) -> Answer:
    """The machines of all apps of an organisation, by pages. [1.2 GET /orgs/{org}/machines]"""
    check_org(call, call.path["org_slug"])
    try:
        limit, begin = int(call.first("limit") or 100), int(call.first("cursor") or 0)
    except ValueError:
        raise bad_request("limit and cursor must be those of an earlier answer") from None
    found = [
        machine
        for machine in cloud.machines.values()
        if machine.app in cloud.apps and cloud.apps[machine.app].org == call.org
        if is_visible(cloud, machine) and (call.is_true("include_deleted") or machine.state is not State.DESTROYED)
        if not call.all("region") or machine.region in call.all("region")
        if not call.all("state") or machine.state.value in call.all("state")
    ]
    page = [{**machine_view(cloud, each), "app_name": each.app} for each in found[begin : begin + limit]]
    more = begin + limit < len(found)
    return Answer(200, {"machines": page, "next_cursor": str(begin + limit) if more else ""})
