"""Takes what the lab orders and takes back into the activation journal of a station."""

from __future__ import annotations

import logging
from collections.abc import Callable

from edge.activation.journal import Journal, OrderRefused
from edge.records import RecordError, order_from_json
from edge.trust.client import Trust, Unreachable
from edge.uplink.weights import PAUSE_S

LOG = logging.getLogger("edge.uplink")


class Orders:
    """The lab's word to one station, as the newest good refresh of its trust has found it."""

    def __init__(
        self, trust: Trust, journal: Journal, edge: str, clock: Callable[[], float], refuse: Callable[[str], None]
    ) -> None:
        """Note in `journal` what `trust` says to `edge`; `refuse` is told what is not taken, and why."""
        self._trust, self._journal, self._edge = trust, journal, edge
        self._clock, self._refuse = clock, refuse
        self._looked_at = b""  # the newest that was taken, or never can be
        self._ask_at_s = float("-inf")

    def take_back(self) -> None:
        """Have the journal know what was revoked, which needs no answer."""
        known = self._journal.revoked()
        for bundle, when in self._trust.revoked().items():
            if known.get(bundle) not in (when, "now"):
                self._journal.revoke(bundle, when)

    def take(self) -> None:
        """Offer the journal the order that stands; what it refuses now is offered again, as a clock may be set.

        Raises:
            TrustError: as `Trust.order`, but for `Unreachable`: its file is asked for again after a while.
        """
        standing = self._journal.line().order
        if standing is not None:
            self._settle_override(standing.bundle)
        if self._clock() < self._ask_at_s:
            return
        try:
            data = self._trust.order(self._edge)
        except Unreachable as error:  # about this file alone, as the lab has just said that it is there
            self._ask_at_s = self._clock() + PAUSE_S
            self._refuse(f"the order for {self._edge} does not come: {error}")
            return
        if data is not None:
            self._offer(data)

    def _offer(self, data: bytes) -> None:
        if data == self._looked_at:
            return
        try:
            order = order_from_json(data)
            self._settle_override(order.bundle)
            if self._journal.offer(order):
                LOG.info("order %d: %s %s", order.number, order.stage, order.bundle[:12])
        except OrderRefused as error:
            self._refuse(str(error))
            return
        except RecordError as error:
            self._refuse(str(error))
        self._looked_at = data

    def _settle_override(self, bundle: str) -> None:
        """Have the journal know whether two people let a bundle do without a canary now; what they sign expires."""
        allowed = self._trust.overridden(bundle)
        if allowed != self._journal.overridden(bundle):
            self._journal.override(bundle, allowed)
