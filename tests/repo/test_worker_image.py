"""The Dockerfile names files that exist and installs what the package needs. (No engine builds it here.)"""

from __future__ import annotations

import pathlib
import re
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[2]
IMAGE = ROOT / "worker_image"


def _names(lines: list[str]) -> set[str]:
    return {re.split(r"[<>=!\[; ]", line.strip(), maxsplit=1)[0] for line in lines if line.strip() and line[0] != "#"}


def test_the_requirements_are_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = (IMAGE / "requirements.txt").read_text(encoding="utf-8").splitlines()

    # A coordinator that is booted as a machine runs the provider, too.
    assert _names(required) == _names([*project["dependencies"], *project["optional-dependencies"]["fly"]])


def test_every_requirement_is_pinned() -> None:
    pinned = _names((ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines())
    required = _names((IMAGE / "requirements.txt").read_text(encoding="utf-8").splitlines())

    assert required | {"torch", "numpy", "build", "hatchling"} <= pinned


def test_every_copied_path_exists_and_is_in_the_context() -> None:
    dockerfile = (IMAGE / "Dockerfile").read_text(encoding="utf-8")
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[0] == "!"}
    copied = {
        name for line in re.findall(r"^COPY (?!--from)(.*) \S+$", dockerfile, re.MULTILINE) for name in line.split()
    }

    assert copied
    assert copied <= allowed
    assert [name for name in copied if not (ROOT / name).exists()] == []


def test_the_entry_point_is_the_worker_command_of_a_user_without_rights() -> None:
    dockerfile = (IMAGE / "Dockerfile").read_text(encoding="utf-8")
    last_stage = dockerfile[dockerfile.rindex("\nFROM ") :]

    assert 'ENTRYPOINT ["runner", "worker"]' in last_stage
    assert last_stage.index("USER runner") < last_stage.index("ENTRYPOINT")
