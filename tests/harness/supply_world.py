"""A station whose uplink brings down what a real lab has signed, through an emulated coordinator that only carries."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgpack

from coordinator.publish.naming import offer, target_file
from edge.activation.journal import Journal
from edge.ledger import Ledger
from edge.records import RolloutOrder, RolloutStart, Trial, order_to_json
from edge.trust.client import Trust
from edge.uplink.courier import Courier
from edge.uplink.fetcher import ZenohFetcher
from edge.uplink.network import Coordinator
from edge.uplink.settings import Settings
from edge.uplink.supply import REFRESH_EVERY_S, Supply
from edge.wire import key_of
from edge.wire.targets import CANDIDATES, bundle_path
from policies.bundle import bundle_id
from tests.harness.bundle_format import FILES, as_json, bundle_of, manifest_of
from tests.harness.lab_folder import TASK, LabFolder
from tests.harness.uplink_world import EDGE, Desk, Here, lease, leases, say

DAY_S = 86_400.0
# The day of the lab and its station: far from today, by which python-tuf judges what has expired.
TODAY_S = 4_000_000_000.0
TARGETS = ("targets/",)  # what a coordinator may leave without an answer
EVERYTHING = ("metadata/", *TARGETS)
MOST_CANDIDATES = 64


@dataclass
class Station:
    """One station, its lab, and who carries between them."""

    desk: Desk
    line: Coordinator
    lab: LabFolder
    settings: Settings
    ledger: Ledger
    now_unix_s: list[float]  # the time of day of the lab and of the station
    clock_s: list[float] = field(default_factory=lambda: [0.0])  # what the uplink's clock shows, steadily

    def __post_init__(self) -> None:
        self.journal = Journal(self.settings.journal_path, self.now)
        self.start()

    def start(self) -> None:
        """Start the uplink, or start it anew: what it remembered is gone, what it wrote is not."""
        self.trust = Trust(self.settings.trust, ZenohFetcher(self.line, EDGE), self.now)
        self.supply = Supply(self.settings, self.trust, self.journal, lambda: self.clock_s[0])
        self.courier = Courier(self.settings, self.ledger, self.line, self.supply, "s", lambda: self.clock_s[0])

    def hurry(self) -> None:
        """Start the uplink anew, such that every turn is too short for more than one part of weights."""
        self.start()
        self.supply = Supply(self.settings, self.trust, self.journal, lambda: self.clock_s[0], weights_within_s=0.0)
        self.courier = Courier(self.settings, self.ledger, self.line, self.supply, "s", lambda: self.clock_s[0])

    def arrived_bytes(self) -> int:
        """Return how many bytes of weights are here."""
        return sum(path.stat().st_size for path in self.settings.weights.iterdir())

    def pieces(self) -> int:
        """Return how often weights were asked for."""
        return sum("/weights/" in key for key in self.desk.keys("trust"))

    def release_weights(self, *files: bytes) -> str:
        """Let people release files of weights, and the coordinator's key offer a bundle that wants them."""
        for data in files:
            self.lab.repository.release_weights(data, self.lab.ring.humans, self.lab.ring)
        return self.sign(weighty(*files))

    def now(self) -> float:
        return self.now_unix_s[0]

    def pass_time(self, dt_s: float) -> None:
        """Let the uplink's clock go on."""
        self.clock_s[0] += dt_s

    def turn(self) -> None:
        """Let the supply ask what is new."""
        self.pass_time(REFRESH_EVERY_S)
        self.supply.turn()

    def lend(self, bundle: str) -> None:
        """Hand out work for a bundle from now on."""
        self.desk.replies[key_of(EDGE, "lease")] = leases(lease("a1", sha256=bundle))

    def sign(self, archive: bytes, task: str = TASK, name: str | None = None) -> str:
        """Let the coordinator's key offer these bytes under a name, rightly theirs or not."""
        name = name or bundle_id(archive)
        path = bundle_path(CANDIDATES, task, name)
        repository, ring = self.lab.repository, self.lab.ring
        with repository.changing() as books:
            role = books.targets[CANDIDATES]
            offer(role, path, archive, MOST_CANDIDATES)
            file = repository.folder / target_file(role, path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(archive)
            books.sign(CANDIDATES, [ring.online], self.now())
            repository.publish(books, ring.online)
        return name

    def carried(self, bundle: str) -> Path:
        """Return the file of a candidate that the coordinator hands out."""
        role = self.lab.repository.books().targets[CANDIDATES]
        return self.lab.repository.folder / target_file(role, bundle_path(CANDIDATES, TASK, bundle))

    def order(self, number: int, bundle: str, edge: str = EDGE) -> RolloutOrder:
        """Let the coordinator order a station to take up a bundle."""
        starts = (RolloutStart("dev-1", {"x_m": 0.3}, 7),)
        order = RolloutOrder(number, bundle, TASK, "active", starts, self.now(), self.now() + DAY_S)
        self.lab.repository.assign(edge, order_to_json(order), self.lab.ring)
        return order

    def downloads(self) -> int:
        """Return how often a bundle was asked for."""
        return sum(key.endswith(".tar.zst") for key in self.desk.keys("trust"))

    def arrows(self) -> int:
        """Return how many arrows were ever taken."""
        return len(self.journal.changes(10_000))


def weighty(*files: bytes, sizes: Sequence[int] = ()) -> bytes:
    """Return a bundle that wants files of weights beside it: `net.onnx`, and `net1.onnx` and so on.

    Args:
        sizes: how many bytes it says that they have; by default the truth.
    """
    names = ["net.onnx", *(f"net{number}.onnx" for number in range(1, len(files)))]
    hashes = [hashlib.sha256(data).hexdigest() for data in files]
    named = {
        name: [sha256, size] for name, sha256, size in zip(names, hashes, sizes or list(map(len, files)), strict=True)
    }
    toml = "".join(f'"{name}" = ["{sha256}", {size}]\n' for name, (sha256, size) in named.items())
    contents = {**FILES, "policy.toml": FILES["policy.toml"] + b"\n[weights]\n" + toml.encode()}
    return bundle_of(contents, as_json(manifest_of(contents) | {"weights": named}))


def seal(station: Station) -> Trial:
    """Put a finished trial with a recording into the ledger, and let the coordinator keep both."""
    carrier = Here(
        station.desk, station.settings, station.ledger, station.line, station.supply, station.courier, station.clock_s
    )
    [trial] = carrier.seal(1, b"recording")
    station.desk.replies[key_of(EDGE, "trials")] = say({"acked": [trial.identity]})
    station.desk.replies[key_of(EDGE, f"blob/{trial.recording}")] = lambda data: bytes(
        msgpack.packb({"have": len(data)})
    )
    return trial


@contextmanager
def supplied_station(line: tuple[Desk, Coordinator], lab: Path, folder: Path) -> Iterator[Station]:
    """Make a station in a folder, and its lab a copy of the one in `lab`."""
    desk, coordinator = line
    desk.forget()
    now_unix_s = [TODAY_S]
    copy = LabFolder(shutil.copytree(lab, folder / "lab"), lambda: now_unix_s[0], people=2)
    desk.repository = copy.repository
    settings = Settings(folder / EDGE, EDGE, TASK, coordinator.endpoint, "5" * 64, "6" * 64)
    copy.admit(settings.folder)
    with Ledger(settings.ledger_path, EDGE) as ledger:
        station = Station(desk, coordinator, copy, settings, ledger, now_unix_s)
        with station.journal:
            yield station
