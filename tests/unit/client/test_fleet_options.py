"""What `runner.init` takes for a fleet: what it means, and what is refused before anything is started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runner.client import fleet_options
from runner.client.fleet_options import FleetOptions, estimate
from runner.coordinator.config import CoordinatorConfig
from runner.errors import BadOptionsError
from runner.pools import Pool


def config_of(**options: Any) -> CoordinatorConfig:
    """As a coordinator gets it: through a map of plain values."""
    return CoordinatorConfig.from_dict(CoordinatorConfig(home="/h", **FleetOptions(**options).to_config()).to_dict())


def test_a_number_of_machines_is_one_pool_of_a_fixed_size() -> None:
    config = config_of(machines=3, num_cpus=2, num_gpus=0, memory="1GiB", resources={"disk": 1}, preload=("torch",))
    assert config.pools == (Pool(min=3, max=3, num_cpus=2.0, num_gpus=0, memory=1 << 30, resources={"disk": 1.0}),)
    assert (config.provider, config.preload, config.max_cost, config.strict) == ("local", ("torch",), None, False)


def test_what_is_left_open_stays_open_for_the_provider_to_fill() -> None:
    (pool,) = config_of().pools
    assert (pool.min, pool.most, pool.num_cpus, pool.num_gpus, pool.memory) == (1, 1, None, None, None)


def test_pools_are_taken_as_they_are() -> None:
    one = Pool(min=0, max=8, num_gpus=1)
    assert config_of(machines=one).pools == (one,)
    two = [Pool("cpu", min=1), Pool("gpu", max=4, size="large", single_use=True)]
    assert config_of(machines=two, max_cost=3, strict=True).pools == tuple(two)
    assert config_of(machines=two, max_cost=3, strict=True).max_cost == 3.0


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """A provider that takes all options; what it was asked to check."""
    asked: list[tuple[str, Any]] = []
    monkeypatch.setattr(fleet_options, "PROVIDERS", ("local", "elsewhere"))
    monkeypatch.setattr(fleet_options, "check_provider", lambda name, options: asked.append((name, dict(options))))
    return asked


def test_image_and_region_are_options_of_the_provider(elsewhere: list[tuple[str, Any]]) -> None:
    fleet = FleetOptions(
        provider="elsewhere", image="worker:1", region=("iad", "ord"), provider_options={"app": "mine"}
    )
    wanted = {"app": "mine", "image": "worker:1", "regions": ["iad", "ord"]}
    assert fleet.to_config()["provider_options"] == wanted
    assert elsewhere == [("elsewhere", wanted)]
    assert FleetOptions(provider="elsewhere", region="iad").to_config()["provider_options"] == {"regions": ["iad"]}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"provider": "nowhere"}, "provider='nowhere' is unknown; known is: local"),
        ({"provider_options": {"app": "mine"}}, "provider 'local' .*app"),
        ({"image": "worker:1"}, "provider 'local' .*image"),
        ({"provider_options": ["app"]}, "provider_options is a list; expected a dict"),
        ({"provider_options": {"image": "a"}, "image": "b"}, "has 'image', and image= says it again"),
        ({"provider_options": {"regions": ["a"]}, "region": "b"}, "has 'regions', and region= says it again"),
        ({"region": ()}, "region="),
        ({"region": ("iad", "")}, "region="),
        ({"image": ""}, "image="),
        ({"machines": [Pool("a"), Pool("a")]}, "more than one pool is named a"),
        ({"machines": []}, "there is no pool"),
        ({"machines": [Pool("a"), 3]}, "machines has 3 in it"),
        ({"machines": "3"}, "machines='3'"),
        ({"machines": 0}, r"machines=0 .*Pool\(min=0"),
        ({"machines": Pool(), "num_gpus": 1}, r"num_gpus: what a machine has is said in its pool, .*Pool\(num_gpus=1"),
        ({"machines": Pool(), "idle": "suspend"}, r"idle: .*Pool\(idle='suspend'"),
        ({"idle": "sleep"}, "idle is 'sleep'"),
        ({"machines": [Pool()], "memory": "1GiB", "num_cpus": 1}, "num_cpus, memory: "),
        ({"max_cost": 0}, "max_cost=0"),
        ({"max_cost": float("nan")}, "max_cost=nan"),
        ({"max_cost": "10"}, "max_cost='10'"),
        ({"strict": 1}, "strict=1"),
    ],
)
def test_what_cannot_work_is_named(options: dict[str, Any], says: str) -> None:
    with pytest.raises(BadOptionsError, match=says):
        FleetOptions(**options).to_config()


def test_idle_machines_of_a_plain_number_can_sleep() -> None:
    (pool,) = FleetOptions(machines=2, idle="suspend").to_config()["pools"]
    assert (pool.min, pool.most, pool.idle) == (2, 2, "suspend")
    assert not FleetOptions(idle="shutdown").is_default


def test_only_the_default_may_go_to_a_standing_cluster() -> None:
    assert FleetOptions().is_default
    assert not FleetOptions(max_cost=1.0).is_default
    assert not FleetOptions(machines=Pool()).is_default


def test_the_cost_is_told_before_anything_is_started(elsewhere: list[tuple[str, Any]], tmp_path: Path) -> None:
    prices = tmp_path / "prices.toml"
    prices.write_text('[elsewhere]\nas_of = "2026-11-01"\nsizes.large = { hour = 2 }\n')
    config = FleetOptions(provider="elsewhere", machines=Pool(min=3, size="large"), max_cost=1.0).to_config()
    assert estimate(config, prices) == ["3 x large: about $6.00 per hour; prices of 2026-11-01"]
    with pytest.raises(BadOptionsError, match=r"max_cost=0\.4 is less than"):
        estimate({**config, "max_cost": 0.4}, prices)
    with pytest.raises(BadOptionsError, match="not known"):
        estimate(config, None)
    assert estimate(FleetOptions(machines=8).to_config(), prices) == [], "this computer is free"
