"""Tokens, rates and faults: what happens before a call does anything, and after."""

from __future__ import annotations

import pytest

from runner.flysim.calls import Call
from runner.flysim.gate import CutError, Loss
from runner.flysim.settings import Region
from tests.unit.flysim.drive import Sim


def test_without_a_good_token_it_is_401_and_with_an_expired_one_403() -> None:
    sim = Sim()
    assert sim.call("getApp", token="").status == 401
    assert sim.call("getApp", token="wrong").status == 401
    sim.cloud.tokens[sim.token].is_expired = True

    assert sim.call("getApp").status == 403


def test_fly_v1_is_a_scheme_too() -> None:
    sim = Sim()
    call = Call({"app_name": "app"}, {}, {}, {"authorization": f"FlyV1 {sim.token}"})
    sim.world.enter("getApp", call, 0.0)

    assert call.org == "personal"


def test_another_organisations_app_is_403_and_no_app_404() -> None:
    sim = Sim()
    sim.cloud.tokens["other"] = type(sim.cloud.tokens[sim.token])("acme")

    assert sim.call("getApp", token="other").status == 403
    assert sim.call("createApp", body={"app_name": "x", "org_slug": "acme"}).status == 403
    assert sim.call("getApp", "nowhere").status == 404


def test_a_deploy_token_is_for_its_app_alone() -> None:
    sim = Sim()
    sim.call("createApp", body={"app_name": "second", "org_slug": "personal"})
    token = sim.call("createDeployToken").body["token"].removeprefix("FlyV1 ")

    assert sim.call("getApp", token=token).status == 200
    assert sim.call("getApp", "second", token=token).status == 403


def test_creates_pass_three_at_once_and_then_one_a_second() -> None:
    sim = Sim(rate_limit=True)
    codes = [sim.create(f"m{number}").status for number in range(5)]
    assert codes == [200, 200, 200, 429, 429]
    sim.pass_s(1.0)

    assert [sim.create(f"n{number}").status for number in range(2)] == [200, 429]


def test_sixty_four_creates_take_sixty_one_seconds() -> None:
    sim = Sim(rate_limit=True, regions=(Region("iad", 64, 1),))
    accepted = 0
    while accepted < 64:
        answer = sim.create(f"m{accepted}")
        if answer.status == 429:
            sim.pass_s(0.5)
        else:
            accepted += 1

    assert sim.now_s == pytest.approx(61.0, abs=0.5)


def test_getting_a_machine_has_a_rate_of_its_own_per_machine() -> None:
    sim = Sim(rate_limit=True)
    a = sim.started("a")
    sim.pass_s(5)
    b = sim.started("b")
    assert [sim.call("getMachine", a).status for _ in range(11)] == [200] * 10 + [429]

    assert sim.call("getMachine", b).status == 200
    sim.pass_s(0.2)
    assert [sim.call("getMachine", a).status for _ in range(2)] == [200, 429]


def test_app_deletions_are_counted_together() -> None:
    sim = Sim()
    for number in range(101):
        sim.call("createApp", body={"app_name": f"app-{number}", "org_slug": "personal"})
    sim.cloud.settings = type(sim.settings)(rate_limit=True)

    assert [sim.call("deleteApp", f"app-{number}").status for number in range(101)] == [202] * 100 + [429]


@pytest.mark.parametrize(("retry_after", "header"), [(False, None), (True, "1")])
def test_a_429_says_how_long_where_the_settings_want_it(retry_after: bool, header: str | None) -> None:
    sim = Sim(rate_limit=True, retry_after=retry_after)
    answers = [sim.create(f"m{number}") for number in range(4)]

    assert answers[-1].headers.get("Retry-After") == header


def test_errors_come_at_their_rate_and_change_nothing() -> None:
    sim = Sim(error_rate=0.5, seed=3)
    codes = [sim.create(f"m{number}").status for number in range(100)]
    failed = [code for code in codes if code >= 500]

    assert 30 < len(failed) < 70
    assert len(sim.cloud.machines) <= 8
    assert set(codes) <= {200, 412, 500, 502, 503, 504}


def test_a_provider_that_is_down_cuts_and_comes_back() -> None:
    sim = Sim()
    sim.world.go_down(10.0)
    with pytest.raises(CutError):
        sim.call("getApp")
    sim.pass_s(10.0)

    assert sim.call("getApp").status == 200


def test_a_lost_reply_is_lost_once_and_only_of_a_change() -> None:
    sim = Sim()
    sim.cloud.drop_next = ["408"]

    assert sim.world.loss_of_reply(is_change=False) is Loss.NONE
    assert sim.world.loss_of_reply(is_change=True) is Loss.TIMEOUT
    assert sim.world.loss_of_reply(is_change=True) is Loss.NONE


def test_a_lost_request_does_nothing() -> None:
    sim = Sim(lost_request_rate=0.0)
    sim.cloud.settings = type(sim.settings)(lost_request_rate=1.0)
    with pytest.raises(CutError):
        sim.create()

    assert sim.cloud.machines == {}


def test_the_same_seed_gives_the_same_cloud() -> None:
    def history(seed: int) -> list[object]:
        sim = Sim(seed=seed, error_rate=0.3)
        return [(answer.status, (answer.body or {}).get("id")) for answer in (sim.create(f"m{n}") for n in range(12))]

    assert history(1) == history(1)
    assert history(1) != history(2)
