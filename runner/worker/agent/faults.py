"""The words for attempts that ended without their executor's word: what, which, what was seen, what to do next."""

from __future__ import annotations

from runner.core.values import FailureKind
from runner.worker.agent.events import Attempt, ExitCause, Fault, MemoryLow, StopReason, TemplateExited
from runner.worker.agent.templates import Killed

_MIB = 1 << 20
_CRASH_SIGNALS = {
    "SIGSEGV": "invalid memory access in native code; run it once with env_vars={'PYTHONFAULTHANDLER': '1'} to see where",
    "SIGABRT": "native code called abort(); its last lines are in the task's log",
    "SIGBUS": "a mapped file was cut or its disk is full; check the space in /dev/shm",
    "SIGILL": "a CPU instruction that this machine lacks; use a build of the library for this CPU",
    "SIGFPE": "an integer division by zero in native code",
    "SIGKILL": "something outside runner killed it; check memory use and who may kill processes here",
    "SIGTERM": "something outside runner ended it",
}


def exited(label: str, pid: int, machine_id: str, cause: ExitCause, *, was_oom: bool) -> Fault:
    """The executor ended and nobody here asked for it."""
    who = f"{label}: executor {pid} on {machine_id}"
    if was_oom:
        return Fault(
            FailureKind.OUT_OF_MEMORY,
            f"{who} was killed by signal 9 (SIGKILL) because the machine ran out of memory; "
            f"use less memory in the task or run fewer at once (num_cpus=, memory=)",
        )
    if cause.signal_number:
        name = cause.signal_name
        advice = _CRASH_SIGNALS.get(name, "see the task's log for its last lines")
        return Fault(FailureKind.WORKER_CRASHED, f"{who} was killed by signal {cause.signal_number} ({name}); {advice}")
    return Fault(
        FailureKind.WORKER_CRASHED,
        f"{who} exited with code {cause.exit_code} while the task ran; return or raise instead of ending the process (sys.exit, os._exit)",
    )


def over_limit(label: str, pid: int, machine_id: str, used_bytes: int, limit_bytes: int, users: str) -> Fault:
    """It was killed here because of its `memory=`."""
    return Fault(
        FailureKind.OUT_OF_MEMORY,
        f"{label}: executor {pid} on {machine_id} was killed because it and its children used "
        f"{used_bytes / _MIB:.0f} MiB, more than its memory={limit_bytes} ({limit_bytes / _MIB:.0f} MiB); "
        f"raise memory= or use less{_users(users)}",
        used_bytes,
    )


def machine_full(attempt: Attempt, pid: int, machine_id: str, low: MemoryLow) -> Fault:
    """It was killed here, because else the kernel would have killed something."""
    why = "the newest attempt there that can be retried" if attempt.may_retry else "the newest attempt there"
    return Fault(
        FailureKind.OUT_OF_MEMORY,
        f"{attempt.label}: executor {pid} on {machine_id} was killed because {low.used_bytes / _MIB:.0f} of the machine's "
        f"{low.total_bytes / _MIB:.0f} MiB of memory were in use, and it was {why}; "
        f"use less memory in the task or run fewer at once (num_cpus=, memory=){_users(low.users)}",
        low.used_by.get(pid, 0),
    )


def _users(users: str) -> str:
    return f"; top memory users: {users}" if users else ""


def not_spawned(label: str, machine_id: str, text: str) -> Fault:
    """There was no executor to run it."""
    return Fault(
        FailureKind.WORKER_CRASHED,
        f"{label}: no executor could be started on {machine_id}: {text}; check the limits on processes and memory there",
    )


def template_exited(event: TemplateExited, killed: Killed | None) -> tuple[FailureKind, str]:
    """The process of a user template ended before its code was done."""
    label, cause = event.label, event.cause
    if killed is not None:
        return killed.kind, f"{label} was killed because {killed.why}"
    if event.was_oom:
        why = "because the machine ran out of memory; load less there"
        return FailureKind.OUT_OF_MEMORY, f"{label} was killed by signal 9 (SIGKILL) {why}"
    if cause.signal_number:
        where = "the machine's log says where it was"
        return FailureKind.SETUP, f"{label} was killed by signal {cause.signal_number} ({cause.signal_name}); {where}"
    why = "return the value instead (os._exit)"
    return FailureKind.SETUP, f"{label} ended its process with exit code {cause.exit_code}; {why}"


def without_template(label: str, machine_id: str, kind: FailureKind, text: str, traceback: str) -> Fault:
    """The code of its template failed before there was an executor for it."""
    return Fault(kind, f"{label} on {machine_id} was not started: {text}", traceback=traceback)


def slow_start(label: str, machine_id: str, stage: str, timeout_s: float) -> Fault:
    """Its function did not come to run in time."""
    return Fault(
        FailureKind.SETUP,
        f"{label} on {machine_id} was not running after its startup_timeout_s={timeout_s:g}: it was still {stage};"
        " give it more time, or less to prepare",
    )


def gave_up_after_suspend(who: str, why: str) -> Fault:
    """It was killed here after a suspend that did not take place."""
    return Fault(
        FailureKind.WORKER_CRASHED,
        f"{who} was killed after a suspend that did not take place, as nobody knows what state it is in: {why}",
    )


def stopped(label: str, machine_id: str, reason: StopReason, *, timeout_s: float) -> Fault:
    """It was stopped as asked."""
    if reason is StopReason.TIMEOUT:
        return Fault(
            FailureKind.TIMEOUT,
            f"{label} on {machine_id} was stopped after its timeout_s={timeout_s:g}; raise timeout_s or make it quicker",
        )
    return Fault(FailureKind.CANCELLED, f"{label} on {machine_id} was cancelled")
