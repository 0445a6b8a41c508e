"""What machines cost: the table that comes with the package, against what its source shows, and the user's over it."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.core.values import CPU, MEMORY, UNIT, Shape, make_shape
from runner.errors import BadOptionsError
from runner.providers.prices import GB, Price, Wanting, load_prices

MONTH_H = 720  # the page counts 30 days


def find_price(
    provider: str, size: str, wanted: Shape, region: str = "", prices_file: Path | None = None
) -> Price | None:
    return load_prices(prices_file).find(provider, Wanting(wanted, (size,) if size else ()), region)


def shape(cpus: float = 1, memory_gb: float = 0) -> tuple[tuple[str, int], ...]:
    return make_shape({CPU: round(cpus * UNIT), MEMORY: round(memory_gb * GB)})


@pytest.mark.parametrize(
    ("size", "memory_gb", "region", "month"),
    [
        # As docs.fly.io/about/pricing shows them.
        ("shared-cpu-1x", 0.25, "iad", 2.19),
        ("shared-cpu-1x", 0.5, "iad", 3.69),
        ("shared-cpu-1x", 1, "iad", 6.70),
        ("shared-cpu-2x", 2, "ewr", 13.39),
        ("performance-1x", 2, "", 33.00),
        ("performance-2x", 4, "iad", 66.00),
        ("shared-cpu-1x", 1, "fra", 7.73),
        ("shared-cpu-1x", 1, "sin", 8.50),
    ],
)
def test_prices_of_fly_are_those_of_its_page(size: str, memory_gb: float, region: str, month: float) -> None:
    price = find_price("fly", size, shape(1, memory_gb), region)
    assert price is not None
    assert round(price.running * MONTH_H, 2) == month
    assert round(price.stopped * MONTH_H, 2) == round(price.suspended * MONTH_H, 2) == round(8 * 0.15, 2)
    assert price.as_of == "2026-10-09"
    assert "fly.io" in price.source


def test_without_a_size_it_is_the_cheapest_that_holds_the_shape() -> None:
    small = find_price("fly", "", shape(1))
    larger = find_price("fly", "", shape(3, 4))
    huge = find_price("fly", "", shape(16, 100))
    assert small is not None
    assert larger is not None
    assert huge is not None
    # The provider boots performance machines unless it is told otherwise.
    assert (small.size, larger.size, huge.size) == ("performance-1x", "performance-4x", "performance-16x")
    assert (small.region, small.home) == ("", "iad")
    shared = load_prices().find("fly", Wanting(shape(3, 4), kind="shared"))
    assert shared is not None
    assert shared.size == "shared-cpu-4x"
    first = load_prices().find("fly", Wanting(shape(3, 4), ("shared-cpu-1x", "performance-8x", "shared-cpu-4x")))
    assert first is not None
    assert first.size == "performance-8x", "the first that holds it is the first that is tried"


@pytest.mark.parametrize(
    ("provider", "size", "wanted", "region"),
    [
        ("nowhere", "", shape(), ""),
        ("fly", "performance-3x", shape(), ""),
        ("fly", "", shape(cpus=17), ""),
        ("fly", "shared-cpu-1x", shape(2), ""),
        ("fly", "shared-cpu-1x", shape(1, 64), ""),
        ("fly", "shared-cpu-1x", shape(), "xyz"),
    ],
)
def test_what_is_not_known_has_no_price(
    provider: str, size: str, wanted: tuple[tuple[str, int], ...], region: str
) -> None:
    assert find_price(provider, size, wanted, region) is None


@pytest.mark.parametrize("provider", ["local", "container"])
def test_this_computer_costs_nothing(provider: str) -> None:
    price = find_price(provider, "", shape(64, 1000))
    assert price is not None
    assert (price.running, price.stopped, price.suspended) == (0.0, 0.0, 0.0)


def test_a_file_of_the_user_lies_over_the_table(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(
        "[fly.sizes]\nperformance-1x = { hour = 0.03 }\n[lab]\nas_of = 2026-11-01\nsizes.box = { hour = 0.5 }\n"
    )
    ours = find_price("fly", "performance-1x", shape(1, 2), "iad", path)
    assert ours is not None
    assert (ours.running, ours.source) == (0.03, str(path))
    assert find_price("fly", "performance-1x", shape(2, 2), "iad", path) is None, "what a size holds stays known"
    other = find_price("fly", "shared-cpu-1x", shape(), "", path)
    assert other is not None
    assert other.running == pytest.approx(0.0030474)
    box = find_price("lab", "box", shape(8, 64), "", path)
    assert box == Price(0.5, 0.5, 0.5, "2026-11-01", str(path), "box")
    assert find_price("lab", "box", shape()) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[fly", "cannot be read as prices"),
        ("fly = 3", "expected a table"),
        ("[fly]\nprice = 3", "'price', which is unknown"),
        ("[fly.sizes]\nx = { hour = -1 }", "expected a number >= 0"),
        ("[fly.sizes]\nx = { hours = 1 }", "'hours', which is unknown"),
        ("[fly.regions]\nx = 'dear'", "expected a number >= 0"),
        ("[fly]\nsizes = 3", "expected a table"),
        ("[fly]\nis_free = 1", "expected true or false"),
    ],
)
def test_a_file_that_is_wrong_is_refused_by_name(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(text)
    with pytest.raises(BadOptionsError, match=says) as caught:
        load_prices(path)
    assert "RUNNER_PRICES" in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadOptionsError, match="RUNNER_PRICES names .*none.toml"):
        load_prices(tmp_path / "none.toml")
