"""The lab's certificate authority: it says which machine may call itself by which name.

- Its private key stays in one folder, which only its owner can read, and in this module.
- A certificate is good for one end of a link: the coordinator's to listen, an edge's to connect. So no edge can pose as
  the coordinator.
- An edge's certificate is short-lived, as zenoh knows no list of revoked ones: who is not given a new one is out.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from coordinator.errors import CoordinatorError
from edge.wire.enrolment import public_key_of
from edge.wire.tls import AUTHORITY_FILE, OTHERS, Tls

FOLDER = "authority"  # in the folder of a run
PRIVATE_FILE, SERVER_FILE, SERVER_KEY_FILE, LOCK_FILE = "ca.key", "server.pem", "server.key", ".lock"
NAME, SERVER_NAME = "ENPIRE lab", "coordinator"
EARLIER = timedelta(minutes=5)  # for clocks that differ
AUTHORITY_LIFE, SERVER_LIFE, EDGE_LIFE = timedelta(days=3650), timedelta(days=365), timedelta(days=7)
OWNER_ONLY_FOLDER, OWNER_ONLY_FILE, PUBLIC_FILE = 0o700, 0o600, 0o644
PEM = serialization.Encoding.PEM
SIGNS_CERTIFICATES, SIGNS = "certificates", "links"


class AuthorityRefused(CoordinatorError):
    """The authority's files cannot be made, read or trusted to be private."""


class Authority:
    """What makes certificates out of public keys."""

    def __init__(self, folder: Path) -> None:
        """Open the authority in `folder`, made now if there is none.

        Raises:
            AuthorityRefused: files are missing, not what they should be, or open to others.
        """
        self._folder = folder
        try:
            folder.mkdir(mode=OWNER_ONLY_FOLDER, parents=True, exist_ok=True)
            with open(folder / LOCK_FILE, "wb") as lock:  # two commands may come first at once
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not self.file.exists():  # the last one to be written
                    self._make()
            private = folder / PRIVATE_FILE
            if private.stat().st_mode & OTHERS:
                raise AuthorityRefused(f"others can read {private}; whoever has it can pose as any edge: chmod 600 it, "
                                       "or take the folder away and enrol all edges anew")  # fmt: skip
            self._certificate = x509.load_pem_x509_certificate(self.file.read_bytes())
            self._key = _p256(private.read_bytes())
        except OSError as error:
            raise AuthorityRefused(f"cannot use the authority in {folder}: {error.strerror}") from error
        except ValueError as error:
            raise AuthorityRefused(f"the authority in {folder} cannot be read: {error}") from error

    @property
    def file(self) -> Path:
        """The authority's own certificate, PEM: what edges pin."""
        return self._folder / AUTHORITY_FILE

    def server(self, hosts: Collection[str], now: datetime | None = None) -> Tls:
        """Return the coordinator's own certificate for these hosts; one with less than half its life to go is renewed.

        Args:
            hosts: names and addresses under which edges reach it; this machine's own are added.
        """
        wanted = sorted({*hosts, "localhost", "127.0.0.1", socket.gethostname()})
        tls = Tls(self.file, self._folder / SERVER_FILE, self._folder / SERVER_KEY_FILE)
        at = now or datetime.now(UTC)
        if not _covers(tls.certificate, wanted, at):
            key = ec.generate_private_key(ec.SECP256R1())
            alternatives = x509.SubjectAlternativeName([_general_name(host) for host in wanted])
            builder = self._builder(SERVER_NAME, key.public_key(), at, SERVER_LIFE, ExtendedKeyUsageOID.SERVER_AUTH)
            certificate = builder.add_extension(alternatives, critical=False).sign(self._key, hashes.SHA256())
            tls.certificate.unlink(missing_ok=True)  # never beside another key
            write_whole(tls.key, _private_pem(key), OWNER_ONLY_FILE)
            write_whole(tls.certificate, certificate.public_bytes(PEM), PUBLIC_FILE)
        return tls

    def issue(self, csr: bytes, name: str, now: datetime, life: timedelta = EDGE_LIFE) -> bytes:
        """Return a PEM certificate for the key in a request, with which its holder may connect as `name`.

        Raises:
            RequestRefused: the request is not one for this name, see `edge.wire.enrolment`.
        """
        key = serialization.load_der_public_key(public_key_of(csr, name))
        assert isinstance(key, ec.EllipticCurvePublicKey)
        builder = self._builder(name, key, now, life, ExtendedKeyUsageOID.CLIENT_AUTH)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(PEM)

    def _builder(
        self, name: str, key: ec.EllipticCurvePublicKey, now: datetime, life: timedelta, use: x509.ObjectIdentifier
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder(self._certificate.subject, _name(name), key, x509.random_serial_number())
            .not_valid_before(now - EARLIER)
            .not_valid_after(now + life)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(SIGNS), critical=True)
            .add_extension(x509.ExtendedKeyUsage([use]), critical=True)
        )

    def _make(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder(_name(NAME), _name(NAME), key.public_key(), x509.random_serial_number())
            .not_valid_before(now - EARLIER)
            .not_valid_after(now + AUTHORITY_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(SIGNS_CERTIFICATES), critical=True)
            .sign(key, hashes.SHA256())
        )
        write_whole(self._folder / PRIVATE_FILE, _private_pem(key), OWNER_ONLY_FILE)
        write_whole(self.file, certificate.public_bytes(PEM), PUBLIC_FILE)


def hosts_in(certificate: Path) -> list[str]:
    """Return the names and addresses that a certificate is for."""
    try:
        loaded = x509.load_pem_x509_certificate(certificate.read_bytes())
        names = loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound):
        return []
    return sorted([*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))])


def _covers(certificate: Path, hosts: Sequence[str], now: datetime) -> bool:
    if hosts_in(certificate) != list(hosts):
        return False
    loaded = x509.load_pem_x509_certificate(certificate.read_bytes())
    return loaded.not_valid_before_utc <= now and now + SERVER_LIFE / 2 <= loaded.not_valid_after_utc


def _general_name(host: str) -> x509.GeneralName:
    with suppress(ValueError):
        return x509.IPAddress(ip_address(host))
    return x509.DNSName(host)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(what: str) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=what == SIGNS, key_cert_sign=what == SIGNS_CERTIFICATES, crl_sign=False,
        content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _p256(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("not a P-256 key")
    return key


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def write_whole(path: Path, data: bytes, mode: int) -> None:
    """Write a file whole or not at all, readable as told from its first byte on."""
    unfinished = path.with_name(path.name + ".part")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    unfinished.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
