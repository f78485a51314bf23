"""What a machine asks to be called, the six words for it, and the certificates that say so."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.publish.authority import EDGE_LIFE, SERVER_LIFE, Authority, AuthorityRefused, hosts_in
from edge.wire.enrolment import Request, RequestRefused, make_request, pack, unpack
from edge.wire.words import WORDS

EDGE = "arm-01"
SECRET = bytes(16)
TLS_KEY, LEDGER_KEY = ec.generate_private_key(ec.SECP256R1()), Ed25519PrivateKey.generate()
REQUEST = make_request(EDGE, SECRET, TLS_KEY, LEDGER_KEY)


# -- requests and fingerprints ----------------------------------------------------------------------------------------


def test_a_request_arrives_as_it_was_made() -> None:
    assert unpack(pack(REQUEST)) == REQUEST


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_request_that_was_altered_asks_for_nothing_else(data: st.DataObject) -> None:
    packed = bytearray(pack(REQUEST))
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    with suppress(RequestRefused):
        found = unpack(bytes(packed))  # e.g. with another ticket, or other white space in PEM
        assert (found.edge, found.tls_key, found.ledger_key) == (EDGE, REQUEST.tls_key, REQUEST.ledger_key)


def csr(name: str = EDGE, key: Any = TLS_KEY) -> bytes:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    made = x509.CertificateSigningRequestBuilder(subject).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM)


OTHER_LEDGER = Ed25519PrivateKey.generate()
NO_REQUESTS: dict[str, tuple[Request, str]] = {
    "for another name": (replace(REQUEST, edge="arm-02"), "is for"),
    "with a request for another name": (replace(REQUEST, csr=csr("arm-02")), "is for"),
    "of another TLS key": (replace(REQUEST, csr=csr(key=ec.generate_private_key(ec.SECP256R1()))), "did not sign"),
    "of another ledger key": (replace(REQUEST, ledger_key=OTHER_LEDGER.public_key().public_bytes_raw()), "did not"),
    "of a larger curve": (replace(REQUEST, csr=csr(key=ec.generate_private_key(ec.SECP384R1()))), "P-256"),
    "with no request in it": (replace(REQUEST, csr=b"nothing"), "cannot be read"),
    "with a huge one": (replace(REQUEST, csr=bytes(5000)), "5000 bytes"),
    "with a short ticket": (replace(REQUEST, ticket=b"short"), "not a request"),
    "for a name that is none": (replace(REQUEST, edge="a/b"), "not a request"),
}


@pytest.mark.parametrize(("request_", "why"), NO_REQUESTS.values(), ids=NO_REQUESTS)
def test_a_request_that_its_keys_did_not_make_is_refused(request_: Request, why: str) -> None:
    with pytest.raises(RequestRefused, match=why):
        unpack(pack(request_))


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x90", b"\x80", b"\x81\xa6format\x02"])
def test_noise_is_no_request(payload: bytes) -> None:
    with pytest.raises(RequestRefused):
        unpack(payload)


def test_six_words_stand_for_name_and_both_keys() -> None:
    others = [
        make_request("arm-02", SECRET, TLS_KEY, LEDGER_KEY),
        make_request(EDGE, SECRET, ec.generate_private_key(ec.SECP256R1()), LEDGER_KEY),
        make_request(EDGE, SECRET, TLS_KEY, OTHER_LEDGER),
    ]
    assert len({REQUEST.fingerprint, *(item.fingerprint for item in others)}) == 4
    assert make_request(EDGE, bytes(15) + b"x", TLS_KEY, LEDGER_KEY).fingerprint == REQUEST.fingerprint
    assert len(REQUEST.fingerprint.split()) == 6


def test_no_word_can_be_taken_for_another() -> None:
    assert len(set(WORDS)) == 256
    for one, other in combinations(WORDS, 2):
        longer, shorter = sorted((one, other), key=len, reverse=True)
        if len(one) == len(other):
            assert sum(a != b for a, b in zip(one, other, strict=True)) > 1, (one, other)
        else:
            assert shorter not in (longer[:at] + longer[at + 1 :] for at in range(len(longer))), (one, other)
        assert one.isalpha()
        assert one.isascii()
        assert one.islower()


# -- the authority ----------------------------------------------------------------------------------------------------


def test_an_authority_is_private_and_stays_the_same(tmp_path: Path) -> None:
    made = Authority(tmp_path / "authority").file.read_bytes()
    assert Authority(tmp_path / "authority").file.read_bytes() == made
    assert (tmp_path / "authority").stat().st_mode & 0o777 == 0o700
    for name in ("ca.key", "server.key"):
        Authority(tmp_path / "authority").server([])
        assert (tmp_path / "authority" / name).stat().st_mode & 0o777 == 0o600


def test_an_authority_s_key_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    Authority(tmp_path)
    (tmp_path / "ca.key").chmod(0o640)
    with pytest.raises(AuthorityRefused, match="others can read"):
        Authority(tmp_path)


@pytest.mark.parametrize("spoil", [lambda path: path.write_text("no key"), lambda path: path.unlink()])
def test_an_authority_without_its_key_says_so(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    Authority(tmp_path)
    spoil(tmp_path / "ca.key")
    with pytest.raises(AuthorityRefused, match="the authority in"):
        Authority(tmp_path)


def test_the_coordinator_s_certificate_is_made_anew_for_another_host_and_in_time(tmp_path: Path) -> None:
    authority, now = Authority(tmp_path), datetime.now(UTC)
    first = authority.server(["lab.example", "10.0.0.5"], now)
    assert {"lab.example", "10.0.0.5", "127.0.0.1", "localhost"} <= {*hosts_in(first.certificate)}
    made = first.certificate.read_bytes()
    assert authority.server(["10.0.0.5", "lab.example"], now + 0.4 * SERVER_LIFE).certificate.read_bytes() == made
    later = authority.server(["10.0.0.5", "lab.example"], now + 0.6 * SERVER_LIFE).certificate.read_bytes()
    other = authority.server(["lab.example"], now + 0.6 * SERVER_LIFE).certificate.read_bytes()
    assert len({made, later, other}) == 3
    assert authority.server(["lab.example"], now).certificate.read_bytes() != other  # which is not good yet


def test_a_certificate_is_for_one_end_and_a_week(tmp_path: Path) -> None:
    now = datetime(2026, 11, 1, tzinfo=UTC)
    authority = Authority(tmp_path)
    made = x509.load_pem_x509_certificate(authority.issue(csr(), EDGE, now))
    made.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.file.read_bytes()))
    assert made.subject.rfc4514_string() == f"CN={EDGE}"
    assert made.not_valid_after_utc == now + EDGE_LIFE == now + timedelta(days=7)
    assert made.public_key() == TLS_KEY.public_key()
    uses = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(uses) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    with pytest.raises(RequestRefused):
        authority.issue(csr("arm-02"), EDGE, now)
