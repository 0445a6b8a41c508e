"""From what the API said to what the user can do about it."""

from __future__ import annotations

import re

from runner.config import FLY_API_TOKEN
from runner.errors import ProviderError
from runner.ids import MachineId
from runner.providers.base import MachineSpec, provider_error
from runner.providers.fly.errors import FlyError, Kind
from runner.providers.fly.guest import SIZES

_PERMANENT = frozenset({Kind.UNAUTHORIZED, Kind.FORBIDDEN, Kind.INVALID, Kind.NAME_TAKEN})
_IMAGE = re.compile(r"\b(image|manifest|registry|docker)\b", re.IGNORECASE)
_REGION = re.compile(r"\bregion\b", re.IGNORECASE)
_SIZE = re.compile(r"\b(guest|cpus?|cpu_kind|memory(_mb)?|size)\b", re.IGNORECASE)


def explain(
    phase: str,
    name: MachineSpec | MachineId | str,
    error: FlyError,
    *,
    app: str,
    image: str = "",
    regions: str = "",
    size: str = "",
    log_lines: tuple[str, ...] = (),
) -> ProviderError:
    """A ProviderError that says which thing was refused and what to do."""
    advice = advise(error, app=app, image=image, regions=regions, size=size)
    is_missing_app = phase == "create" and error.kind is Kind.NOT_FOUND
    is_late = error.kind is Kind.DEADLINE and phase not in {"create", "boot"}
    if is_late or (error.kind is Kind.NOT_FOUND and not is_missing_app):
        advice = ""
    return provider_error(
        phase,
        name,
        f"Fly: {error}",
        advice=advice,
        log_lines=log_lines,
        is_permanent=error.kind in _PERMANENT or is_missing_app,
        is_capacity=error.kind is Kind.CAPACITY,
    )


def advise(error: FlyError, *, app: str, image: str = "", regions: str = "", size: str = "") -> str:
    """What to do next; empty where nothing but trying again would help."""
    match error.kind:
        case Kind.UNAUTHORIZED:
            return f"the token is wrong or expired; make one with `fly tokens create org` and set {FLY_API_TOKEN}"
        case Kind.FORBIDDEN:
            return (
                f"the token does not allow it for app {app!r}, or the app is another organisation's; "
                f"use a token of its organisation or another app name"
            )
        case Kind.NOT_FOUND if image and _IMAGE.search(error.text):
            return _advise_invalid(error.text, image=image, regions="", size="")
        case Kind.NOT_FOUND:
            return (
                f"app {app!r} does not exist or the token does not see it; create it with `fly apps create {app}` "
                f"or set provider_options org=..."
            )
        case Kind.NAME_TAKEN:
            return f"app names are unique over all of Fly; choose another name than {app!r}"
        case Kind.CAPACITY:
            return "name more regions=[...] or sizes=[...] to fall back to, ask for less, or try again later"
        case Kind.UNREACHABLE | Kind.SERVER | Kind.INTERRUPTED | Kind.TIMEOUT:
            return "see status.flyio.net, and FLY_FLAPS_BASE_URL if another server was meant"
        case Kind.RATE_LIMITED | Kind.DEADLINE:
            return "allow a longer boot_deadline_s, or ask for fewer machines at once: Fly admits about one create a second"
        case Kind.INVALID:
            return _advise_invalid(error.text, image=image, regions=regions, size=size)
    return ""


def _advise_invalid(text: str, *, image: str, regions: str, size: str) -> str:
    if image and (image in text or _IMAGE.search(text)):
        return f"check that image {image!r} exists and that Fly may pull it (at most 8 GB)"
    if regions and _REGION.search(text):
        return f"check regions={regions}; `fly platform regions` lists them"
    if size and _SIZE.search(text):
        return f"check size {size!r}; known are: {', '.join(SIZES)}"
    return "the request cannot work as it is; check provider_options"
