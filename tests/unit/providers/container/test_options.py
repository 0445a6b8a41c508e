"""What `provider_options` of the container provider may say, and where an engine is looked for."""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path

import pytest

from runner import config
from runner.errors import BadOptionsError, ProviderError
from runner.providers.container import engine as engine_module
from runner.providers.container.engine import find_engine
from runner.providers.container.options import ContainerOptions, check_options, parse
from runner.providers.registry import check_provider


def test_the_registry_knows_it_and_checks_its_options() -> None:
    check_provider("container", {"image": "runner-worker:slim", "gpus": ["GPU-a"]})
    with pytest.raises(BadOptionsError, match="has no option imgae; it has env, gpus, image"):
        check_provider("container", {"imgae": "x"})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"image": ""}, "option image .* is ''; expected an image's name"),
        ({"pull": "often"}, "option pull .* expected one of missing, always, never"),
        ({"socket": "/var/run/docker.sock"}, "expected unix:///path/to.sock or tcp://host:port"),
        ({"pids_limit": 0}, "option pids_limit .* is 0; expected a whole number > 0"),
        ({"pids_limit": True}, "option pids_limit"),
        ({"shm_size": "much"}, "shm_size"),
        ({"share_host": "yes"}, "option share_host .* expected True or False"),
        ({"env": {"A": 1}}, "option env .* expected a map of strings to strings"),
        ({"volumes": ["/models"]}, "option volumes"),
        ({"ulimits": {"nofile": "many"}}, 'expected a map of names to whole numbers, as {"nofile": 65536}'),
        ({"gpus": "GPU-a"}, "option gpus .* expected a list of device ids"),
        ({"gpus": [0]}, "option gpus"),
    ],
)
def test_a_value_that_cannot_work_is_named(options, words) -> None:
    with pytest.raises(BadOptionsError, match=words):
        check_options(options)


def test_sizes_in_words() -> None:
    assert parse({"shm_size": "2GiB"}).shm_bytes == 2 << 30
    assert ContainerOptions().shm_bytes is None


def test_the_option_wins_over_docker_host_and_docker_host_over_the_usual_places() -> None:
    settings = config.load({"HOME": "/", "DOCKER_HOST": "tcp://10.0.0.1:2375"})
    for options, url in (({}, "tcp://10.0.0.1:2375"), ({"socket": "unix:///mine.sock"}, "unix:///mine.sock")):
        found = find_engine(parse(options), settings)
        assert (found.url, found.is_local) == (url, url.startswith("unix"))
        found.close()


def test_a_docker_host_of_another_kind_is_refused() -> None:
    with pytest.raises(BadOptionsError, match=r"DOCKER_HOST is 'ssh://me@there'; expected unix"):
        find_engine(ContainerOptions(), config.load({"HOME": "/", "DOCKER_HOST": "ssh://me@there"}))


def test_a_users_own_podman_is_found(monkeypatch) -> None:
    monkeypatch.setattr(engine_module, "_USUAL_SOCKETS", ("/nowhere/docker.sock", "/nowhere/podman.sock"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "podman" / "podman.sock"
        path.parent.mkdir()
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
            found = find_engine(ContainerOptions(), config.load({"HOME": "/", "XDG_RUNTIME_DIR": folder}))
            assert found.url == f"unix://{path}"
            found.close()


def test_no_engine_at_all_names_every_place(monkeypatch) -> None:
    monkeypatch.setattr(engine_module, "_USUAL_SOCKETS", ("/nowhere/docker.sock", "/nowhere/podman.sock"))
    with pytest.raises(
        ProviderError, match=r"/nowhere/docker\.sock \(not there\), /run/x/podman/podman\.sock"
    ) as caught:
        find_engine(ContainerOptions(), config.load({"HOME": "/", "XDG_RUNTIME_DIR": "/run/x"}))
    assert caught.value.is_permanent


def test_a_tls_folder_that_lacks_files(tmp_path) -> None:
    (tmp_path / "ca.pem").touch()
    with pytest.raises(BadOptionsError, match=r"lacks .*cert\.pem, .*key\.pem"):
        find_engine(parse({"socket": "tcp://10.0.0.1:2376", "tls_dir": str(tmp_path)}), config.load({"HOME": "/"}))
