"""Errors and gRPC statuses: total in both directions."""

from __future__ import annotations

import inspect
from typing import Any

import grpc
import pytest

from runner import errors
from runner.errors import (
    AuthenticationError,
    CoordinatorUnreachableError,
    InternalError,
    RunnerError,
    TaskError,
    UnschedulableError,
)
from runner.rpc.security import Authority, fingerprint
from runner.rpc.status import CODES, DETAIL_BYTES_MAX, FOREIGN, abort_status, from_rpc_error

ADDRESS = "127.0.0.1:7420"
ALL_CLASSES = [
    cls
    for name, cls in vars(errors).items()
    if inspect.isclass(cls) and issubclass(cls, RunnerError) and not name.startswith("_")
]


class FakeRpcError(grpc.RpcError):
    def __init__(self, code: grpc.StatusCode | None, details: str | None) -> None:
        super().__init__()
        self._code, self._details = code, details

    def code(self) -> Any:
        return self._code

    def details(self) -> Any:
        return self._details


def over_the_wire(error: BaseException) -> RunnerError:
    return from_rpc_error(FakeRpcError(*abort_status(error)), ADDRESS)


def test_every_error_class_has_one_status():
    assert set(CODES) == set(ALL_CLASSES)


@pytest.mark.parametrize("cls", ALL_CLASSES)
def test_every_error_class_comes_back_as_itself(cls):
    back = over_the_wire(cls("task t-1: what; seen: what; do: what {not json}"))
    assert type(back) is cls
    assert str(back) == "task t-1: what; seen: what; do: what {not json}"


@pytest.mark.parametrize("code", list(grpc.StatusCode))
@pytest.mark.parametrize("detail", ["", "something odd", "NoSuchError: text", None])
def test_every_status_becomes_a_typed_error(code, detail):
    error = from_rpc_error(FakeRpcError(code, detail), ADDRESS)
    assert type(error) is FOREIGN[code]
    assert ADDRESS in str(error)
    assert "None" not in str(error)


def test_a_call_without_a_status_is_an_unreachable_coordinator():
    assert type(from_rpc_error(FakeRpcError(None, None), ADDRESS)) is CoordinatorUnreachableError
    assert type(from_rpc_error(grpc.RpcError(), ADDRESS)) is CoordinatorUnreachableError


def test_the_fields_of_an_attempt_travel():
    error = TaskError(
        "it failed", task_id="t-1", task_name="lr=1: {x}", attempt=3, machine_id="m-2", history=("attempt 1: a", "two")
    )
    back = over_the_wire(error)
    assert vars(back) == vars(error)
    assert str(back) == str(error)


def test_a_subclass_goes_by_its_nearest_listed_base():
    class Special(UnschedulableError, ValueError):
        pass

    back = over_the_wire(Special("no machine has 9 GPUs", task_id="t-9"))
    assert type(back) is UnschedulableError
    assert back.task_id == "t-9"


def test_a_foreign_exception_does_not_tell_its_text():
    code, detail = abort_status(ValueError("password=hunter2"))
    assert code is grpc.StatusCode.INTERNAL
    assert "hunter2" not in detail
    assert "ValueError" in detail
    assert type(over_the_wire(ValueError("x"))) is InternalError


@pytest.mark.parametrize("text", ["x" * 20_000, "ü" * 20_000, "\U0001f600" * 20_000, "a\n" * 20_000])
def test_long_messages_fit_into_metadata(text):
    _, detail = abort_status(TaskError(text, task_id="t-1", history=tuple(["line " * 20] * 100)))
    encoded = sum(1 if " " <= char <= "~" else 3 * len(char.encode()) for char in detail)
    assert encoded <= DETAIL_BYTES_MAX + 9  # the ellipsis
    back = from_rpc_error(FakeRpcError(grpc.StatusCode.UNKNOWN, detail), ADDRESS)
    assert type(back) is TaskError
    assert back.task_id == "t-1"


def test_a_detail_cut_within_its_fields_still_gives_the_type():
    back = from_rpc_error(FakeRpcError(grpc.StatusCode.UNKNOWN, 'TaskError{"task_id": "t-'), ADDRESS)
    assert type(back) is TaskError


def test_fields_that_a_class_does_not_declare_are_ignored():
    detail = 'TaskError{"attempt": 2, "new_field": 1, "__class__": 1, "args": ["x"], "with_traceback": 1}: m'
    back = from_rpc_error(FakeRpcError(grpc.StatusCode.UNKNOWN, detail), ADDRESS)
    assert vars(back) == {"attempt": 2} | {
        key: value for key, value in vars(TaskError("m")).items() if key != "attempt"
    }
    assert back.args == ("m",)


HANDSHAKE = (
    "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Tls handshake failed "
    "(TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: error:1000007d:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: "
    "unable to get local issuer certificate: OK"
)


def test_a_failed_handshake_says_which_authority_was_expected():
    authority = Authority.create()
    error = from_rpc_error(FakeRpcError(grpc.StatusCode.UNAVAILABLE, HANDSHAKE), ADDRESS, ca_pem=authority.ca_pem)
    assert type(error) is AuthenticationError
    assert str(error) == (
        f"the TLS handshake with {ADDRESS} failed: expected a certificate by the certificate authority "
        f"{fingerprint(authority.ca_pem)} (certificate verify failed: unable to get local issuer certificate); "
        "check that address, RUNNER_CA and token belong to the same cluster"
    )


def test_an_unreachable_coordinator_names_the_address_and_what_to_do():
    detail = (
        "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: "
        "Failed to connect to remote host: Connection refused"
    )
    error = from_rpc_error(FakeRpcError(grpc.StatusCode.UNAVAILABLE, detail), ADDRESS)
    assert type(error) is CoordinatorUnreachableError
    assert str(error) == (
        f"no coordinator answers at {ADDRESS} (Failed to connect to remote host: Connection refused); "
        "check the address and that it runs there: `runner status`, or start one: `runner up`"
    )
