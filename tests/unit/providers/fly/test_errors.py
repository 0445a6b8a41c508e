"""What refusals mean. Every row names where its text comes from."""

from __future__ import annotations

import pytest

from runner.providers.fly.errors import AMBIGUOUS, RETRYABLE, Kind, body_texts, classify, named_machine, scrub

CAPACITY_FACES = [
    # REFERENCE 1.3, the five faces of no capacity, and `status` of the body
    (412, "", "insufficient resources"),
    (
        409,
        "",
        "aborted: could not reserve resource for machine: insufficient memory available to fulfill request",
    ),
    (422, "", "insufficient resources available to fulfill request"),
    (422, "insufficient_capacity", "could not place the volume"),
    (400, "", "no capacity"),
    (403, "", "organization is over the allowed quota"),
    (409, "", "insufficient CPUs available to fulfill request"),
    (503, "insufficient_capacity", "try elsewhere"),
]


@pytest.mark.parametrize(("status", "code", "text"), CAPACITY_FACES)
def test_no_capacity_in_all_its_forms(status: int, code: str, text: str) -> None:
    assert classify(status, code, text) is Kind.CAPACITY


@pytest.mark.parametrize(
    ("status", "code", "text", "kind"),
    [
        # REFERENCE 0.4: a repeat carries the id of the machine that has the name
        (409, "", "already_exists: unique machine name violation, machine ID 3d8d9014b32d89", Kind.ALREADY_EXISTS),
        (422, "", "already_exists: machine 3d8d9014b32d89", Kind.ALREADY_EXISTS),
        # REFERENCE 1.2 lease row: 409 when another holds it
        (409, "", "failed to acquire lease: lease currently held by someone@example.com", Kind.LEASED),
        (412, "", "machine is leased", Kind.LEASED),
        # REFERENCE 1.2 start row
        (412, "", "unable to start machine from current state: 'replacing'", Kind.REPLACING),
        (412, "", "unable to start machine from current state: 'destroyed'", Kind.WRONG_STATE),
        # REFERENCE 1.2 metadata row: 412 if machine_version no longer matches
        (412, "", "machine_version does not match", Kind.STALE),
        # REFERENCE 1.2 wait row
        (408, "", "machine failed to reach desired state, started, currently stopped", Kind.TIMEOUT),
        # REFERENCE 1.2 apps row
        (422, "name_taken", "Validation failed: Name has already been taken", Kind.NAME_TAKEN),
        (422, "", "Validation failed: Name has already been taken", Kind.NAME_TAKEN),
        # REFERENCE 1.3, codes
        (422, "unknown", "invalid config.guest.cpu_kind", Kind.INVALID),
        (422, "", "release_command is not allowed", Kind.INVALID),
        (400, "", "instance_id required when waiting for stopped machine", Kind.INVALID),
        (401, "", "unauthorized", Kind.UNAUTHORIZED),
        (401, "", "no capacity to check the token", Kind.UNAUTHORIZED),
        (403, "", "forbidden", Kind.FORBIDDEN),
        (403, "", "unauthorized: the token has expired", Kind.UNAUTHORIZED),
        (404, "", "machine not found", Kind.NOT_FOUND),
        (404, "", "lease not found", Kind.NOT_FOUND),
        (429, "", "rate limit exceeded", Kind.RATE_LIMITED),
        (500, "", "internal error", Kind.SERVER),
        (502, "", "<html>bad gateway</html>", Kind.SERVER),
        (409, "", "something else", Kind.OTHER),
        (418, "", "teapot", Kind.OTHER),
    ],
)
def test_the_body_decides_before_the_status(status: int, code: str, text: str, kind: Kind) -> None:
    assert classify(status, code, text) is kind


def test_what_may_pass_and_what_may_have_been_done() -> None:
    """REFERENCE 1.3, retryable; 0.4, a timeout on create is ambiguous."""
    assert {Kind.TIMEOUT, Kind.RATE_LIMITED, Kind.SERVER, Kind.UNREACHABLE, Kind.INTERRUPTED} == RETRYABLE
    assert Kind.DEADLINE not in RETRYABLE
    assert {Kind.TIMEOUT, Kind.INTERRUPTED, Kind.SERVER, Kind.DEADLINE} == AMBIGUOUS


def test_the_machine_in_the_text() -> None:
    assert named_machine("already_exists: machine ID 3d8d9014b32d89 already exists") == "3d8d9014b32d89"
    assert named_machine("already_exists") == ""


@pytest.mark.parametrize(
    ("body", "texts"),
    [
        ({"error": "a", "status": "unknown"}, ("unknown", "a")),
        ({"message": "b"}, ("", "b")),
        ({"error": "", "message": "c", "details": {}}, ("", "c")),
        ({"error": 5, "status": 409}, ("", "the answer says no reason")),
        ("plain", ("", "plain")),
        (None, ("", "")),
        ([1], ("", "[1]")),
    ],
)
def test_bodies_of_any_form(body, texts) -> None:
    assert body_texts(body) == texts


def test_secrets_are_blacked_out_and_texts_cut() -> None:
    assert scrub("token fm2_abc\n and fm2_abcdef", ["fm2_abc", "fm2_abcdef", ""]) == "token [secret] and [secret]"
    assert len(scrub("x" * 5000, [])) == 300
