"""The boot configuration reaches `runner worker`, and never a message."""

from __future__ import annotations

import base64

import click
import msgpack
import pytest

from runner import config
from runner.cli.worker import read_boot
from runner.errors import BadOptionsError
from runner.ids import ClusterId, MachineId
from runner.providers.base import BootConfig

BOOT = BootConfig(
    coordinator_address="10.0.0.1:7420",
    ca_pem=b"-----BEGIN CERTIFICATE-----",
    join_token="join-secret",
    machine_id=MachineId("m-1"),
    cluster_id=ClusterId("c-1"),
    gpus=("0", "1"),
    resources={"disk": 2.0},
)
PACKED = msgpack.packb(BOOT.to_dict())


def test_from_the_environment(tmp_path):
    encoded = base64.b64encode(PACKED).decode()
    assert read_boot(config.load({"RUNNER_BOOT": encoded, "HOME": "/"})) == BOOT


def test_from_a_file_which_wins(tmp_path):
    path = tmp_path / "boot"
    path.write_bytes(PACKED)
    assert read_boot(config.load({"RUNNER_BOOT_FILE": str(path), "RUNNER_BOOT": "junk"})) == BOOT


@pytest.mark.parametrize("junk", ["no base64!", base64.b64encode(b"junk").decode(), base64.b64encode(b"\x80").decode()])
def test_junk_is_an_error_that_does_not_show_it(junk):
    with pytest.raises(BadOptionsError, match="RUNNER_BOOT") as caught:
        read_boot(config.load({"RUNNER_BOOT": junk}))
    assert junk not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BadOptionsError, match=r"RUNNER_BOOT_FILE names .*none, which cannot be read: No such file"):
        read_boot(config.load({"RUNNER_BOOT_FILE": str(tmp_path / "none")}))


def test_without_any_it_is_wrong_usage(run):
    with pytest.raises(click.UsageError):
        read_boot(config.load({}))
    result = run("worker")
    assert result.exit_code == 2
    assert "no boot configuration: set RUNNER_BOOT or RUNNER_BOOT_FILE" in result.stderr


def test_a_file_with_the_join_token_is_removed_once_it_is_read(run, tmp_path, monkeypatch):
    path = tmp_path / "boot"
    path.write_bytes(PACKED)
    path.chmod(0o400)
    monkeypatch.setattr("runner.worker.agent.agent.run_agent", lambda boot: 7 if boot == BOOT else 1)
    monkeypatch.setenv("RUNNER_BOOT_FILE", str(path))
    assert run("worker").exit_code == 7
    assert not path.exists()


def test_the_join_token_leaves_the_environment(monkeypatch):
    monkeypatch.setenv("RUNNER_BOOT", "secret")
    config.forget_boot()
    assert config.load().boot is None
