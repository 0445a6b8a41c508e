"""Apps, volumes and the platform against hand-written answers, with the rows of facts that they were written from."""

from __future__ import annotations

import pytest

from runner.providers.fly.errors import FlyError, Kind
from runner.providers.fly.guest import Guest
from runner.providers.fly.model import Placement
from tests.unit.providers.fly.scripted import (
    Answer,
    ScriptedFly,
    api_of,
    refused,
    run,
)

GUEST = Guest("performance-1x", "performance", 1, 2048)


def test_an_app_whose_name_is_taken_is_read() -> None:
    """1.2 apps: 422 when the name is taken (retry = GET it); another organisation's is 403."""
    taken = refused(422, "Validation failed: Name has already been taken", "name_taken")
    fly = ScriptedFly().on("POST /apps", taken)
    fly.on("GET /apps/fleet", Answer(200, {"id": "a", "name": "fleet", "organization": {"slug": "acme"}}))

    async def main() -> None:
        assert (await api_of(fly).create_app("acme")).org == "acme"
        fly.on("GET /apps/fleet", refused(403, "forbidden"))
        with pytest.raises(FlyError) as caught:
            await api_of(fly).create_app("acme")
        assert caught.value.kind is Kind.FORBIDDEN
        fly.on("POST /apps", refused(422, "org_slug is unknown")).on("GET /apps/fleet", refused(404, "no app"))
        with pytest.raises(FlyError, match="org_slug is unknown"):
            await api_of(fly).create_app("nobody")

    run(main)


def test_apps_made_listed_and_deleted() -> None:
    fly = ScriptedFly().on("POST /apps", Answer(201, {"id": "a", "created_at": 1}))
    fly.on("GET /apps/fleet", Answer(200, {"id": "a", "name": "fleet"}))
    fly.on("GET /apps", Answer(200, {"total_apps": 1, "apps": [{"id": "a", "name": "fleet"}]}))
    fly.on("DELETE /apps/fleet", Answer(202, {}), refused(404, "gone"))

    async def main() -> None:
        api = api_of(fly)
        assert (await api.create_app("acme", network="own")).name == "fleet"
        assert [app.name for app in await api.list_apps("acme")] == ["fleet"]
        await api.delete_app(force=True)
        await api.delete_app()

    run(main)
    assert fly.seen[0].body == {"app_name": "fleet", "org_slug": "acme", "network": "own"}


def test_volumes() -> None:
    """1.2 volumes: tied to one host; 1.3: createVolume says 400 `no capacity`."""
    row = {"id": "vol_1", "name": "cache", "region": "iad", "state": "created", "attached_machine_id": None}
    fly = ScriptedFly().on("GET /apps/fleet/volumes", Answer(200, [row]))
    fly.on("POST /apps/fleet/volumes", Answer(200, row), refused(400, "no capacity"))
    fly.on("DELETE /apps/fleet/volumes/vol_1", Answer(200, row), refused(404, "gone"))

    async def main() -> None:
        api = api_of(fly)
        assert [volume.is_free for volume in await api.list_volumes()] == [True]
        assert (await api.create_volume("cache", region="iad", size_gb=10, guest=GUEST)).id == "vol_1"
        with pytest.raises(FlyError) as caught:
            await api.create_volume("cache", region="iad", size_gb=10)
        assert caught.value.kind is Kind.CAPACITY
        await api.destroy_volume("vol_1")
        await api.destroy_volume("vol_1")

    run(main)


def test_regions_and_placements() -> None:
    """1.2 platform: {Region, Count, Concurrency} for each region."""
    fly = ScriptedFly().on("GET /platform/regions", Answer(200, {"Regions": [{"code": "iad"}, {"code": "ord"}]}))
    fly.on("POST /platform/placements", Answer(200, {"Regions": [{"Region": "iad", "Count": 40, "Concurrency": 4}]}))

    async def main() -> None:
        api = api_of(fly)
        assert await api.list_regions() == ("iad", "ord")
        assert await api.place(GUEST, 64, region="iad,us", org="acme") == (Placement("iad", 40, 4),)

    run(main)
    assert fly.seen[1].body == {"compute": GUEST.to_json(), "count": 64, "region": "iad,us", "org_slug": "acme"}
