"""The settings of a coordinator machine: whole, without secrets, and with the machine's own address."""

from __future__ import annotations

import base64
from dataclasses import replace

import msgpack
import pytest

from runner import config as settings
from runner.coordinator.booted import encode_config, read_packed, with_secrets
from runner.coordinator.config import CoordinatorConfig
from runner.coordinator.handover import Secrets
from runner.errors import BadOptionsError, UsageError
from runner.pools import Pool

CONFIG = CoordinatorConfig(
    home="/home/runner/cluster",
    cluster_id="abc",
    embedded=False,
    host="::",
    pools=(Pool(min=0, max=4),),
    ends_alone=True,
)


def load(**env: str) -> settings.Settings:
    return settings.load({"HOME": "/home/somebody", **env})


def read_config(loaded: settings.Settings, secrets: Secrets | None = None) -> CoordinatorConfig:
    return with_secrets(read_packed(loaded), secrets or Secrets(""), loaded)


def test_settings_survive_the_way_through_the_environment():
    found = read_config(load(RUNNER_COORDINATOR=encode_config(replace(CONFIG, host="10.0.0.7"))))

    assert found == replace(CONFIG, host="10.0.0.7")


def test_secrets_come_from_elsewhere_before_anything_is_checked():
    secrets = Secrets("client-token", {"unknown": "to the provider"})

    with pytest.raises(BadOptionsError, match="unknown"):
        read_config(load(RUNNER_COORDINATOR=encode_config(CONFIG)), secrets)
    found = read_config(
        load(RUNNER_COORDINATOR=encode_config(replace(CONFIG, host="10.0.0.7"))), Secrets("client-token")
    )
    assert found.token == "client-token"


def test_machines_are_told_the_private_address():
    found = read_config(load(RUNNER_COORDINATOR=encode_config(CONFIG), FLY_PRIVATE_IP="fdaa:0:1::2"))

    assert found.advertise == "fdaa:0:1::2"


def test_without_one_it_says_what_is_missing():
    with pytest.raises(BadOptionsError, match="FLY_PRIVATE_IP"):
        read_config(load(RUNNER_COORDINATOR=encode_config(CONFIG)))


@pytest.mark.parametrize(
    "more", [{"token": "t0p-secret"}, {"provider_options": {"token": "t0p-secret"}}], ids=["client", "provider"]
)
def test_a_token_cannot_get_into_the_environment(more):
    config = CoordinatorConfig(**{**CONFIG.to_dict(), "pools": CONFIG.pools, **more})

    with pytest.raises(BadOptionsError, match="handed over") as caught:
        encode_config(config)
    assert "t0p-secret" not in str(caught.value)


@pytest.mark.parametrize(
    "value",
    ["!", base64.b64encode(b"\xc1").decode(), base64.b64encode(msgpack.packb([1])).decode()],
    ids=["no base64", "no msgpack", "no map"],
)
def test_something_else_is_named_and_not_shown(value):
    with pytest.raises(BadOptionsError, match="RUNNER_COORDINATOR"):
        read_config(load(RUNNER_COORDINATOR=value))


def test_without_settings_people_are_told_what_to_use():
    with pytest.raises(BadOptionsError, match="runner up"):
        read_config(load())


@pytest.mark.parametrize("more", [{"cluster_id": ""}, {"embedded": True}])
def test_a_cluster_without_a_name_or_of_a_client_is_refused(more):
    packed = {**CONFIG.to_dict(), **more}
    value = base64.b64encode(msgpack.packb(packed)).decode()

    with pytest.raises(BadOptionsError, match="cluster_id"):
        read_config(load(RUNNER_COORDINATOR=value))


def test_secrets_are_not_shown():
    secrets = Secrets("client-token", {"token": "fly-token"})

    assert Secrets.from_json(secrets.to_json()) == secrets
    assert "token" not in repr(secrets).replace("Secrets", "")
    with pytest.raises(BadOptionsError) as caught:
        Secrets.from_json(b'{"token": "client-token"')
    assert "client-token" not in str(caught.value)


def test_a_process_of_a_machine_boots_nothing(monkeypatch):
    monkeypatch.delenv(settings.INSIDE, raising=False)
    settings.refuse_inside()  # elsewhere it says nothing

    monkeypatch.setenv(settings.INSIDE, "m-3")
    with pytest.raises(UsageError, match="machine m-3 .* boot no machines"):
        settings.refuse_inside()


def test_what_the_state_directory_keeps_has_no_token() -> None:
    """Whoever starts the cluster again has one of its own."""
    config = replace(CONFIG, token="t-1", provider_options={"app": "fleet", "token": "fm2_secretsecret"})
    assert "secret" not in repr(config.kept()) and "t-1" not in repr(config.kept())
    assert config.provider_options["token"] == "fm2_secretsecret"
