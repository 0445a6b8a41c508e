"""What is refused before the first machine, by options alone or by asking Fly."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from runner import config
from runner.core.values import CPU, UNIT, make_shape
from runner.errors import BadOptionsError, ProviderError
from runner.providers import registry
from runner.providers.base import Wanted
from runner.providers.fly.limits import Rate
from runner.providers.fly.options import CacheVolume, parse_options
from runner.providers.fly.provider import FlyProvider
from tests.unit.providers.fly.scripted import TOKEN, Answer, ScriptedFly, make_spec, refused
from tests.unit.providers.fly.test_boot import with_provider

GOOD = {"app": "fleet", "image": "registry.fly.io/fleet:1", "token": TOKEN}
APP = Answer(200, {"id": "a", "name": "fleet", "organization": {"slug": "acme"}})
NOTHING = config.load({"HOME": "/home/somebody"})


@pytest.fixture
def fly() -> ScriptedFly:
    fly = ScriptedFly().on("GET /apps/fleet", APP)
    fly.on("GET /platform/regions", Answer(200, {"Regions": [{"code": "iad"}, {"code": "ord"}]}))
    return fly.on("POST /platform/placements", Answer(200, {"Regions": [{"Region": "iad", "Count": 40}]}))


def wanted(count: int = 1, *, size: str = "", **amounts: int) -> Wanted:
    return Wanted("default", make_shape({CPU: UNIT} | amounts), size, count, count)


def prepare(fly: ScriptedFly, folder: Path, what: Wanted, **options: Any) -> tuple[str, ...] | ProviderError:
    found: list[Any] = []

    async def work(provider: FlyProvider) -> None:
        try:
            found.append(await provider.prepare([what]))
        except ProviderError as error:
            found.append(error)

    with_provider(fly, folder, work, **options)
    return found[0]


def test_all_is_well(fly: ScriptedFly, tmp_path: Path) -> None:
    assert prepare(fly, tmp_path, wanted(), regions=["iad", "ord,any"], sizes=["performance-1x"]) == ()
    assert fly.calls("POST /platform/placements") == []


def test_gpus_are_refused_in_one_sentence_that_says_who_has_them(fly: ScriptedFly, tmp_path: Path) -> None:
    """0.1."""
    error = prepare(fly, tmp_path, wanted(GPU=UNIT))
    assert isinstance(error, ProviderError) and error.is_permanent
    assert "2026-08-01" in str(error) and "local and container" in str(error)
    assert "\n" not in str(error)
    assert fly.seen == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "[::1]", "0.0.0.0", "::"])
def test_a_coordinator_on_loopback_cannot_be_reached_from_fly(host: str, fly: ScriptedFly, tmp_path: Path) -> None:
    error = prepare(fly, tmp_path, wanted(), coordinator_host=host)
    assert isinstance(error, ProviderError) and error.is_permanent
    assert "runner up --provider fly" in str(error) and "advertise" in str(error)
    assert fly.seen == []


def test_a_simulator_on_this_computer_reaches_it(fly: ScriptedFly, tmp_path: Path) -> None:
    options = {"coordinator_host": "127.0.0.1", "base_url": "http://127.0.0.1:4280"}
    assert prepare(fly, tmp_path, wanted(), **options) == ()


def test_the_address_in_the_boot_is_checked_as_well(fly: ScriptedFly, tmp_path: Path) -> None:
    spec = make_spec()
    object.__setattr__(spec.boot, "coordinator_address", "127.0.0.1:7420")

    async def work(provider: FlyProvider) -> None:
        with pytest.raises(ProviderError, match="cannot reach the coordinator"):
            await provider.create(spec)

    with_provider(fly, tmp_path, work)
    assert fly.seen == []


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (refused(401, "unauthorized"), "wrong or expired"),
        (refused(403, "forbidden"), "another organisation's"),
        (refused(404, "Could not find App"), "app 'fleet' does not exist"),
    ],
)
def test_a_token_or_an_app_that_cannot_be_used(answer: Answer, words: str, fly: ScriptedFly, tmp_path: Path) -> None:
    error = prepare(fly.on("GET /apps/fleet", answer), tmp_path, wanted())
    assert isinstance(error, ProviderError) and error.is_permanent
    assert str(error).startswith("provider 'fly' cannot be used: app 'fleet': Fly: ")
    assert words in str(error) and "fly-request-id" in str(error)


def test_a_fly_that_does_not_answer_is_a_passing_error(fly: ScriptedFly, tmp_path: Path) -> None:
    """It comes before a client gives up its coordinator, so that people hear why."""
    found: list[ProviderError] = []

    async def work(provider: FlyProvider) -> None:
        with pytest.raises(ProviderError) as caught:
            await provider.prepare([wanted()])
        found.append(caught.value)

    took_s = with_provider(fly.on("GET /apps/fleet", refused(503, "down")), tmp_path, work)
    assert took_s < 25
    assert not found[0].is_permanent
    assert "https://api.machines.dev does not answer" in str(found[0]) and "503: down" in str(found[0])


def test_an_app_is_made_where_an_organisation_is_named(fly: ScriptedFly, tmp_path: Path) -> None:
    """1.2 apps."""
    fly.on("GET /apps/fleet", refused(404, "no app"), APP).on("POST /apps", Answer(201, {"id": "a"}))
    assert prepare(fly, tmp_path, wanted(), org="acme") == ()
    assert fly.calls("POST /apps")[0].body == {"app_name": "fleet", "org_slug": "acme"}


def test_a_region_that_does_not_exist(fly: ScriptedFly, tmp_path: Path) -> None:
    error = prepare(fly, tmp_path, wanted(), regions=["iad", "xyz"])
    assert isinstance(error, ProviderError) and error.is_permanent
    assert "no region xyz" in str(error) and "iad, ord" in str(error)


def test_a_size_that_does_not_exist(fly: ScriptedFly, tmp_path: Path) -> None:
    error = prepare(fly, tmp_path, wanted(size="performance-3x"))
    assert isinstance(error, ProviderError) and error.is_permanent
    assert "no size 'performance-3x'" in str(error) and "performance-4x" in str(error)


def test_room_is_asked_for_before_a_big_boot(fly: ScriptedFly, tmp_path: Path) -> None:
    """1.2 placements: use it before a 64-boot."""
    warnings = prepare(fly, tmp_path, wanted(64), regions=["iad", "ord"])
    assert warnings == ("Fly has room for 40 of the 64 machines of size performance-1x wanted (iad, ord)",)
    body = fly.calls("POST /platform/placements")[0].body
    assert (body["count"], body["region"], body["org_slug"]) == (64, "iad,ord", "acme")
    assert prepare(fly, tmp_path, wanted(40)) == ()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (refused(404, "no such endpoint"), None),
        (refused(403, "not for this token"), None),
        (refused(422, "no room", "insufficient_capacity"), "no room for 64"),
        (refused(500, "broken"), "does not say"),
    ],
)
def test_a_forecast_that_cannot_be_had_stops_nothing(answer, words, fly: ScriptedFly, tmp_path: Path) -> None:
    warnings = prepare(fly.on("POST /platform/placements", answer), tmp_path, wanted(64))
    assert isinstance(warnings, tuple)
    assert warnings == () if words is None else words in warnings[0]


# ---- options ----
def test_options_and_what_they_leave_open() -> None:
    options = parse_options(
        GOOD | {"regions": "iad", "sizes": "performance-2x", "rates": {"default": (50, 5)}, "boot_deadline_s": 30}
    )
    assert (options.regions, options.sizes, options.boot_deadline_s) == (("iad",), ("performance-2x",), 30.0)
    assert options.rates == {"default": Rate(50.0, 5)}
    assert options.is_real
    assert parse_options(GOOD | {"rates": False}).rates is None
    volume = {"name": "models", "path": "/cache", "size_gb": 10}
    assert parse_options(GOOD | {"volume": volume, "regions": ["iad"]}).volume == CacheVolume("models", "/cache", 10)


def test_token_and_server_from_the_environment() -> None:
    settings = config.load({"HOME": "/h", "FLY_API_TOKEN": TOKEN, "FLY_FLAPS_BASE_URL": "http://_api.internal:4280/"})
    options = parse_options({"app": "fleet", "image": "i"}, settings)
    assert options.token is not None and options.token.header() == f"FlyV1 {TOKEN}"
    assert options.base_url == "http://_api.internal:4280"
    assert options.is_real
    assert parse_options(GOOD | {"base_url": "http://127.0.0.1:1/v1"}, settings).base_url == "http://127.0.0.1:1"
    assert TOKEN not in repr(settings)


def test_a_simulator_needs_no_token() -> None:
    options = parse_options({"app": "a", "image": "i", "base_url": "http://127.0.0.1:4280"}, NOTHING)
    assert options.token is None
    assert not options.is_real


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"aap": 1}, "no option aap; known are: app, base_url, boot_deadline_s"),
        ({"app": None}, "needs app"),
        ({"app": "Not An App"}, "app"),
        ({"app": "UPPER"}, "lower-case"),
        ({"image": ""}, "needs image"),
        ({"regions": ["I A D"]}, "regions"),
        ({"regions": 5}, "regions is 5"),
        ({"sizes": ["tiny"]}, "size 'tiny' is unknown to Fly; known are: shared-cpu-1x"),
        ({"sizes": ["l40s"]}, "local and container"),
        ({"cpu_kind": "quantum"}, "performance"),
        ({"token": "two words"}, "not shown"),
        ({"token": "line\nbreak"}, "not shown"),
        ({"token": 5}, "not shown"),
        ({"base_url": "ftp://x"}, "base_url"),
        ({"base_url": "http://user:pw@x"}, "base_url"),
        ({"rates": {"default": (0, 1)}}, "rates"),
        ({"rates": {"default": 5}}, "rates"),
        ({"rates": 5}, "rates is 5"),
        ({"env": {"RUNNER_BOOT": "x"}}, "RUNNER_BOOT"),
        ({"env": {"A": 1}}, "env"),
        ({"boot_deadline_s": 0}, "boot_deadline_s is 0"),
        ({"poll_s": float("nan")}, "poll_s"),
        ({"placements_from": 0}, "placements_from"),
        ({"volume": {"name": "v"}}, "volume"),
        ({"volume": {"name": "v", "path": "/c", "size_gb": 1}}, "name regions"),
        ({"volume": {"name": "V-1", "path": "/c", "size_gb": 1}, "regions": "iad"}, "volume"),
        ({"volume": {"name": "v", "path": "c", "size_gb": 1}, "regions": "iad"}, "path"),
    ],
)
def test_options_that_cannot_work(change: dict[str, Any], words: str) -> None:
    with pytest.raises(BadOptionsError, match=re.escape(words)) as caught:
        parse_options(GOOD | change, NOTHING)
    assert not any(part in str(caught.value) for part in ("two words", "break", "pw@"))


def test_no_token_for_the_real_fly() -> None:
    with pytest.raises(BadOptionsError, match="FLY_API_TOKEN"):
        parse_options({"app": "a", "image": "i"}, NOTHING)


def test_the_registry_knows_it() -> None:
    registry.check_provider("fly", GOOD)
    with pytest.raises(BadOptionsError, match="known are"):
        registry.check_provider("fly", GOOD | {"nope": 1})
