"""When the code of user templates runs, who waits for it, and when their processes end."""

from __future__ import annotations

import itertools
from typing import Any

from runner.core.values import FailureKind
from runner.worker.agent import events as ev
from runner.worker.agent.events import Attempt, Environment, ExitCause, Signal
from runner.worker.agent.template_flow import LAYER_AFTER_S, TEMPLATE_IDLE_S
from runner.worker.agent.templates import BASE, USER_TEMPLATES_MAX, Templates, TemplateState
from tests.unit.worker.test_agent_machine import KILLED, Script, attempt, kinds

TORCH = frozenset({"torch"})
MODEL = TORCH | {"template-model"}
OTHER = frozenset({"template-other"})


SLOTS = itertools.count(100)


def using(name: str, names: frozenset[str] = MODEL, **fields: Any) -> Attempt:
    environment = Environment(layer=names, template_s=fields.pop("limit_s", 0.0))
    return attempt(name, slot=fields.pop("slot", next(SLOTS)), environment=environment, **fields)


def faults(commands: list[ev.Command]) -> list[ev.Fault]:
    return [each.fault for each in commands if isinstance(each, ev.ReportEnded) and each.fault is not None]


def ready(script: Script, names: frozenset[str] = OTHER) -> int:
    """Have an attempt ask for this template, and its code done; returns the number of the executor that is on its way."""
    script(ev.AttemptAssigned(using(f"of {sorted(names)}", names)))
    (spawn,) = script(ev.LayerReady(names))
    assert isinstance(spawn, ev.SpawnExecutor)
    assert spawn.template == names
    return spawn.number


def run(script: Script, number: int) -> None:
    """The executor comes, runs what waits for it, and is idle."""
    (started, _) = script(ev.ExecutorReady(number, 4000 + number))
    assert isinstance(started, ev.RunAttempt)
    script(ev.ExecutorEnded(number, started.serial, b""))


def test_the_layer_comes_first_then_the_code_then_executors() -> None:
    script = Script(is_leased=False).registered()
    assert script(ev.AttemptAssigned(using("a"))) == [ev.LoadLayer(TORCH)]
    (make,) = script(ev.LayerReady(TORCH))
    assert make == ev.MakeTemplate(2, MODEL, TORCH)
    assert script(ev.AttemptAssigned(using("b"))) == []
    assert script(ev.LayerReady(MODEL)) == [ev.SpawnExecutor(3, MODEL), ev.SpawnExecutor(4, MODEL)]
    assert kinds(script(ev.ExecutorReady(3, 4711))) == ["RunAttempt", "ReportStarted"]


def test_a_larger_layer_will_do_as_parent() -> None:
    script = Script(is_leased=False).registered()
    large = TORCH | {"pandas"}
    script(ev.LayerWanted(large))
    script(ev.LayerReady(large))
    assert script(ev.AttemptAssigned(using("a"))) == [ev.MakeTemplate(2, MODEL, large)]


def test_without_the_layer_the_code_imports_for_itself() -> None:
    script = Script(is_leased=False).registered()
    script(ev.AttemptAssigned(using("a")))
    assert script(ev.Ticked(), after_s=LAYER_AFTER_S) == [ev.MakeTemplate(2, MODEL, BASE)]


def test_executors_with_user_code_are_for_nobody_else() -> None:
    script = Script(is_leased=False).registered()
    run(script, ready(script, OTHER))
    script(ev.AttemptAssigned(attempt("plain", slot=77)))
    assert script.commands[-2] == ev.RunAttempt(1, 2, attempt("plain", slot=77))
    script(ev.AttemptAssigned(using("both", OTHER | {"template-model"})))
    assert isinstance(script.commands[-1], ev.MakeTemplate)


def test_a_function_without_templates_is_not_forked_from_one() -> None:
    script = Script(is_leased=False).registered()
    large = TORCH | {"numpy", "pandas"}
    script(ev.LayerWanted(large))
    script(ev.LayerReady(large))
    ready(script, MODEL)
    plain = attempt("plain", slot=77, environment=Environment(layer=TORCH))
    assert script(ev.AttemptAssigned(plain)) == [ev.SpawnExecutor(4, large)]


def test_what_was_crowded_out_once_is_a_template_like_any_other_later() -> None:
    templates = Templates()
    templates.begin(MODEL, 1, 0.0)
    templates.crowd_out(OTHER)
    templates.drop(MODEL)
    templates.begin(OTHER, 2, 0.0)
    templates.set(OTHER, TemplateState.READY)
    templates.begin(MODEL, 3, 0.0)
    templates.drop(MODEL)
    assert templates.find(OTHER) == OTHER


def test_what_the_code_raises_fails_all_that_wait_and_is_tried_again() -> None:
    script = Script(is_leased=False).registered()
    script(ev.AttemptAssigned(using("a", OTHER)))
    script(ev.AttemptAssigned(using("b", OTHER)))
    script(ev.AttemptAssigned(using("c", frozenset({"template-third"}))))
    commands = script(ev.TemplateFailed(OTHER, "template m.f raised ValueError: x", "Traceback"))
    text = "task a (f) attempt 1 on m-1 was not started: template m.f raised ValueError: x"
    assert faults(commands)[0] == ev.Fault(FailureKind.SETUP, text, traceback="Traceback")
    assert len(faults(commands)) == 2
    assert script(ev.TemplateExited(2, "template m.f", ExitCause(exit_code=0))) == []
    assert script(ev.AttemptAssigned(using("d", OTHER))) == [ev.MakeTemplate(4, OTHER, BASE)]


def test_the_next_of_a_slot_has_its_own_try() -> None:
    script = Script(is_leased=False).registered()
    script(ev.AttemptAssigned(using("a", OTHER, slot=5)))
    script(ev.AttemptAssigned(using("b", OTHER, slot=5)))
    commands = script(ev.TemplateFailed(OTHER, "no", ""))
    assert kinds(commands) == ["ReportEnded", "MakeTemplate"]


def test_code_that_crashes_says_how() -> None:
    script = Script(is_leased=False).registered()
    script(ev.AttemptAssigned(using("a", OTHER)))
    cause = ExitCause(signal_number=11, signal_name="SIGSEGV")
    (fault,) = faults(script(ev.TemplateExited(2, "template m.f", cause)))
    assert fault.kind is FailureKind.SETUP
    assert "template m.f was killed by signal 11 (SIGSEGV)" in fault.message


def test_code_that_takes_all_memory_may_be_tried_elsewhere() -> None:
    script = Script(is_leased=False).registered()
    script(ev.AttemptAssigned(using("a", OTHER)))
    (fault,) = faults(script(ev.TemplateExited(2, "template m.f", KILLED, was_oom=True)))
    assert fault.kind is FailureKind.OUT_OF_MEMORY
    assert "ran out of memory" in fault.message


def test_code_that_hangs_is_killed_and_its_limit_named() -> None:
    script = Script(is_leased=False).registered()
    script(ev.AttemptAssigned(using("a", OTHER, limit_s=30.0)))
    assert script(ev.Ticked(), after_s=29.9) == []
    assert script(ev.Ticked(), after_s=0.2) == [ev.KillTemplate(2)]
    (fault,) = faults(script(ev.TemplateExited(2, "template m.f", KILLED)))
    assert fault.message.endswith("template m.f was killed because it was not done after its timeout_s=30")


def test_code_that_was_done_in_time_has_no_limit() -> None:
    script = Script(is_leased=False).registered()
    script(ev.AttemptAssigned(using("a", OTHER, limit_s=30.0)))
    script(ev.LayerReady(OTHER))
    assert script(ev.Ticked(), after_s=31) == []


def test_what_must_not_be_forked_is_done_without_and_told() -> None:
    script = Script(is_leased=False).registered()
    script(ev.LayerWanted(TORCH))
    script(ev.LayerReady(TORCH))
    script(ev.AttemptAssigned(using("a")))
    told, spawn = script(ev.TemplateUnfit(MODEL, "threads live on"))
    assert told == ev.TellTemplateUnused(MODEL, "threads live on")
    assert spawn == ev.SpawnExecutor(3, TORCH)
    assert script(ev.TemplateExited(2, "template m.f", ExitCause(exit_code=0))) == []
    assert script(ev.AttemptAssigned(using("b"))) == [ev.SpawnExecutor(4, TORCH)]


def test_a_ready_template_that_dies_is_made_again_when_needed() -> None:
    script = Script(is_leased=False).registered()
    run(script, ready(script))
    assert script(ev.TemplateExited(2, "template m.f", KILLED)) == []
    script(ev.ExecutorExited(3, KILLED))
    assert script(ev.AttemptAssigned(using("b", OTHER))) == [ev.MakeTemplate(4, OTHER, BASE)]


def test_an_unused_template_ends_after_a_while_with_its_idle_executors() -> None:
    script = Script(is_leased=False).registered()
    run(script, ready(script))
    commands = script(ev.Ticked(), after_s=TEMPLATE_IDLE_S + 1)
    assert commands[-2:] == [ev.RetireExecutor(3), ev.EndTemplate(OTHER)]
    assert script(ev.AttemptAssigned(using("b", OTHER))) == [ev.MakeTemplate(4, OTHER, BASE)]
    assert script(ev.TemplateExited(2, "template m.f", ExitCause(exit_code=0))) == []


def test_a_template_in_use_stays() -> None:
    script = Script(is_leased=False).registered()
    number = ready(script)
    script(ev.ExecutorReady(number, 4711))
    assert ev.EndTemplate(OTHER) not in script(ev.Ticked(), after_s=3 * TEMPLATE_IDLE_S)
    script(ev.ExecutorEnded(number, 1, b""), after_s=1)
    assert ev.EndTemplate(OTHER) not in script(ev.Ticked(), after_s=TEMPLATE_IDLE_S - 1)
    assert ev.EndTemplate(OTHER) in script(ev.Ticked(), after_s=TEMPLATE_IDLE_S + 1)


def test_the_template_that_had_work_longest_ago_makes_room() -> None:
    script = Script(cpus=8, is_leased=False)
    several = [frozenset({f"template-{index}"}) for index in range(USER_TEMPLATES_MAX)]
    for names in several:
        run(script, ready(script, names))
        script(ev.Ticked(), after_s=1)
    script(ev.AttemptAssigned(using("again", several[0])))  # on its idle executor
    commands = script(ev.AttemptAssigned(using("next")))
    assert commands == [ev.LoadLayer(TORCH)]
    commands = script(ev.LayerReady(TORCH))
    assert kinds(commands) == ["RetireExecutor", "EndTemplate", "MakeTemplate"]
    assert commands[1] == ev.EndTemplate(several[1])


def test_with_all_in_use_one_more_is_done_without_until_there_is_room() -> None:
    script = Script(cpus=8, is_leased=False)
    several = [frozenset({f"template-{index}"}) for index in range(USER_TEMPLATES_MAX)]
    busy = [ready(script, names) for names in several]
    for number in busy:
        script(ev.ExecutorReady(number, 4000 + number))
    told, *others = script(ev.AttemptAssigned(using("a", OTHER)))
    assert told == ev.TellTemplateUnused(OTHER, "the machine has 4 templates already, all of them in use")
    assert others == [ev.SpawnExecutor(busy[-1] + 1, BASE)]
    script(ev.ExecutorEnded(busy[2], 3, b""))
    assert kinds(script(ev.AttemptAssigned(using("b", several[2])))) == ["RunAttempt", "ReportStarted"]
    number = next(
        each.number for each in script.commands if isinstance(each, ev.MakeTemplate) and each.names == several[2]
    )
    (make,) = script(ev.TemplateExited(number, "template 2", KILLED))
    assert isinstance(make, ev.MakeTemplate)
    assert make.names == OTHER


def test_templates_go_before_attempts_when_memory_is_low() -> None:
    script = Script(is_leased=False).registered()
    script(ev.AttemptAssigned(attempt("worker", slot=4)))
    run(script, ready(script, OTHER))
    script(ev.AttemptAssigned(using("b", frozenset({"template-loading"}), slot=6)))
    low = ev.MemoryLow(95, 100, "", {})
    assert script(low) == [ev.RetireExecutor(3), ev.EndTemplate(OTHER)]
    assert script(low) == [ev.KillTemplate(4)]
    (fault,) = faults(script(ev.TemplateExited(4, "template m.f", KILLED)))
    assert fault.kind is FailureKind.OUT_OF_MEMORY
    assert fault.message.endswith("was killed because the machine had hardly any memory left")
    assert script(low) == [ev.SignalGroup(1, Signal.KILL)]


def test_a_start_with_a_time_limit_says_that_it_waits_for_a_template() -> None:
    script = Script(is_leased=False).registered()
    script(ev.AttemptAssigned(using("a", MODEL, startup_timeout_s=5.0)))
    (fault,) = faults(script(ev.Ticked(), after_s=6))
    assert "still waiting for a worker process that has imported torch, made from its template;" in fault.message
