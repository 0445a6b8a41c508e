"""A user template as it travels: a package of its own kind, so that each machine gets it once, before the functions that name it."""

from __future__ import annotations

import hashlib
from typing import NamedTuple, Self

import msgpack

TEMPLATE = "template-"  # begins the id of such a package


class TemplateCode(NamedTuple):
    """The code of one `@runner.template` function and what it needs."""

    name: str  # "module.qualname", for people
    blob: bytes  # a pickled TemplateFunction, see runner/client/template_function.py
    modules: tuple[str, ...]  # top-level modules that it uses: their layer is what it is forked from
    package_ids: tuple[str, ...]  # what must be importable
    env_vars: tuple[tuple[str, str], ...]
    timeout_s: float

    def pack(self) -> bytes:
        """As bytes; equal ones for equal content."""
        packed: bytes = msgpack.packb(self)
        return packed

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """From what `pack` made."""
        name, blob, modules, package_ids, env_vars, timeout_s = msgpack.unpackb(data)
        pairs = tuple((key, value) for key, value in env_vars)
        return cls(name, blob, tuple(modules), tuple(package_ids), pairs, timeout_s)


def template_id(code: TemplateCode, key: str) -> str:
    """The id of a template by its content. `key` stands for the pickled code: a process that pickles it again makes other bytes."""
    return TEMPLATE + hashlib.sha256(code._replace(blob=key.encode()).pack()).hexdigest()[:24]


def is_template(package_id: str) -> bool:
    """Whether it is no zip of files, but the code of a template."""
    return package_id.startswith(TEMPLATE)
