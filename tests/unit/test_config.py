"""Settings: a bad value is an error that names the variable and shows no secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner import config
from runner.errors import BadOptionsError


def load(**env):
    return config.load({"HOME": "/home/somebody", **env})


def test_defaults():
    settings = config.load({})
    assert settings.home == Path.home() / ".runner"
    assert settings.clusters_dir == settings.home / "clusters"
    assert (settings.address, settings.read_token(), settings.read_ca()) == (None, None, None)
    assert (settings.log_level, settings.no_color) == ("warning", False)


def test_values(tmp_path):
    (tmp_path / "ca.pem").write_bytes(b"-----BEGIN CERTIFICATE-----\n")
    settings = load(
        RUNNER_HOME=str(tmp_path),
        RUNNER_ADDRESS="gpu-7:7420",
        RUNNER_TOKEN=" abc ",
        RUNNER_CA=str(tmp_path / "ca.pem"),
        RUNNER_LOG_LEVEL="DEBUG",
        NO_COLOR="1",
    )
    assert settings.home == tmp_path
    assert settings.address == "gpu-7:7420"
    assert settings.read_token() == "abc"
    assert settings.read_ca() == b"-----BEGIN CERTIFICATE-----\n"
    assert settings.log_level == "debug"
    assert settings.no_color


def test_empty_variables_count_as_not_set():
    settings = load(RUNNER_ADDRESS="", RUNNER_TOKEN="", NO_COLOR="")
    assert (settings.address, settings.token, settings.no_color) == (None, None, False)


@pytest.mark.parametrize("address", ["host", "host:", ":7420", "host:0", "host:70000", "host:x", "::1:7420", "host:-1"])
def test_a_bad_address_names_the_variable(address):
    with pytest.raises(BadOptionsError, match=r"RUNNER_ADDRESS is .* expected host:port"):
        load(RUNNER_ADDRESS=address)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "[::1]:65535", "a.example:7420"])
def test_good_addresses(address):
    assert load(RUNNER_ADDRESS=address).address == address


def test_a_bad_level_lists_the_good_ones():
    with pytest.raises(
        BadOptionsError, match="RUNNER_LOG_LEVEL is 'loud'; expected one of debug, info, warning, error"
    ):
        load(RUNNER_LOG_LEVEL="loud")


def test_home_must_be_a_directory(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadOptionsError, match="RUNNER_HOME"):
        load(RUNNER_HOME=str(tmp_path / "file"))


def test_a_bad_token_is_not_shown():
    with pytest.raises(BadOptionsError, match="RUNNER_TOKEN") as caught:
        load(RUNNER_TOKEN="sec ret")
    assert "sec ret" not in str(caught.value)


def test_secrets_are_not_in_the_repr():
    shown = repr(load(RUNNER_TOKEN="hunter2", RUNNER_BOOT="c2VjcmV0"))
    assert "hunter2" not in shown
    assert "c2VjcmV0" not in shown


def test_a_token_file_that_fails_is_an_error_and_no_fallback(tmp_path):
    path = tmp_path / "token"
    with pytest.raises(BadOptionsError, match=r"RUNNER_TOKEN_FILE names .*token, which cannot be read: No such file"):
        load(RUNNER_TOKEN_FILE=str(path)).read_token()
    path.write_text("  \n")
    with pytest.raises(BadOptionsError, match="empty"):
        load(RUNNER_TOKEN_FILE=str(path)).read_token()
    path.write_text("abc\n")
    assert load(RUNNER_TOKEN_FILE=str(path)).read_token() == "abc"
    assert load(RUNNER_TOKEN_FILE=str(path), RUNNER_TOKEN="wins").read_token() == "wins"


def test_a_ca_that_is_no_certificate_is_an_error(tmp_path):
    with pytest.raises(BadOptionsError, match="RUNNER_CA"):
        load(RUNNER_CA=str(tmp_path / "none.pem")).read_ca()
    (tmp_path / "key.pem").write_text("-----BEGIN PRIVATE KEY-----")
    with pytest.raises(BadOptionsError, match="holds no PEM certificate") as caught:
        load(RUNNER_CA=str(tmp_path / "key.pem")).read_ca()
    assert "BEGIN PRIVATE" not in str(caught.value)


@pytest.mark.parametrize("text", ["0", "-1", "soon", "1e9", "nan"])
def test_a_time_limit_of_hooks_that_cannot_work_is_refused(text: str) -> None:
    with pytest.raises(BadOptionsError, match="RUNNER_SUSPEND_HOOKS_S"):
        load(RUNNER_SUSPEND_HOOKS_S=text)


def test_cuda_checkpoint_is_off_until_it_is_asked_for() -> None:
    assert [load(RUNNER_CUDA_CHECKPOINT=text).cuda_checkpoint for text in ("", "0", "1")] == [False, False, True]
    with pytest.raises(BadOptionsError, match=r"RUNNER_CUDA_CHECKPOINT is 'yes'; expected 1 for on, or 0 for off"):
        load(RUNNER_CUDA_CHECKPOINT="yes")


def test_the_time_limit_of_hooks_has_a_default_and_can_be_set() -> None:
    assert (load().suspend_hooks_s, load(RUNNER_SUSPEND_HOOKS_S="45").suspend_hooks_s) == (10.0, 45.0)
