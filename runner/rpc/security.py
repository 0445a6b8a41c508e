"""A cluster's own certificate authority, machine certificates and tokens.

`cryptography` is imported inside the functions: clients never need it.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from runner.errors import AuthenticationError

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

# Every coordinator's certificate carries this name, so that a client needs no DNS name for it.
SERVER_NAME = "runner-coordinator"
# A guest whose clock is in the past (restored snapshot, no NTP yet) must still be able to connect.
BACKDATED_DAYS = 1
CA_DAYS = 3650
# A new server certificate is made at each start of a coordinator, a machine's at each registration.
LEAF_DAYS = 825

_MACHINE_URI = re.compile(r"runner://machine/(?P<machine_id>[^/]+)/generation/(?P<generation>\d+)")


@dataclass(frozen=True)
class MachineIdentity:
    """Who a machine certificate was issued to."""

    machine_id: str
    generation: int

    def uri(self) -> str:
        """As written in the certificate's subject alternative name."""
        return f"runner://machine/{self.machine_id}/generation/{self.generation}"

    def peer_name(self) -> str:
        """What its certificate calls it when it serves other machines."""
        return f"{self.machine_id}-{self.generation}.machine.runner"

    @classmethod
    def from_uri(cls, uri: str) -> MachineIdentity | None:
        """The identity in `uri`, or None when it is another kind of URI."""
        match = _MACHINE_URI.fullmatch(uri)
        return cls(match["machine_id"], int(match["generation"])) if match else None


@dataclass(frozen=True)
class Authority:
    """The certificate authority of one cluster. The key never leaves the coordinator."""

    ca_pem: bytes
    key_pem: bytes = field(repr=False)

    @classmethod
    def create(cls) -> Authority:
        """A new authority with a fresh EC P-256 key."""
        from cryptography import x509

        key = _new_key()
        name = _name(f"runner cluster {secrets.token_hex(4)}")
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        builder = (
            _builder(name, name, key.public_key(), CA_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        return cls(_sign(builder, key), _key_pem(key))

    @classmethod
    def load(cls, ca_pem: bytes, key_pem: bytes) -> Authority:
        """The authority kept in a state directory.

        Raises:
            AuthenticationError: unreadable, or the key does not belong to the certificate.
        """
        authority = cls(ca_pem, key_pem)
        try:
            matches = authority._key.public_key() == authority._certificate.public_key()
        except (ValueError, TypeError):
            raise AuthenticationError("the certificate authority's files cannot be read as PEM") from None
        if not matches:
            raise AuthenticationError("the certificate authority's key does not belong to its certificate")
        return authority

    def issue_server(self, hosts: Sequence[str] = ()) -> tuple[bytes, bytes]:
        """A server key and certificate, both PEM.

        Valid for `runner-coordinator`, localhost, both loopback addresses and
        `hosts` (names or addresses).
        """
        from cryptography import x509
        from cryptography.x509.oid import ExtendedKeyUsageOID

        key = _new_key()
        names = dict.fromkeys([SERVER_NAME, "localhost", "127.0.0.1", "::1", *filter(None, hosts)])
        builder = self._leaf(SERVER_NAME, key.public_key(), ExtendedKeyUsageOID.SERVER_AUTH)
        alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
        return _key_pem(key), _sign(builder.add_extension(alternatives, critical=False), self._key)

    def sign_csr(self, csr_pem: bytes, common_name: str, *, generation: int = 0) -> bytes:
        """A machine certificate (PEM) for the key in `csr_pem`.

        Names and extensions in the request are ignored: the caller says who it is.

        Raises:
            AuthenticationError: the request is unreadable or not signed by its own key.
        """
        from cryptography import x509
        from cryptography.x509.oid import ExtendedKeyUsageOID

        try:
            request = x509.load_pem_x509_csr(csr_pem)
        except ValueError:
            request = None
        if request is None or not request.is_signature_valid:
            raise AuthenticationError(f"the certificate request of {common_name} is not valid")
        uri = MachineIdentity(common_name, generation).uri()
        builder = self._leaf(common_name, request.public_key(), ExtendedKeyUsageOID.CLIENT_AUTH).add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=False
        )
        return _sign(builder, self._key)

    def sign_peer(self, csr_pem: bytes, identity: MachineIdentity) -> bytes:
        """A certificate (PEM) for the same key with which the machine serves other machines, under its own name only.

        `csr_pem` has passed `sign_csr`.
        """
        from cryptography import x509
        from cryptography.x509.oid import ExtendedKeyUsageOID

        key = x509.load_pem_x509_csr(csr_pem).public_key()
        builder = self._leaf(identity.machine_id, key, ExtendedKeyUsageOID.SERVER_AUTH)
        names = x509.SubjectAlternativeName([x509.DNSName(identity.peer_name())])
        return _sign(builder.add_extension(names, critical=False), self._key)

    @cached_property
    def _certificate(self) -> x509.Certificate:
        from cryptography import x509

        return x509.load_pem_x509_certificate(self.ca_pem)

    @cached_property
    def _key(self) -> EllipticCurvePrivateKey:
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        key: Any = load_pem_private_key(self.key_pem, password=None)
        return key  # type: ignore[no-any-return]

    def _leaf(self, name: str, public_key: Any, usage: x509.ObjectIdentifier) -> x509.CertificateBuilder:
        from cryptography import x509

        return (
            _builder(_name(name), self._certificate.subject, public_key, LEAF_DAYS)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            # Strict verifiers (Python 3.13's ssl) insist on it.
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            # Without this a machine could pose as the coordinator to other machines.
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        )


def make_csr(common_name: str) -> tuple[bytes, bytes]:
    """A new EC P-256 key and a certificate request for it, both PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    key = _new_key()
    request = x509.CertificateSigningRequestBuilder().subject_name(_name(common_name)).sign(key, hashes.SHA256())
    return _key_pem(key), request.public_bytes(serialization.Encoding.PEM)


def new_token() -> str:
    """A random token of 256 bits, safe in URLs and headers."""
    return secrets.token_urlsafe(32)


def tokens_equal(given: str, expected: str) -> bool:
    """Whether two tokens are the same, in constant time. An empty token equals nothing."""
    return bool(expected) and hmac.compare_digest(given.encode(), expected.encode())


def fingerprint(certificate_pem: bytes) -> str:
    """Short SHA-256 fingerprint of the first certificate in `certificate_pem`, for people: `5f:2a:…` (8 bytes)."""
    match = re.search(rb"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", certificate_pem, re.DOTALL)
    der = base64.b64decode(match[1]) if match else certificate_pem
    return hashlib.sha256(der).digest()[:8].hex(":")


def _new_key() -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _key_pem(key: EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _name(common_name: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(host: str) -> x509.GeneralName:
    import ipaddress

    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _builder(subject: x509.Name, issuer: x509.Name, public_key: Any, days: int) -> x509.CertificateBuilder:
    from cryptography import x509

    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=BACKDATED_DAYS))
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _sign(builder: x509.CertificateBuilder, key: EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives import hashes, serialization

    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
