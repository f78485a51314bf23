"""What an edge that asks for an identity says, and the six words by which two people compare it.

- The edge makes both of its keys itself; only their public halves travel, in a request that both keys sign.
- The fingerprint is over the edge's name and both public keys. Six words of 256 are 48 bits: enough for what two people
  compare within a day, as a forger would also need the ticket, and some 10^14 tries for keys with the same words.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import msgpack
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import NameOID

from edge.records import EDGE_NAME
from edge.wire.words import WORDS

FORMAT = 1
TICKET_BYTES = 16
FINGERPRINT_BYTES = 6
MOST_CSR_BYTES = 4096


class RequestRefused(Exception):
    """What came is no request that its sender can have meant; the message is one line."""


@dataclass(frozen=True)
class Request:
    """An edge's wish for a certificate."""

    edge: str
    ticket: bytes  # proves that whoever handed it out meant this machine
    csr: bytes  # PEM: the public TLS key, signed by its private half
    ledger_key: bytes  # Ed25519, raw: what this edge's trials are signed with
    proof: bytes  # the ledger key's signature over the edge's name and the public TLS key

    @property
    def tls_key(self) -> bytes:
        """The public TLS key, DER."""
        return public_key_of(self.csr, self.edge)

    @property
    def fingerprint(self) -> str:
        """Six words over the edge's name and both of its public keys."""
        digest = hashlib.sha256(_bound(self.edge, self.tls_key) + self.ledger_key).digest()
        return " ".join(WORDS[byte] for byte in digest[:FINGERPRINT_BYTES])


def make_request(edge: str, ticket: bytes, tls: ec.EllipticCurvePrivateKey, ledger: Ed25519PrivateKey) -> Request:
    """Return the request of the edge that holds these two keys."""
    csr = make_csr(edge, tls)
    proof = ledger.sign(_bound(edge, public_key_of(csr, edge)))
    return Request(edge, ticket, csr, ledger.public_key().public_bytes_raw(), proof)


def make_csr(edge: str, tls: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a PEM request for a certificate of this name and key."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, edge)])
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(tls, hashes.SHA256())
    return csr.public_bytes(serialization.Encoding.PEM)


def pack(request: Request) -> bytes:
    """Return a request as it travels."""
    data: bytes = msgpack.packb({"format": FORMAT, **vars(request)})
    return data


def unpack(payload: bytes) -> Request:
    """Return the request in a payload, both of its signatures checked.

    Raises:
        RequestRefused: not a request, or one that the holder of its keys did not make.
    """
    try:
        raw = msgpack.unpackb(payload)
    except (ValueError, msgpack.UnpackException) as error:
        raise RequestRefused("not a request for a certificate") from error
    # fmt: off
    match raw:
        case {"format": format_} if format_ != FORMAT:
            raise RequestRefused(f"a request of format {format_!r:.20}; this coordinator reads {FORMAT}")
        case {
            "edge": str(edge), "ticket": bytes(ticket), "csr": bytes(csr), "ledger_key": bytes(key),
            "proof": bytes(proof), **rest,
        } if EDGE_NAME.fullmatch(edge) and len(ticket) == TICKET_BYTES and set(rest) == {"format"}:
            request = Request(edge, ticket, csr, key, proof)
        case _:
            raise RequestRefused("not a request for a certificate")
    # fmt: on
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(proof, _bound(edge, request.tls_key))
    except (InvalidSignature, ValueError) as error:
        raise RequestRefused("its ledger's key did not sign it") from error
    return request


def public_key_of(csr: bytes, edge: str) -> bytes:
    """Return the public key, DER, of a request for a certificate of this name.

    Raises:
        RequestRefused: not such a request, not signed by its key, or not a P-256 key.
    """
    if not len(csr) <= MOST_CSR_BYTES:
        raise RequestRefused(f"a certificate request of {len(csr)} bytes; at most {MOST_CSR_BYTES} are read")
    try:
        asked = x509.load_pem_x509_csr(csr)
        key = asked.public_key()
        names = [str(item.value) for item in asked.subject]
        sound = asked.is_signature_valid
    except Exception as error:  # whatever a stranger's bytes make the parser raise, e.g. UnsupportedAlgorithm
        raise RequestRefused("its certificate request cannot be read") from error
    if not (isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1) and sound):
        raise RequestRefused("its certificate request is not signed by a P-256 key of its own")
    if names != [edge]:
        raise RequestRefused(f"its certificate request is for {names!r:.100}, not for {edge!r}")
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _bound(edge: str, tls_key: bytes) -> bytes:
    return b"enpire enrolment\0" + edge.encode() + b"\0" + tls_key
