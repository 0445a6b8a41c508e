"""`runner image check` on images that can serve, and on some that cannot."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import docker
import pytest

from runner.rpc.version import PROTOCOL, VERSION, python_version
from tests.container.conftest import BASE, ENGINE, IMAGE, runner_command


@pytest.fixture
def altered(client: docker.APIClient) -> Iterator[Callable[..., str]]:
    """Images made from ours by changes of a Dockerfile."""
    made: list[str] = []

    def alter(*changes: str) -> str:
        container = client.create_container(IMAGE, [])
        name, tag = "runner-test-altered", str(len(made))
        client.commit(container["Id"], name, tag, changes=list(changes))
        client.remove_container(container["Id"], force=True)
        made.append(f"{name}:{tag}")
        return made[-1]

    yield alter
    for name in made:
        client.remove_image(name, force=True)


def test_ours_can_serve() -> None:
    done = runner_command("image", "check", IMAGE, "--socket", ENGINE, "--json")
    said = json.loads(done.stdout)
    assert done.returncode == 0
    assert said["faults"] == []
    assert (said["runner"], said["protocol"], said["variant"]) == (VERSION, PROTOCOL, "slim")
    assert said["python"].split(".")[:2] == python_version().split(".")[:2]
    assert said["uid"] == 10001, "the image's own user has no rights"
    assert 50 < said["size_mb"] < 400
    assert said["torch"] == ""


def test_an_image_without_runner() -> None:
    done = runner_command("image", "check", BASE, "--socket", ENGINE)
    assert done.returncode == 1
    assert "is no worker image: it has no label runner.python, runner.protocol" in done.stdout
    assert "build one that fits with `runner image build`" in done.stdout


def test_labels_of_another_python_and_labels_that_lie(altered) -> None:
    done = runner_command("image", "check", altered("LABEL runner.python=3.9"), "--socket", ENGINE)
    assert done.returncode == 1
    assert "has Python 3.9, this client runs Python" in done.stdout
    assert "has the label runner.python=3.9, but in it that is" in done.stdout


def test_an_image_whose_runner_is_broken(altered) -> None:
    done = runner_command("image", "check", altered("ENV PYTHONHOME=/nowhere"), "--socket", ENGINE)
    assert done.returncode == 1
    assert "cannot run an agent: exit code 1" in done.stdout


def test_an_image_and_an_engine_that_are_not_there() -> None:
    done = runner_command("image", "check", "runner-absent:cpu", "--socket", ENGINE)
    assert done.returncode == 1
    assert "image runner-absent:cpu is not on the engine" in done.stderr
    done = runner_command("image", "check", IMAGE, "--socket", "unix:///nowhere/engine.sock")
    assert done.returncode == 1
    assert "the container engine at unix:///nowhere/engine.sock did not answer" in done.stderr
