from __future__ import annotations

import importlib
import io
import sys
import textwrap
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.client import code_shipping
from runner.client.calls import SourcePackage
from runner.client.code_shipping import needs_of
from runner.errors import UsageError

Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write modules next to "the user's script"."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def write_files(**files: str) -> None:
        for name, text in files.items():
            path = tmp_path / name.replace("__slash__", "/").replace("__dot__", ".")
            path = path if path.suffix else path.with_suffix(".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        importlib.invalidate_caches()

    yield write_files
    for name in set(sys.modules) - before:
        del sys.modules[name]


def function_of(source: str) -> Any:
    """A function as a script or notebook cell defines it: in __main__."""
    scope: dict[str, Any] = {"__name__": "__main__"}
    exec(textwrap.dedent(source), scope)
    return scope["train"]


def modules_and_packages(function: Any) -> tuple[list[str], list[SourcePackage]]:
    needs = needs_of(function)
    return needs.modules, needs.packages


def names_in(package: SourcePackage) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(package.zip_bytes)) as archive:
        return archive.namelist()


def test_modules_in_globals_and_attributes() -> None:
    function = function_of(
        """
        import json, os.path
        import numpy as np
        from torch import nn
        def train():
            return np.zeros(3), nn.Linear, json, os.path
        """
    )
    assert modules_and_packages(function) == (["numpy", "torch"], [])


def test_modules_that_are_imported_inside_the_body() -> None:
    function = function_of(
        """
        def train():
            import numpy.linalg
            def inner():
                from torch.nn import functional
                import no_such_module
            return inner
        """
    )
    assert modules_and_packages(function)[0] == ["numpy", "torch"]


def test_modules_of_helpers_classes_closures_and_defaults() -> None:
    function = function_of(
        """
        import numpy, torch, msgpack, hypothesis
        def helper(x=torch.float32):
            return x
        class Model:
            def forward(self):
                return numpy.zeros(1)
        def make():
            packed = msgpack.Packer
            def train(strategy=hypothesis.given):
                return helper(), Model(), packed
            return train
        train = make()
        """
    )
    assert modules_and_packages(function)[0] == ["hypothesis", "msgpack", "numpy", "torch"]


def test_a_recursive_function_ends() -> None:
    assert modules_and_packages(function_of("def train():\n    return train")) == ([], [])


def test_a_module_beside_the_script_is_shipped_with_what_it_imports(write: Write) -> None:
    write(mine_a="import mine_b\nimport numpy\n", mine_b="VALUE = 1\n", mine_c="")
    modules, packages = modules_and_packages(function_of("import mine_a\ndef train():\n    return mine_a"))
    assert modules == ["numpy"]
    assert [names_in(package) for package in packages] == [["mine_a.py"], ["mine_b.py"]]


def test_a_module_imported_only_inside_the_body_is_shipped(write: Write) -> None:
    write(mine_late="import msgpack\n")
    modules, packages = modules_and_packages(function_of("def train():\n    import mine_late"))
    assert modules == ["msgpack"]
    assert [names_in(package) for package in packages] == [["mine_late.py"]]
    assert "mine_late" not in sys.modules  # looking for it did not run it


def test_a_function_of_such_a_module_brings_it(write: Write) -> None:
    write(mine_lib="import numpy\ndef helper(): ...\n")
    modules, packages = modules_and_packages(function_of("from mine_lib import helper\ndef train():\n    helper()"))
    assert modules == ["numpy"]
    assert [names_in(package) for package in packages] == [["mine_lib.py"]]


def test_a_package_is_shipped_whole_with_its_small_data(write: Write, tmp_path: Path) -> None:
    write(
        mine_pkg__slash____init__="",
        mine_pkg__slash__core="from . import deep\nfrom .deep.leaf import x\n",
        mine_pkg__slash__deep__slash____init__="from .leaf import x\n",
        mine_pkg__slash__deep__slash__leaf="import torch\nx = 1\n",
        mine_pkg__slash__config__dot__json="{}",
    )
    (tmp_path / "mine_pkg" / "weights.bin").write_bytes(b"0" * 300_000)
    modules, packages = modules_and_packages(function_of("def train():\n    import mine_pkg.core"))
    assert modules == ["torch"]
    assert names_in(packages[0]) == [
        "mine_pkg/__init__.py",
        "mine_pkg/config.json",
        "mine_pkg/core.py",
        "mine_pkg/deep/__init__.py",
        "mine_pkg/deep/leaf.py",
    ]


@pytest.mark.parametrize("is_loaded", [False, True])
def test_a_package_without_init_is_shipped_from_all_its_folders(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_loaded: bool
) -> None:
    other = tmp_path / "other"
    monkeypatch.syspath_prepend(str(other))
    write(
        mine_ns__slash__model="import mine_far\n",
        mine_ns__slash__deep__slash__leaf="import torch\n",
        other__slash__mine_ns__slash__more="",
        mine_far="import msgpack\n",
    )
    if is_loaded:
        importlib.import_module("mine_ns")
    source = "def train():\n    from mine_ns import model\n    import mine_ns.deep.leaf"
    modules, packages = modules_and_packages(function_of(source))
    assert modules == ["msgpack", "torch"]
    assert [names_in(package) for package in packages] == [
        ["mine_far.py"],
        ["mine_ns/more.py", "mine_ns/model.py", "mine_ns/deep/leaf.py"],
    ]


def test_a_folder_without_source_is_not_shipped(write: Write, tmp_path: Path) -> None:
    write(mine_data__slash__table__dot__csv="1,2\n")
    assert modules_and_packages(function_of("def train():\n    import mine_data")) == ([], [])


def test_equal_content_has_one_id(write: Write) -> None:
    write(mine_x="A = 1\n")
    source = "def train():\n    import mine_x"
    (first,) = modules_and_packages(function_of(source))[1]
    (again,) = modules_and_packages(function_of(source))[1]
    write(mine_x="A = 2\n")
    (changed,) = modules_and_packages(function_of(source))[1]
    assert first == again
    assert first.package_id.startswith("mine_x-")
    assert changed.package_id != first.package_id


def test_modules_that_are_too_large_are_an_error(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_shipping, "PACKAGE_MAX_BYTES", 100)
    write(mine_big="import json\n" * 100)
    with pytest.raises(UsageError, match=r"mine_big.py are \d+ bytes zipped; 100 can be sent"):
        modules_and_packages(function_of("def train():\n    import mine_big"))


def test_broken_source_is_shipped_as_it_is(write: Write) -> None:
    write(mine_broken="def (\n")
    assert len(modules_and_packages(function_of("def train():\n    import mine_broken"))[1]) == 1


def test_runner_itself_is_never_shipped() -> None:
    assert modules_and_packages(function_of("import runner\ndef train():\n    return runner.report")) == ([], [])
