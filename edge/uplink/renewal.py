"""Keeps a station's certificate young: a new one for the same key is asked for at half of its life.

- The new certificate replaces the old one in one step; zenoh looks at the file whenever it links, and links anew when
  the old certificate ends.
- Where none is given the station goes on with what it has, and without the network after that; nothing is lost.
"""

from __future__ import annotations

import logging
import math
from datetime import UTC

import msgpack

from edge.identity import PUBLIC_FILE, IdentityError, check_certificate, load_key, validity, write_whole
from edge.uplink.network import Line, NoAnswer, Refused
from edge.wire import RENEW, key_of
from edge.wire.enrolment import make_csr
from edge.wire.tls import Tls

LOG = logging.getLogger("edge.uplink")
AGAIN_S = 600.0


class Renewal:
    """One station's certificate."""

    def __init__(self, identity: Tls, edge: str, line: Line) -> None:
        self._identity, self._edge, self._line = identity, edge, line
        self._again_s = -math.inf

    def tend(self, now_unix_s: float, now_s: float) -> bool:
        """Renew the certificate if it is time to; return whether it was renewed.

        Args:
            now_s: of a clock that nobody sets: after a wrong date the next try must not be a year away.
        """
        if now_s < self._again_s:
            return False
        self._again_s = now_s + AGAIN_S
        try:
            begins, ends = validity(self._identity.certificate)
            if now_unix_s < (begins.timestamp() + ends.timestamp()) / 2:
                return False
            if not now_unix_s < ends.timestamp():
                raise IdentityError("it has ended; carry a new ticket here and run enpire-edge enrol")
            self._renew()
        except NoAnswer:
            return False
        except (IdentityError, Refused, OSError) as error:
            LOG.warning("the certificate in %s is not renewed: %s", self._identity.certificate, error)
            return False
        LOG.info("the certificate is renewed; it was good until %s", ends.astimezone(UTC).isoformat(" ", "minutes"))
        return True

    def _renew(self) -> None:
        key = load_key(self._identity.key)
        answer = self._line.ask(key_of(self._edge, RENEW), make_csr(self._edge, key))
        try:
            certificate = msgpack.unpackb(answer)["certificate"]
        except (ValueError, KeyError, TypeError, msgpack.UnpackException) as error:
            raise IdentityError("an answer without a certificate") from error
        pem = check_certificate(certificate, self._identity.authority.read_bytes(), self._edge, key)
        write_whole(self._identity.certificate, pem, PUBLIC_FILE)
