"""Which modules a function needs: the user's own ones are zipped and sent, the installed ones are named.

A module is the user's own when its file lies neither in the standard library nor in a place that package installers
write to. The search follows imports in source text, so it also sees those inside function bodies, and modules that
nobody has imported yet.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import io
import os
import site
import sys
import sysconfig
import types
import zipfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from runner.client.calls import SourcePackage
from runner.client.template_function import TemplateFunction
from runner.errors import UsageError
from runner.model import Model

PACKAGE_MAX_BYTES = 3 * 1024 * 1024  # a zip travels in one message
DATA_FILE_MAX_BYTES = 256 * 1024  # larger files beside the modules stay behind: they are data, not code
_SKIPPED_DIRS = frozenset({"__pycache__", "node_modules", ".git", ".venv", "venv"})
_EPOCH = (1980, 1, 1, 0, 0, 0)  # equal content gives equal bytes
_OURS = "runner"


class Needs(NamedTuple):
    """What must be there for a function to run."""

    modules: list[str]  # top-level ones that are installed
    packages: list[SourcePackage]  # the user's own modules
    templates: list[TemplateFunction[Any]]  # that its code names


def needs_of(function: Callable[..., Any]) -> Needs:
    """What `function` uses.

    Raises:
        UsageError: the user's own modules are too large to send.
    """
    search = _Search()
    search.function(function)
    packages = [_pack(name, paths) for name, paths in sorted(search.own.items())]
    return Needs(sorted(search.installed), packages, list(search.templates.values()))


class _Search:
    """Follows imports from a function."""

    def __init__(self) -> None:
        self.installed: set[str] = set()
        self.own: dict[str, tuple[str, ...]] = {}  # top-level name -> file of a module, or folders of a package
        self._seen_files: set[str] = set()
        self.templates: dict[int, TemplateFunction[Any]] = {}
        self._seen_objects: set[tuple[int, bool]] = set()
        self._is_elsewhere = False  # in code that runs in another process: its templates are not the function's own

    def function(self, function: Any) -> None:
        """What the function's code names: globals, closures, imports; and the module that it is imported from."""
        if isinstance(function, functools.partial):
            for part in (function.func, *function.args, *function.keywords.values()):
                self.value(part)
            return
        function = getattr(function, "__func__", function)
        seen = (id(function), self._is_elsewhere)
        if seen in self._seen_objects:
            return
        self._seen_objects.add(seen)
        if _is_importable(function):
            self.module(function.__module__)
            return  # it will be imported there by name: the module's own imports are all that matters
        if isinstance(function, type):
            self._class(function)
            return
        wrapped = getattr(function, "__wrapped__", None)
        if wrapped is not None:
            self.function(wrapped)
        if not isinstance(function, types.FunctionType):
            self.value(type(function))
            return
        self._code(function.__code__, function.__globals__)
        for cell in function.__closure__ or ():
            try:
                self.value(cell.cell_contents)
            except ValueError:  # not bound yet
                continue
        for default in function.__defaults__ or ():
            self.value(default)

    def value(self, value: Any) -> None:
        """What must be importable to unpickle this value."""
        if isinstance(value, types.ModuleType):
            self.module(value.__name__)
        elif isinstance(value, types.FunctionType | types.MethodType | functools.partial):
            self.function(value)
        elif isinstance(value, type):
            if value.__module__ != "__main__":
                self.module(value.__module__)
            else:
                self.function(value)
        elif isinstance(value, TemplateFunction):
            if not self._is_elsewhere:
                self.templates[id(value)] = value
            self._elsewhere(value.__wrapped__)  # type: ignore[attr-defined]  # functools sets it
        elif isinstance(value, Model):
            for part in value.parts:
                self.value(part)
        elif callable(getattr(value, "__runner_function__", None)):
            self._elsewhere(value.__runner_function__)
        else:
            self.module(type(value).__module__)

    def _templates_in(self, module: types.ModuleType, names: Sequence[str]) -> None:
        """`module.weights()`: the code names both."""
        for name in names:
            value = vars(module).get(name)
            if isinstance(value, TemplateFunction | Model):
                self.value(value)

    def _elsewhere(self, function: Any) -> None:
        before, self._is_elsewhere = self._is_elsewhere, True
        self.function(function)
        self._is_elsewhere = before

    def _class(self, cls: type) -> None:
        """What the bases and methods of a class name."""
        for base in cls.__bases__:
            self.value(base)
        for member in vars(cls).values():
            function = getattr(member, "__func__", getattr(member, "fget", member))
            if isinstance(function, types.FunctionType):
                self.function(function)

    def module(self, name: str) -> None:
        """A module by its full name."""
        top = name.partition(".")[0]
        if not top or top in {"__main__", _OURS} or top in sys.builtin_module_names or top in sys.stdlib_module_names:
            return
        locations = _own_locations(top)
        if not locations:
            if _find_origin(top) is not None:
                self.installed.add(top)
            return
        self.own[top] = locations
        path = _find_origin(name) if name != top else None
        for file in filter(None, (path, _find_origin(top))):
            self._file(file, name)

    def _file(self, path: str, module: str) -> None:
        if path in self._seen_files or not path.endswith(".py"):
            return
        self._seen_files.add(path)
        for name in _imports_of(path, module):
            self.module(name)

    def _code(self, code: types.CodeType, scope: dict[str, Any]) -> None:
        for name in code.co_names:
            if name in scope:
                self.value(scope[name])
                if isinstance(scope[name], types.ModuleType):
                    self._templates_in(scope[name], code.co_names)
        for name in _imports_in_code(code):
            self.module(name)
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                self._code(constant, scope)


def _is_importable(function: Any) -> bool:
    """Whether pickle sends a name instead of the code; a decorated function's name leads to the decorator's result."""
    name = getattr(function, "__module__", None)
    found = sys.modules.get(name) if name and name != "__main__" else None
    for part in getattr(function, "__qualname__", "").split("."):
        found = getattr(found, part, None)
    return found is function


def _imports_in_code(code: types.CodeType) -> Iterator[str]:
    import dis

    names: Any = None  # of `from ... import names`: the instruction before
    for instruction in dis.get_instructions(code):
        if instruction.opname == "IMPORT_NAME" and isinstance(instruction.argval, str):
            yield instruction.argval
            yield from (f"{instruction.argval}.{name}" for name in names or () if name != "*")
        names = instruction.argval if isinstance(instruction.argval, tuple) else None


def _imports_of(path: str, module: str) -> list[str]:
    """Absolute names of what a source file imports, at any depth."""
    try:
        with open(path, encoding="utf-8") as file:
            tree = ast.parse(file.read())
    except (OSError, SyntaxError, ValueError):
        return []
    is_package = os.path.basename(path) == "__init__.py"
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                kept = parts[: len(parts) - node.level + (1 if is_package else 0)]
                base = ".".join([*kept, base] if base else kept)
            if base:
                found.append(base)
                found += [f"{base}.{alias.name}" for alias in node.names if alias.name != "*"]
    return found


def _own_locations(top: str) -> tuple[str, ...]:
    """The file or folder of a top-level module of the user; nothing for any other.

    A package without `__init__.py` may lie in several folders, of which some may be installed.
    """
    origin = _find_origin(top)
    if origin is None:
        return tuple(folder for folder in _namespace_folders(top) if not _is_installed(folder) and _has_source(folder))
    if not origin.endswith(".py") or _is_installed(origin):
        return ()
    return (os.path.dirname(origin) if os.path.basename(origin) == "__init__.py" else origin,)


def _namespace_folders(top: str) -> tuple[str, ...]:
    """The folders of a top-level package without `__init__.py`."""
    loaded = sys.modules.get(top)
    try:
        found = loaded.__spec__ if loaded is not None else importlib.util.find_spec(top)
    except (ImportError, AttributeError, ValueError):
        return ()
    if found is None or found.origin is not None:
        return ()
    return tuple(os.path.realpath(folder) for folder in found.submodule_search_locations or ())


def _has_source(folder: str) -> bool:
    """Whether it is a package at all: any folder beside the script may be imported, one of data too."""
    return any(inner.endswith(".py") for inner, _ in _package_files("", folder))


def _find_origin(name: str) -> str | None:
    loaded = sys.modules.get(name)
    if loaded is not None:
        file = getattr(loaded, "__file__", None)
        return os.path.realpath(file) if file else None
    parent = name.rpartition(".")[0]
    if parent and parent not in sys.modules:
        return _beside(name)
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, AttributeError, ValueError):
        return None
    return os.path.realpath(spec.origin) if spec is not None and spec.has_location and spec.origin else None


def _beside(name: str) -> str | None:
    """The file of a submodule whose package is not imported: importing it only to look would run the user's code."""
    top, _, rest = name.partition(".")
    origin = _find_origin(top)
    if origin is None:
        folders = _namespace_folders(top)
    else:
        folders = (os.path.dirname(origin),) if os.path.basename(origin) == "__init__.py" else ()
    for folder in folders:
        base = os.path.join(folder, *rest.split("."))
        for candidate in (f"{base}.py", os.path.join(base, "__init__.py")):
            if os.path.isfile(candidate):
                return candidate
    return None


def _is_installed(path: str) -> bool:
    return path.startswith(_installed_places())


@functools.cache
def _installed_places() -> tuple[str, ...]:
    paths = {sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
    paths.update(site.getsitepackages())
    paths.add(site.getusersitepackages())
    paths.add(os.path.dirname(os.__file__))
    return tuple(os.path.realpath(path) + os.sep for path in paths if path)


def _pack(name: str, locations: tuple[str, ...]) -> SourcePackage:
    files: dict[str, str] = {}  # name in the zip -> path
    for location in locations:
        found = [(f"{name}.py", location)] if os.path.isfile(location) else _package_files(name, location)
        for inner, path in found:
            files.setdefault(inner, path)  # the first folder counts, as in imports
    buffer = io.BytesIO()
    digest = hashlib.sha256()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for inner, path in files.items():
            with open(path, "rb") as file:
                data = file.read()
            digest.update(f"{inner}\0{len(data)}\0".encode())
            digest.update(data)
            archive.writestr(zipfile.ZipInfo(inner, _EPOCH), data, zipfile.ZIP_DEFLATED)
    zipped = buffer.getvalue()
    if len(zipped) > PACKAGE_MAX_BYTES:
        raise UsageError(
            f"The modules of {', '.join(locations)} are {len(zipped)} bytes zipped; {PACKAGE_MAX_BYTES} can be sent with a function."
            " Install the package on the machines, or move what the function does not need to another place."
        )
    return SourcePackage(f"{name}-{digest.hexdigest()[:24]}", zipped)


def _package_files(name: str, folder: str) -> Iterator[tuple[str, str]]:
    """(name in the zip, path), sorted: all source files, and small files beside them that modules may read."""
    for root, dirs, files in os.walk(folder):
        dirs[:] = sorted(each for each in dirs if each not in _SKIPPED_DIRS and not each.startswith("."))
        for file in sorted(files):
            path = os.path.join(root, file)
            if not os.path.isfile(path) or file.startswith(".") or file.endswith((".pyc", ".pyo")):
                continue
            if file.endswith(".py") or os.path.getsize(path) <= DATA_FILE_MAX_BYTES:
                yield f"{name}/{os.path.relpath(path, folder)}", path
