"""What people are told of the cost before anything is booted, and which bounds on it are refused."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from runner.coordinator.estimate import check_max_cost, dollars, estimate_lines, price_pools
from runner.errors import BadOptionsError
from runner.pools import Pool, fixed_pool

IAD = {"regions": ["iad", "ord"]}


def lines(*pools: Pool, provider: str = "fly", options: Mapping[str, object] | None = None) -> list[str]:
    return estimate_lines(price_pools(provider, pools, IAD if options is None else options))


def test_a_fixed_fleet() -> None:
    assert lines(fixed_pool(64, num_cpus=4, size="performance-4x")) == [
        "64 x performance-4x in iad: about $11.73 per hour; prices of 2026-10-09"
    ]


def test_a_fleet_that_grows_costs_at_most_so_much() -> None:
    assert lines(Pool(min=0, max=8, start=2, size="performance-1x", memory="4GiB"), options={"regions": "fra"}) == [
        "0 to 8 x performance-1x in fra: at most about $0.58 per hour; prices of 2026-10-09"
    ]


def test_where_the_provider_chooses_size_and_region_its_first_choice_is_told() -> None:
    assert lines(Pool(min=2, num_cpus=2), options={}) == [
        "2 x performance-2x (as in iad): about $0.18 per hour; prices of 2026-10-09"
    ]
    options = {"sizes": ["shared-cpu-1x", "shared-cpu-4x"], "regions": ["fra,eu"]}
    assert lines(Pool(min=2, num_cpus=2), options=options) == [
        "2 x shared-cpu-4x in fra: about $0.028 per hour; prices of 2026-10-09"
    ]
    assert lines(Pool(min=2), options={"cpu_kind": "shared"})[0].startswith("2 x shared-cpu-1x (as in iad)")


def test_several_pools_have_a_sum_and_what_is_not_known_is_said() -> None:
    told = lines(
        Pool("cpu", min=1, num_cpus=1, size="shared-cpu-1x", memory="256MiB"),
        Pool("big", max=2, size="performance-8x"),
        Pool("odd", size="x"),
    )
    assert told[0] == "1 x shared-cpu-1x in iad: about $0.0030 per hour; prices of 2026-10-09"
    assert told[2].startswith("0 to 1 x a machine of size 'x': its price is not known; a file named by RUNNER_PRICES")
    assert told[3] == "together at most about $0.74 per hour, and what is not known"


@pytest.mark.parametrize("provider", ["local", "container"])
def test_what_is_free_is_not_told(provider: str) -> None:
    assert lines(Pool(min=64), provider=provider) == []
    check_max_cost(price_pools(provider, [Pool(min=64)], {}), 0.01)


def test_a_bound_that_cannot_be_kept_is_refused() -> None:
    priced = price_pools("fly", [fixed_pool(64, num_cpus=4, size="performance-4x")], IAD)
    check_max_cost(priced, None)
    check_max_cost(priced, 1.0)
    with pytest.raises(BadOptionsError, match=r"max_cost=0\.9 is less than .* in 5 minutes \(\$0\.98\)"):
        check_max_cost(priced, 0.9)
    unknown = price_pools("fly", [Pool("odd", size="x")], IAD)
    with pytest.raises(BadOptionsError, match=r"max_cost=5 cannot be kept: .* pool 'odd' \(size x\) is not known"):
        check_max_cost(unknown, 5.0)


def test_dollars_for_people() -> None:
    amounts = [0, 5.949, 1234.5, 0.1, 0.0999, 0.0031, 0.00000123]
    assert [dollars(amount) for amount in amounts] == [
        "$0.00", "$5.95", "$1,234.50", "$0.10", "$0.10", "$0.0031", "$0.0000012",
    ]  # fmt: skip
