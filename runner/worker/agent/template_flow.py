"""How executors come to be: which template each is forked from, and when templates come and go. Pure.

A user template is ended when it had no work for TEMPLATE_IDLE_S, when memory is low, or when another one needs its place.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from runner.core.values import FailureKind
from runner.worker.agent import events as ev
from runner.worker.agent.events import Environment
from runner.worker.agent.executor_pool import Executor, ExecutorPool, ExecutorState
from runner.worker.agent.slots import Placed
from runner.worker.agent.templates import USER_TEMPLATES_MAX, Killed, Modules, Templates, TemplateState, user_part
from runner.worker.agent.timers import Timers

RETIRE_AFTER_S = 2.0  # from the request to exit to SIGKILL
SPAWN_AFTER_S = 60.0
LAYER_AFTER_S = 120.0  # a layer that takes longer is given up: executors then import for themselves
TEMPLATE_IDLE_S = 600.0
PRESTART_MAX = 2


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """What the machine is, and its times."""

    machine_id: str
    cpus: float = 1.0
    is_leased: bool = True
    lost_after_s: float = 60.0
    destroy_after_s: float = 120.0
    moves_cuda: bool = False  # CUDA memory of executors is moved to the host's before a suspend, and back after it


class TemplateFlow:
    """Templates, executors on their way, and the attempts that wait for them."""

    def __init__(self, settings: AgentSettings) -> None:
        self._settings = settings
        self._pool = ExecutorPool(idle_max=max(PRESTART_MAX, round(settings.cpus)))
        self._waiting: dict[Environment, deque[Placed]] = {}  # heads without an executor
        self._templates = Templates()
        self._timers = Timers()
        self._commands: list[ev.Command] = []
        self._now_s = 0.0

    def _emit(self, command: ev.Command) -> None:
        self._commands.append(command)

    # ---- executors on their way ----
    def _spawn_missing(self, template: Modules) -> None:
        """Have as many executors on the way as heads wait for."""
        waiting = sum(len(each) for environment, each in self._waiting.items() if self._suits(template, environment))
        for _ in range(waiting - self._pool.spawning(template)):
            self._spawn(template)

    def _suits(self, template: Modules, environment: Environment) -> bool:
        return self._templates.find(environment.layer) == template

    def _spawn(self, template: Modules) -> None:
        executor = self._pool.add(template)
        self._templates.touch(template, self._now_s)
        self._emit(ev.SpawnExecutor(executor.number, template))
        self._timers.set(self._now_s + SPAWN_AFTER_S, "spawn", executor.number)

    def _follow_templates(self) -> None:
        """Templates have come or gone: executors, or other templates, for those who wait."""
        for environment in list(self._waiting):
            template = self._templates.find(environment.layer)
            if template is None:
                self._want_template(environment.layer, environment.template_s)
            else:
                self._spawn_missing(template)

    # ---- templates ----
    def _want_template(self, needed: Modules, limit_s: float = 0.0) -> None:
        """Have what is still missing loaded, one thing after the other. `limit_s`: for the code of user templates."""
        wanted = self._templates.lacking(needed)
        if wanted is None:
            return
        if user_part(wanted):
            self._make_template(wanted, limit_s)
            return
        self._templates.set(wanted, TemplateState.LOADING)
        self._emit(ev.LoadLayer(wanted))
        self._timers.set(self._now_s + LAYER_AFTER_S, "layer", wanted)

    def _make_template(self, names: Modules, limit_s: float) -> None:
        unused = self._templates.unused(self._is_used)
        if len(self._templates.user) >= USER_TEMPLATES_MAX:
            if not unused:
                self._templates.crowd_out(names)
                why = f"the machine has {USER_TEMPLATES_MAX} templates already, all of them in use"
                self._emit(ev.TellTemplateUnused(names, why))
                self._follow_templates()
                return
            self._let_template_go(unused[0])
        parent = self._templates.find(names - user_part(names))
        assert parent is not None, "layers are loaded first"
        number = self._pool.new_number()
        self._templates.begin(names, number, self._now_s)
        self._emit(ev.MakeTemplate(number, names, parent))
        if limit_s > 0:
            self._timers.set(self._now_s + limit_s, "template", (number, limit_s))
        self._follow_templates()  # one that went may have made room for others

    def _settle_layer(self, modules: Modules, state: TemplateState) -> None:
        before = self._templates.state(modules)
        if before is None or before is TemplateState.FAILED:
            return  # given up before it came
        self._templates.set(modules, state)
        if modules in self._templates.user:
            self._templates.touch(modules, self._now_s)
            self._timers.set(self._now_s + TEMPLATE_IDLE_S, "unused", self._templates.user[modules].number)
        self._follow_templates()

    def _layer_timed_out(self, modules: Modules) -> None:
        if self._templates.state(modules) is TemplateState.LOADING:
            self._settle_layer(modules, TemplateState.FAILED)

    def _template_unfit(self, event: ev.TemplateUnfit) -> None:
        """Its code has run, but what it left behind does not survive a fork: executors are made without it."""
        if self._templates.state(event.names) is TemplateState.LOADING:
            self._emit(ev.TellTemplateUnused(event.names, event.reason))
            self._settle_layer(event.names, TemplateState.FAILED)

    def _template_timed_out(self, subject: tuple[int, float]) -> None:
        number, limit_s = subject
        names = self._templates.numbered(number)
        if names is not None and self._templates.state(names) is TemplateState.LOADING:
            self._kill_template(names, FailureKind.SETUP, f"it was not done after its timeout_s={limit_s:g}")

    def _kill_template(self, names: Modules, kind: FailureKind, why: str) -> None:
        """Its end fails the attempts that wait for it."""
        template = self._templates.user[names]
        template.killed = Killed(kind, why)
        self._emit(ev.KillTemplate(template.number))

    def _expire_template(self, number: int) -> None:
        names = self._templates.numbered(number)
        if names is None:
            return
        if self._is_used(names):
            self._templates.touch(names, self._now_s)
        due_s = self._templates.user[names].used_s + TEMPLATE_IDLE_S
        if due_s <= self._now_s:
            self._end_template(names)
        else:
            self._timers.set(due_s, "unused", number)

    def _free_template_memory(self) -> bool:
        """Whether user templates were ended, so that no attempt need be: all that are not used, else one that is not ready."""
        unused = self._templates.unused(self._is_used)
        for names in unused:
            self._end_template(names)
        loading = self._templates.loading_user()
        if not unused and loading is not None:
            self._kill_template(loading, FailureKind.OUT_OF_MEMORY, "the machine had hardly any memory left")
        return bool(unused) or loading is not None

    def _end_template(self, names: Modules) -> None:
        self._let_template_go(names)
        self._follow_templates()

    def _let_template_go(self, names: Modules) -> None:
        for executor in list(self._pool.by_number.values()):
            if executor.template == names and executor.state is ExecutorState.IDLE:
                self._retire(executor)
        self._templates.drop(names)
        self._emit(ev.EndTemplate(names))

    # ---- executors that we end ----
    def _kill(self, executor: Executor) -> None:
        if executor.state is ExecutorState.IDLE:
            self._pool.remove_idle(executor)
        if executor.state is not ExecutorState.RETIRING:
            executor.move(ExecutorState.RETIRING)
        self._emit(ev.SignalGroup(executor.number, ev.Signal.KILL))

    def _retire(self, executor: Executor) -> None:
        if executor.state is ExecutorState.IDLE:
            self._pool.remove_idle(executor)
        executor.move(ExecutorState.RETIRING)
        self._emit(ev.RetireExecutor(executor.number))
        self._timers.set(self._now_s + RETIRE_AFTER_S, "retire", executor.number)

    # ---- look-ups ----
    def _is_used(self, names: Modules) -> bool:
        """Whether an executor of this template works or comes, or an attempt waits for one."""
        working = (ExecutorState.SPAWNING, ExecutorState.BUSY)
        executors = self._pool.by_number.values()
        return any(each.template == names and each.state in working for each in executors) or any(
            self._suits(names, environment) for environment in self._waiting
        )
