"""Which templates a machine has, and what each is for. Pure.

A template is known by what it has: names of modules that it has imported, and ids of user templates (`@runner.template`) whose code
has run in it. The ids begin with `template-`, which no module's name can.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from runner.core.values import FailureKind
from runner.objects.template_code import is_template

Modules = frozenset[str]
BASE: Modules = frozenset()

# User templates on one machine at a time, loading ones included: each may hold a model.
USER_TEMPLATES_MAX = 4


class TemplateState(enum.Enum):
    """Where a template is in its life."""

    LOADING = "imports, or runs its code"
    READY = "forks"
    FAILED = "its users do without it: an import failed, or it must not be forked"


class Killed(NamedTuple):
    """That a process was killed here, before its code was done: the kind of failure for those who wait, and why."""

    kind: FailureKind
    why: str


@dataclass(slots=True)
class UserTemplate:
    """The process of a template that has run user code."""

    number: int  # as executors have them
    used_s: float  # when it last had work
    killed: Killed | None = None


def user_part(names: Modules) -> Modules:
    """The ids of user templates among `names`."""
    return frozenset(each for each in names if is_template(each))


class Templates:
    """The base template, which is always there, layers on top of it, and user templates on top of those."""

    def __init__(self) -> None:
        self._states: dict[Modules, TemplateState] = {BASE: TemplateState.READY}
        self._user_parts: dict[Modules, Modules] = {BASE: BASE}
        self._crowded_out: set[Modules] = set()
        self.user: dict[Modules, UserTemplate] = {}

    def find(self, needed: Modules) -> Modules | None:
        """The template to fork from: the smallest that has it all, and no other user code. None: one is to be loaded.

        Where none ever will, the layer without the user code, or the base.
        """
        state = self._states.get(needed)
        if state is TemplateState.READY:
            return needed
        code = self._user_part(needed)
        able = [
            each
            for each, its_state in self._states.items()
            if its_state is TemplateState.READY and needed <= each and self._user_part(each) == code
        ]
        if able:
            return min(able, key=len)
        if state is not TemplateState.FAILED:
            return None
        return self.find(needed - code) if code else BASE

    def lacking(self, needed: Modules) -> Modules | None:
        """What must be loaded next on the way to `needed`; None: nothing, or it is loading already."""
        for wanted in (needed - self._user_part(needed), needed):
            if self._states.get(wanted) is TemplateState.LOADING:
                return None
            if self.find(wanted) is None:
                return wanted
        return None

    def state(self, modules: Modules) -> TemplateState | None:
        """None: never asked for, or gone again."""
        return self._states.get(modules)

    def set(self, modules: Modules, state: TemplateState) -> None:
        """Note what became of a template."""
        assert modules, "the machine ends with its base template"
        self._states[modules] = state
        if state is TemplateState.FAILED:
            self.user.pop(modules, None)

    # ---- user templates ----
    def begin(self, names: Modules, number: int, now_s: float) -> None:
        """The process `number` runs the code of a user template."""
        self._states[names] = TemplateState.LOADING
        self.user[names] = UserTemplate(number, now_s)

    def crowd_out(self, names: Modules) -> None:
        """There is no room for it: its users do without, until another one goes."""
        self._states[names] = TemplateState.FAILED
        self._crowded_out.add(names)

    def drop(self, names: Modules) -> None:
        """The process of a user template is gone, or told to go: who needs it has it made again."""
        for each in (names, *self._crowded_out):
            self._states.pop(each, None)
        self._crowded_out.clear()
        self.user.pop(names, None)

    def touch(self, names: Modules, now_s: float) -> None:
        """It has work, or had until now."""
        found = self.user.get(names)
        if found is not None:
            found.used_s = now_s

    def numbered(self, number: int) -> Modules | None:
        """The user template whose process has this number."""
        return next((names for names, each in self.user.items() if each.number == number), None)

    def unused(self, is_used: Callable[[Modules], bool]) -> list[Modules]:
        """User templates that are ready and not used, those that had work the longest time ago first."""
        found = [names for names in self.user if self._states[names] is TemplateState.READY and not is_used(names)]
        return sorted(found, key=lambda names: self.user[names].used_s)

    def loading_user(self) -> Modules | None:
        """The newest user template whose code still runs."""
        return next((each for each in reversed(self.user) if self._states[each] is TemplateState.LOADING), None)

    def _user_part(self, names: Modules) -> Modules:
        found = self._user_parts.get(names)
        if found is None:
            found = self._user_parts[names] = user_part(names)
        return found
