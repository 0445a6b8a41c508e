"""The Machines API as typed calls. Each raises FlyError; `until` gives several calls one deadline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any
from urllib.parse import quote

from runner.providers.fly.connection import Connection, Request
from runner.providers.fly.errors import FlyError, Kind
from runner.providers.fly.guest import Guest
from runner.providers.fly.machines import Machines
from runner.providers.fly.model import App, Placement, Volume


@dataclass(frozen=True)
class FlyApi:
    """What an app's machines are driven through."""

    connection: Connection
    app: str
    deadline_s: float | None = None  # on the loop's clock; None: each call has a minute

    def until(self, deadline_s: float) -> FlyApi:
        """The same, with one deadline for all calls made through it."""
        return replace(self, deadline_s=deadline_s)

    @cached_property
    def machines(self) -> Machines:
        return Machines(self.connection, self.app, self.deadline_s)

    # ---- apps ----
    async def list_apps(self, org: str) -> tuple[App, ...]:
        """The apps of one organisation."""
        answer = await self._call("list_apps", org, "GET", "/apps", params={"org_slug": org})
        apps = answer.get("apps") if isinstance(answer, Mapping) else None
        return tuple(App(each) for each in apps or ())

    async def get_app(self) -> App:
        return App(_object(await self._call("get_app", self.app, "GET", f"/apps/{quote(self.app)}")))

    async def create_app(self, org: str, *, network: str = "") -> App:
        """Create it, or get the one that has the name. FORBIDDEN: another organisation has it.

        `network`: the name of a private network of its own, instead of the organisation's.
        """
        body = {"app_name": self.app, "org_slug": org} | ({"network": network} if network else {})
        try:
            await self._call("create_app", org, "POST", "/apps", body=body, is_repeatable=False)
        except FlyError as error:
            # A lost answer and a taken name look the same from here: the app is there, or it is not.
            if error.kind not in {Kind.NAME_TAKEN, Kind.INVALID, Kind.INTERRUPTED, Kind.TIMEOUT, Kind.SERVER}:
                raise
            try:
                return await self.get_app()
            except FlyError as missing:
                raise error if missing.kind is Kind.NOT_FOUND else missing from None
        return await self.get_app()

    async def delete_app(self, *, force: bool = False) -> None:
        """Delete it with its machines and volumes; one that is gone is no error."""
        params = {"force": "true"} if force else {}
        await self._gone_is_fine("delete_app", "", "DELETE", f"/apps/{quote(self.app)}", params=params)

    # ---- volumes ----
    async def list_volumes(self) -> tuple[Volume, ...]:
        answer = await self._call("list_volumes", self.app, "GET", self._volumes_path)
        return tuple(Volume(each) for each in answer or ())

    async def create_volume(self, name: str, *, region: str, size_gb: int, guest: Guest | None = None) -> Volume:
        """A disk on one host of that region, one with room for a machine like `guest` beside it."""
        body: dict[str, Any] = {"name": name, "region": region, "size_gb": size_gb}
        if guest is not None:
            body["compute"] = guest.to_json()
        answer = await self._call("create_volume", self.app, "POST", self._volumes_path, body=body, is_repeatable=False)
        return Volume(_object(answer))

    async def destroy_volume(self, volume_id: str) -> None:
        """One that is gone is no error."""
        path = f"{self._volumes_path}/{quote(volume_id)}"
        await self._gone_is_fine("destroy_volume", self.app, "DELETE", path)

    # ---- the platform ----
    async def list_regions(self) -> tuple[str, ...]:
        """Codes of the regions that there are."""
        answer = await self._call("list_regions", "", "GET", "/platform/regions")
        regions = _object(answer).get("Regions") or _object(answer).get("regions") or ()
        return tuple(str(each.get("code") or each.get("Code")) for each in regions if isinstance(each, Mapping))

    async def place(self, guest: Guest, count: int, *, region: str = "", org: str = "") -> tuple[Placement, ...]:
        """Where `count` machines like this would find room now; a forecast, not a reservation."""
        body: dict[str, Any] = {"compute": guest.to_json(), "count": count}
        body |= {key: value for key, value in (("region", region), ("org_slug", org)) if value}
        answer = await self._call("place", org, "POST", "/platform/placements", body=body)
        rows: Sequence[Any] = _object(answer).get("Regions") or _object(answer).get("regions") or ()
        return tuple(_placement(row) for row in rows if isinstance(row, Mapping))

    @property
    def _volumes_path(self) -> str:
        return f"/apps/{quote(self.app)}/volumes"

    async def _call(self, action: str, identifier: str, method: str, path: str, **more: Any) -> Any:
        return await self.connection.call(Request(action, identifier, method, path, **more), self.deadline_s)

    async def _gone_is_fine(self, action: str, identifier: str, method: str, path: str, **more: Any) -> None:
        try:
            await self._call(action, identifier, method, path, **more)
        except FlyError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise


def _object(answer: Any) -> Mapping[str, Any]:
    if not isinstance(answer, Mapping):
        raise FlyError(Kind.OTHER, f"the answer is a {type(answer).__name__}; an object was expected")
    return answer


def _placement(row: Mapping[str, Any]) -> Placement:
    lower = {key.lower(): value for key, value in row.items()}
    return Placement(str(lower.get("region")), int(lower.get("count") or 0), int(lower.get("concurrency") or 0))
