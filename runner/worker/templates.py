"""Which templates a machine has, by the modules they have imported. Pure."""

from __future__ import annotations

import enum

Modules = frozenset[str]
BASE: Modules = frozenset()


class TemplateState(enum.Enum):
    """Where a template is in its life."""

    LOADING = "imports"
    READY = "forks"
    FAILED = "an import failed, it took too long, or it died: its users import for themselves"


class Templates:
    """The base template, which is always there, and layers on top of it."""

    def __init__(self) -> None:
        self._states: dict[Modules, TemplateState] = {BASE: TemplateState.READY}

    def find(self, needed: Modules) -> Modules | None:
        """The template to fork from: the smallest that has it all. The base where none ever will; None: one is to be loaded."""
        if not needed:
            return BASE
        able = [each for each, state in self._states.items() if state is TemplateState.READY and needed <= each]
        if able:
            return min(able, key=len)
        return BASE if self._states.get(needed) is TemplateState.FAILED else None

    def state(self, modules: Modules) -> TemplateState | None:
        """None: never asked for."""
        return self._states.get(modules)

    def set(self, modules: Modules, state: TemplateState) -> None:
        """Note what became of a template."""
        assert modules, "the machine ends with its base template"
        self._states[modules] = state
