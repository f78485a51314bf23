"""Answers the machines that want to be an edge: at the door with a ticket, over their own link for a renewal.

- A ticket gets one certificate. The machine that it is bound to may ask again, as answers get lost; another one is
  refused, and a person sees at the coordinator a fingerprint that is not the edge's.
- A renewal is for the very key that was approved. A new key is a new enrolment.
- The coordinator's own certificate is made anew at half of its life, as at every start.
- A name that was revoked is answered nothing, whatever its machine asks.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

import msgpack

from coordinator.enrolment import Enrolment, EnrolmentRefused, Row
from coordinator.errors import CoordinatorError
from coordinator.network import Network, Question
from coordinator.publish.authority import EDGE_LIFE, Authority
from edge.wire import ENROL, RENEW
from edge.wire.enrolment import Request, RequestRefused, public_key_of, unpack

LIFE_S = EDGE_LIFE.total_seconds()
LOOK_EVERY_S = 60.0  # at the coordinator's own certificate
YOUNG = 0.9  # so much of its life left means that the answer with it got lost
GET_ONE = "get a new one by enpire-coord enrol ticket"


class Registrar:
    """Between the network and the enrolments, for the coordinator's loop."""

    def __init__(self, enrolment: Enrolment, authority: Authority, hosts: Collection[str] = ()) -> None:
        """Answer for this authority; `hosts` are names under which edges reach this machine."""
        self._enrolment, self._authority, self._hosts = enrolment, authority, hosts
        self._look_s = -math.inf

    def tend(self, network: Network, now_s: float) -> None:
        """Let talk who may, under a certificate of the coordinator's that is young; a change opens all links anew.

        Args:
            now_s: of a clock that nobody sets.

        Raises:
            CoordinatorError: the database, the authority's folder or the endpoint cannot be used.
        """
        if now_s >= self._look_s:
            self._look_s = now_s + LOOK_EVERY_S
            self._keep_own_certificate()
        network.admit(self._enrolment.edges())

    def _keep_own_certificate(self) -> None:
        try:
            self._authority.server(self._hosts)
        except OSError as error:
            raise CoordinatorError(f"cannot renew the coordinator's certificate: {error}") from error

    def took(self, question: Question, now_unix_s: float) -> bool:
        """Answer or refuse a question that is the registrar's to answer; return whether it was.

        Raises:
            CoordinatorError: the database cannot be used; the question is left open.
        """
        try:
            if question.topic == ENROL:
                question.answer(msgpack.packb(self._enrol(question, now_unix_s)))
            elif refusal := self._enrolment.refusal(question.edge):
                question.refuse(refusal)
            elif question.topic == RENEW:
                question.answer(msgpack.packb(self._renew(question, now_unix_s)))
            else:
                return False
        except (RequestRefused, EnrolmentRefused) as error:
            question.refuse(str(error))
        finally:
            if question.topic in (ENROL, RENEW):
                question.drop()
        return True

    def _enrol(self, question: Question, now_unix_s: float) -> dict[str, Any]:
        request = unpack(question.payload)
        if request.edge != question.edge:
            raise EnrolmentRefused(f"asked as {question.edge!r}, but in the name of {request.edge!r}")
        row = self._bound(request, now_unix_s)
        match row.state:
            case "waiting":
                return {"state": "waiting"}
            case "approved":
                return {"state": "approved", "certificate": self._first_certificate(row, request, now_unix_s)}
            case "denied":
                raise EnrolmentRefused("it was denied at the coordinator; ask there why")
            case _:
                raise EnrolmentRefused(f"its ticket is good no more; {GET_ONE}")

    def _bound(self, request: Request, now_unix_s: float) -> Row:
        """Return the row of a request's ticket, which is bound to its keys if it was not bound yet."""
        keys = (request.tls_key.hex(), request.ledger_key.hex())
        row = self._enrolment.of_ticket(request.ticket)
        if row is not None and row.edge == request.edge and row.state == "ticket":
            if not now_unix_s < row.ticket_until_unix_s:
                raise EnrolmentRefused(f"its ticket has run out; {GET_ONE}")
            self._enrolment.bind(row, *keys, request.fingerprint, now_unix_s)
            row = self._enrolment.of_ticket(request.ticket)
        if row is None or row.edge != request.edge:
            raise EnrolmentRefused(f"nobody made this ticket for {request.edge!r} here; {GET_ONE}")
        if row.tls_key and keys != (row.tls_key, row.ledger_key):
            raise EnrolmentRefused(f"its ticket was used before, by a machine with other keys; {GET_ONE}")
        return row

    def _first_certificate(self, row: Row, request: Request, now_unix_s: float) -> str:
        if not row.certificate:
            return self._issue(row, request.csr, now_unix_s)
        if not now_unix_s < (row.certificate_until_unix_s or 0.0):
            raise EnrolmentRefused(f"its ticket was used, and the certificate that it got has ended; {GET_ONE}")
        return row.certificate

    def _renew(self, question: Question, now_unix_s: float) -> dict[str, Any]:
        csr, row = question.payload, self._enrolment.approved(question.edge)
        if row is None:
            raise EnrolmentRefused(f"{question.edge!r} is not enrolled here; get a ticket by enpire-coord enrol ticket")
        if public_key_of(csr, row.edge).hex() != row.tls_key:
            raise EnrolmentRefused("renew: for another key than the one that was approved; enrol anew for a new key")
        if (row.certificate_until_unix_s or 0.0) - now_unix_s > YOUNG * LIFE_S:
            return {"certificate": row.certificate}
        return {"certificate": self._issue(row, csr, now_unix_s)}

    def _issue(self, row: Row, csr: bytes, now_unix_s: float) -> str:
        certificate = self._authority.issue(csr, row.edge, datetime.fromtimestamp(now_unix_s, UTC)).decode()
        self._enrolment.certified(row, certificate, now_unix_s + LIFE_S)
        return certificate
