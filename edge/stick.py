"""Brings a lab's signed repository to a station by hand: from a folder, as on a USB stick, where there is no network.

The same code as over the network, with another fetcher: what is on the stick is believed for its signatures alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.activation.journal import ActivationError, Journal
from edge.trust.client import Trust
from edge.trust.errors import TrustError
from edge.trust.folder import FolderFetcher
from edge.uplink.settings import UplinkError, read_settings
from edge.uplink.supply import NotSupplied, Supply


class ImportRefused(Exception):
    """What is in the folder may not run here; one line that says why."""


@dataclass(frozen=True)
class Imported:
    """What a station knows and has after an import."""

    order: int  # number of the one that stands, 0 where none does
    ordered: str  # the bundle that it names, empty for none
    state: str  # of that bundle
    brought: tuple[str, ...]  # bundles that were named, and may run leased trials now
    revoked: int  # bundles that are forbidden for good


def import_bundles(station: Path, folder: Path, bundles: Sequence[str]) -> Imported:
    """Follow what the repository in `folder` says, and bring the bundles that are named besides.

    Raises:
        ImportRefused: the station's files, the repository or a bundle cannot be used.
    """
    try:
        settings = read_settings(station)
        with Journal(settings.journal_path) as journal:
            trust = Trust(settings.trust, FolderFetcher(folder))
            supply = Supply(settings, trust, journal, weights_within_s=float("inf"))
            supply.turn()
            if supply.refusal:
                older = "version" in supply.refusal
                hint = "; a station that has been in touch with its coordinator since knows more than the stick"
                raise ImportRefused(supply.refusal + hint * older)
            for bundle in bundles:
                supply.bring(bundle)
            line = journal.line()
            ordered = line.order.bundle if line.order is not None else ""
            state = journal.row(ordered).state if ordered else ""
            return Imported(line.floor, ordered, state, tuple(bundles), len(journal.revoked()))
    except (UplinkError, NotSupplied, TrustError, ActivationError) as error:
        raise ImportRefused(str(error)) from error
