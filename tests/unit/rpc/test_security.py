"""Certificates, tokens, and that secrets stay out of texts."""

from __future__ import annotations

import datetime
import ipaddress
import subprocess
import sys

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store

from runner.errors import AuthenticationError
from runner.rpc.channels import peer_machine, require_tls13, require_token, token_metadata
from runner.rpc.security import Authority, MachineIdentity, fingerprint, make_csr, new_token, tokens_equal


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create()


def certificate(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem)


def test_an_authority_survives_storage(authority):
    loaded = Authority.load(authority.ca_pem, authority.key_pem)
    _, pem = loaded.issue_server()
    certificate(pem).verify_directly_issued_by(certificate(authority.ca_pem))


def test_an_authority_with_a_foreign_key_is_refused(authority):
    with pytest.raises(AuthenticationError, match="does not belong"):
        Authority.load(authority.ca_pem, Authority.create().key_pem)
    with pytest.raises(AuthenticationError, match="PEM"):
        Authority.load(b"junk", authority.key_pem)
    with pytest.raises(AuthenticationError, match="PEM"):
        Authority.load(authority.ca_pem, b"junk")


def test_keys_are_p256(authority):
    key = certificate(authority.ca_pem).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP256R1)


def test_server_certificate_names(authority):
    _, pem = authority.issue_server(["10.1.2.3", "gpu-7.example", "localhost"])
    names = certificate(pem).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["runner-coordinator", "localhost", "gpu-7.example"]
    assert [str(each) for each in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1", "10.1.2.3"]


def test_a_strict_verifier_accepts_the_server_certificate(authority):
    _, pem = authority.issue_server()
    verifier = (
        PolicyBuilder()
        .store(Store([certificate(authority.ca_pem)]))
        .build_server_verifier(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    )
    verifier.verify(certificate(pem), [])


def test_machine_certificate_says_who_it_is_and_nothing_that_the_request_asked_for(authority):
    key_pem, csr_pem = make_csr("m-evil")
    cert = certificate(authority.sign_csr(csr_pem, "m-1", generation=4))
    assert [each.value for each in cert.subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == ["m-1"]
    uris = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    (uri,) = uris.get_values_for_type(x509.UniformResourceIdentifier)
    assert MachineIdentity.from_uri(uri) == MachineIdentity("m-1", 4)
    assert list(cert.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.CLIENT_AUTH
    ]
    assert b"PRIVATE KEY" in key_pem


def test_certificates_are_backdated_a_day(authority):
    _, csr_pem = make_csr("m-1")
    now = datetime.datetime.now(datetime.UTC)
    for pem in (authority.ca_pem, authority.issue_server()[1], authority.sign_csr(csr_pem, "m-1")):
        assert now - certificate(pem).not_valid_before_utc > datetime.timedelta(hours=23)
        assert certificate(pem).not_valid_after_utc - now > datetime.timedelta(days=365)


@pytest.mark.parametrize(
    "junk", [b"", b"junk", b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"]
)
def test_an_unreadable_request_is_refused(authority, junk):
    with pytest.raises(AuthenticationError, match="m-1 is not valid"):
        authority.sign_csr(junk, "m-1")


def test_tokens():
    token = new_token()
    assert len(token) >= 43
    assert token != new_token()
    assert tokens_equal(token, token)
    assert not tokens_equal(token, new_token())
    assert not tokens_equal("", "")
    assert not tokens_equal("\xfc", token)


def test_a_call_needs_exactly_one_right_token():
    token = new_token()
    require_token(token_metadata(token), token)
    for metadata in (
        None,
        (),
        (("authorization", ""),),
        token_metadata("x"),
        token_metadata("x") + token_metadata(token),
    ):
        with pytest.raises(AuthenticationError) as caught:
            require_token(metadata, token)
        assert token not in str(caught.value)


def test_tls_below_1_3_is_refused():
    require_tls13({"ssl_tls_version": [b"TLSv1.3"]})
    for context, seen in (({"ssl_tls_version": [b"TLSv1.2"]}, "TLSv1.2"), ({}, "unknown version")):
        with pytest.raises(AuthenticationError, match=seen):
            require_tls13(context)


@pytest.mark.parametrize(
    "context",
    [
        {},
        {"x509_common_name": [b"m-1"]},
        {"x509_common_name": [b"m-1"], "peer_uri": [b"https://example.org"]},
        {"x509_common_name": [b"m-2"], "peer_uri": [b"runner://machine/m-1/generation/1"]},
        {
            "x509_common_name": [b"m-1"],
            "peer_uri": [b"runner://machine/m-1/generation/1", b"runner://machine/m-1/generation/2"],
        },
    ],
)
def test_a_certificate_that_names_no_machine_is_refused(context):
    with pytest.raises(AuthenticationError, match="machine"):
        peer_machine(context)


def test_secrets_are_not_in_the_repr(authority):
    assert "PRIVATE" not in repr(authority)


def test_fingerprint_is_the_certificates_sha256(authority):
    from cryptography.hazmat.primitives import hashes

    expected = certificate(authority.ca_pem).fingerprint(hashes.SHA256())[:8].hex(":")
    assert fingerprint(authority.ca_pem) == expected


def test_clients_do_not_load_cryptography():
    code = "import sys, runner.rpc.channels, runner.rpc.status, runner.rpc.clusters; sys.exit('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
