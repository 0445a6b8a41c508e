"""The templates of a remote function, as packages beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

from runner.client.calls import PickledFunction, SourcePackage
from runner.client.code_shipping import PACKAGE_MAX_BYTES, Needs, needs_of
from runner.client.template_function import TemplateFunction
from runner.errors import UsageError
from runner.objects.packages import is_of_environment
from runner.objects.serialization import serialize
from runner.objects.template_code import TemplateCode, template_id
from runner.runtime_env import RuntimeEnv

# Each is pickled once, as functions are: actors of a class are made one by one.
_pickled: WeakKeyDictionary[TemplateFunction[Any], tuple[Needs, bytes]] = WeakKeyDictionary()


def with_templates(
    function: PickledFunction, templates: Sequence[TemplateFunction[Any]], env: RuntimeEnv
) -> PickledFunction:
    """The function with the code of `templates`, which runs in the environment that the function has.

    Raises:
        UsageError: a template cannot be sent.
    """
    packages = {each.package_id: each for each in function.packages}
    of_environment = [package_id for package_id in packages if is_of_environment(package_id)]
    for template in templates:
        for each in _packages(template, of_environment, env):
            packages.setdefault(each.package_id, each)
    digest = hashlib.sha256("\0".join([function.function_id, *packages]).encode())
    return replace(function, function_id=digest.hexdigest()[:32], packages=list(packages.values()))


def _pickle(template: TemplateFunction[Any]) -> tuple[Needs, bytes]:
    needs = needs_of(template.__wrapped__)  # type: ignore[attr-defined]  # functools sets it
    serialized = serialize(template)
    if serialized.contained_refs:
        raise UsageError(
            f"{template!r} refers to an ObjectRef, and a template runs without a task: read the data in its code instead."
        )
    found = _pickled[template] = (needs, serialized.to_bytes())
    return found


def _packages(template: TemplateFunction[Any], of_environment: Sequence[str], env: RuntimeEnv) -> list[SourcePackage]:
    """What the template needs, then the template itself."""
    needs, blob = _pickled.get(template) or _pickle(template)
    code = TemplateCode(
        template.name,
        blob,
        tuple(needs.modules),
        (*(each.package_id for each in needs.packages), *of_environment),
        tuple(sorted(env.env_vars.items())),
        template.timeout_s,
    )
    packed = code.pack()
    if len(packed) > PACKAGE_MAX_BYTES:
        raise UsageError(
            f"{template!r} is {len(packed)} bytes when pickled, because of what its code refers to; {PACKAGE_MAX_BYTES} can be"
            " sent. Load large data in its code, from a file or a package that the machines have."
        )
    return [*needs.packages, SourcePackage(template_id(code, template.find_key()), packed)]
