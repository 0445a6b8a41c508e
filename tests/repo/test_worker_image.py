"""The Dockerfile, the context that it is built from, and what the package says about both. (tests/container builds it.)"""

from __future__ import annotations

import pathlib
import re
import sys
import tomllib

import pytest

from runner.errors import BadOptionsError, UsageError
from runner.image import context
from runner.image.build import build_arguments, find_engine
from runner.rpc.version import PROTOCOL, VERSION

ROOT = pathlib.Path(__file__).resolve().parents[2]
IMAGE = ROOT / "worker_image"
DOCKERFILE = (IMAGE / "Dockerfile").read_text(encoding="utf-8")


def _names(lines: list[str]) -> set[str]:
    return {re.split(r"[<>=!\[; ]", line.strip(), maxsplit=1)[0] for line in lines if line.strip() and line[0] != "#"}


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[str, ...], str]]:
    """Stands for pip, which needs a network: notes what it is asked for, and leaves wheels."""
    calls: list[tuple[str, tuple[str, ...], str]] = []
    brings = {
        "torch": ["torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl", "numpy-2.4.6-cp311-cp311-manylinux_2_28_x86_64.whl"],
        "base": ["grpcio-1.85.1-cp311-cp311-manylinux2014_x86_64.whl", "typing_extensions-4.16.0-py3-none-any.whl"],
        "extra": ["typing_extensions-4.16.0-py3-none-any.whl", "safetensors-0.8.0-cp38-abi3-manylinux2014_x86_64.whl"],
    }

    def fetch(folder: pathlib.Path, wanted: list[str], lock: pathlib.Path, index: str) -> None:
        calls.append((folder.name, tuple(wanted), index))
        for name in brings[folder.name]:
            (folder / name).touch()

    monkeypatch.setattr(context, "_fetch", fetch)
    return calls


def test_the_requirements_are_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = (IMAGE / "requirements.txt").read_text(encoding="utf-8").splitlines()

    # A coordinator that is booted as a machine runs the provider, too.
    assert _names(required) == _names([*project["dependencies"], *project["optional-dependencies"]["fly"]])


def test_every_requirement_is_pinned() -> None:
    pinned = _names((ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines())
    required = _names((IMAGE / "requirements.txt").read_text(encoding="utf-8").splitlines())

    assert required | {"torch", "numpy"} <= pinned


def test_the_context_has_what_the_dockerfile_copies(fetched, tmp_path) -> None:
    context.make_context(tmp_path, context.Contents("cpu", extra_packages=("safetensors",)), lambda _line: None)
    copied = re.findall(r"^COPY (?!--from)(\S+) \S+$", DOCKERFILE, re.MULTILINE)

    assert set(copied) == {"wheels/torch", "wheels/base", "wheels/extra", "runner"}
    assert [name for name in copied if not (tmp_path / name).is_dir()] == []
    assert (tmp_path / "Dockerfile").read_text(encoding="utf-8") == DOCKERFILE
    assert (tmp_path / "runner" / "worker" / "agent" / "agent.py").is_file()
    assert [path for path in tmp_path.rglob("*") if path.suffix == ".pyc"] == []


def test_a_wheel_comes_once_and_later_groups_keep_its_version(fetched, tmp_path) -> None:
    context.make_context(tmp_path, context.Contents("cpu", extra_packages=("safetensors",)), lambda _line: None)
    extra = {path.name.partition("-")[0] for path in (tmp_path / "wheels" / "extra").iterdir()}
    pins = (tmp_path / "constraints.txt").read_text(encoding="utf-8").splitlines()

    assert extra == {"safetensors"}
    assert [pin for pin in pins if pin.startswith("torch==")] == ["torch==2.13.0"]
    assert fetched[2] == ("extra", ("safetensors",), "")


def test_the_variants_differ_in_torch(fetched, tmp_path) -> None:
    for variant, groups in (("slim", ["base"]), ("cpu", ["torch", "base"])):
        fetched.clear()
        folder = tmp_path / variant
        folder.mkdir()
        context.make_context(folder, context.Contents(variant, torch_index="https://torch.example"), lambda _line: None)
        assert [name for name, _, _ in fetched] == groups
        assert {index for name, _, index in fetched if name == "torch"} <= {"https://torch.example"}
    with pytest.raises(BadOptionsError, match="variant is 'tpu'"):
        context.Contents("tpu")


def test_a_cpu_image_with_cuda_in_it_is_refused(fetched, tmp_path, monkeypatch) -> None:
    def fetch(folder: pathlib.Path, wanted: list[str], lock: pathlib.Path, index: str) -> None:
        (folder / "nvidia_cublas_cu12-12.8-py3-none-manylinux_2_27_x86_64.whl").touch()

    monkeypatch.setattr(context, "_fetch", fetch)
    with pytest.raises(BadOptionsError, match="--torch-index"):
        context.make_context(tmp_path, context.Contents("cpu"), lambda _line: None)


def test_pips_own_words_are_in_the_error(tmp_path) -> None:
    lock = tmp_path / "constraints.txt"
    lock.touch()
    with pytest.raises(UsageError, match=r"pip could not get the image's packages:\n.*no-such-file"):
        context._fetch(tmp_path, ["-r", "no-such-file.txt"], lock, "")


def test_the_labels_say_what_the_build_was_told_and_are_checked_by_it() -> None:
    words = build_arguments("slim", "base:1", ["A=b"])
    told = {word.partition("=")[0]: word.partition("=")[2] for word in words[1::2]}

    assert set(words[::2]) == {"--build-arg"}
    assert told == {
        "PYTHON": f"{sys.version_info[0]}.{sys.version_info[1]}",
        "RUNNER_VERSION": VERSION,
        "RUNNER_PROTOCOL": str(PROTOCOL),
        "VARIANT": "slim",
        "BASE": "base:1",
        "A": "b",
    }
    for label, argument in (("python", "PYTHON"), ("protocol", "RUNNER_PROTOCOL"), ("version", "RUNNER_VERSION")):
        assert f'runner.{label}="${{{argument}}}"' in DOCKERFILE
    assert "(protocol ${RUNNER_PROTOCOL}, Python " in DOCKERFILE
    assert "== '${PYTHON}'" in DOCKERFILE


def test_an_engine_that_is_not_installed(monkeypatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UsageError, match="neither docker nor podman is installed"):
        find_engine()
    with pytest.raises(UsageError, match="podman is not installed"):
        find_engine("podman")


def test_the_entry_point_is_the_worker_command_of_a_user_without_rights() -> None:
    last_stage = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]

    assert 'ENTRYPOINT ["runner", "worker"]' in last_stage
    assert last_stage.index("USER runner") < last_stage.index("ENTRYPOINT")
