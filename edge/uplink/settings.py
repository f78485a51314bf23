"""The few lines of a station's files that its uplink needs.

The station's own process checks the whole of station.toml; reading it here with `edge.station` would bring numba in and
double the memory of a process that only carries bytes. A test holds the two readings together.
"""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from pathlib import Path

from calibration.records import CalibrationError, load_calibration
from edge.wire.tls import IDENTITY_FOLDER, OTHERS, Tls


class UplinkError(Exception):
    """Base of everything that the uplink raises; the message is one line."""


class SettingsError(UplinkError):
    """The station's files do not say whom to talk to."""


@dataclass(frozen=True)
class Settings:
    """Who this station is and whom it asks for work."""

    folder: Path
    name: str
    task: str
    endpoint: str
    station_hash: str
    calibration_hash: str
    tls: Tls | None = None  # with which it proves who it is; None for a coordinator on this machine
    reserve_mb: float = 200.0  # of the disk, which weights leave to the ledger
    disk_mb: float = 64_000.0  # of a larger disk this much counts
    trial_mb_per_s: float = 4.0  # for recordings while a trial runs, so that what it needs of the network is free

    @property
    def ledger_path(self) -> Path:
        """Where the station and its uplink meet."""
        return self.folder / "ledger.db"

    @property
    def bundles(self) -> Path:
        """Where verified bundles are unpacked, one folder each, named by sha256."""
        return self.folder / "bundles"

    @property
    def weights(self) -> Path:
        """Where verified files of weights lie, each named by its sha256; bundles link to them."""
        return self.folder / "weights"

    @property
    def trust(self) -> Path:
        """Whose signatures count, and what they have signed."""
        return self.folder / "trust"

    @property
    def journal_path(self) -> Path:
        """Which policies this station runs, and which it may."""
        return self.folder / "activation.db"

    @property
    def status_path(self) -> Path:
        """What the station is doing right now."""
        return self.folder / "status.json"


def read_settings(folder: Path) -> Settings:
    """Return the settings of the station in `folder`.

    Raises:
        SettingsError: a file is missing or does not hold what is needed.
    """
    path = folder / "station.toml"
    try:
        text = path.read_bytes()
        raw = tomllib.loads(text.decode())
        storage = raw.get("storage", {})
        return Settings(
            folder=folder,
            name=str(raw["name"]),
            task=str(raw["task"]),
            endpoint=str(raw["coordinator"]["endpoint"]),
            station_hash=hashlib.sha256(text).hexdigest(),
            calibration_hash=load_calibration(folder / "calibration.toml").sha256,
            tls=_identity(folder, str(raw["coordinator"]["endpoint"])),
            reserve_mb=float(storage.get("reserve_mb", Settings.reserve_mb)),
            disk_mb=float(storage.get("disk_mb", Settings.disk_mb)),
            trial_mb_per_s=float(storage.get("trial_mb_per_s", Settings.trial_mb_per_s)),
        )
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # ValueError: not TOML, not UTF-8
        raise SettingsError(f"{path} does not name its coordinator rightly: {error!r}") from error
    except CalibrationError as error:
        raise SettingsError(str(error)) from error


def _identity(folder: Path, endpoint: str) -> Tls | None:
    """Return the files that an endpoint wants, None where it wants none.

    Raises:
        SettingsError: it wants some, and they are missing or open to others.
    """
    if not endpoint.startswith("tls/"):
        return None
    tls = Tls.of(folder / IDENTITY_FOLDER)
    if not all(path.is_file() for path in (tls.authority, tls.certificate, tls.key)):
        raise SettingsError(
            f"{folder} has no identity to show at {endpoint}: make a ticket by enpire-coord enrol ticket, "
            f"carry it here and run enpire-edge enrol {folder} TICKET"
        )
    if tls.key.stat().st_mode & OTHERS:
        raise SettingsError(f"others can read {tls.key} and pose as this station; take it away and enrol anew")
    return tls
