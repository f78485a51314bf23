"""A station is brought by hand what its lab has signed, and believes nothing else that lies on the stick."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coordinator.publish.keys import Keyring
from coordinator.publish.repository import Repository
from edge.activation.journal import Journal
from edge.cli import app
from edge.emulation.stations import make_stations
from edge.records import RolloutOrder, RolloutStart, order_to_json
from edge.stick import ImportRefused, import_bundles
from policies import bundle as bundles
from tests.harness.bundles import bundle_of

POLICY = Path(bundles.__file__).parent / "push_t"
STARTS = (RolloutStart("s1", {"x_m": 0.3}, 1),)


class Stick:
    """A lab, a station that trusts it, and a copy of its repository."""

    def __init__(self, folder: Path) -> None:
        self.ring = Keyring.for_demo(folder / "keys")
        self.repository = Repository.create(folder / "trust", self.ring)
        self.name, self.archive = bundle_of(POLICY)
        (folder / "root.json").write_bytes(self.repository.root())
        make_stations(folder / "stations", 1, 1, "push_t", "tcp/127.0.0.1:1", folder / "root.json")
        self.station = folder / "stations" / "station-1"
        self.folder = folder / "stick"
        self._made = folder / "trust"

    def copy(self) -> Path:
        """Put the repository on the stick as it is now."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self._made, self.folder)
        return self.folder

    def order(self, number: int) -> None:
        now = time.time()
        order = RolloutOrder(number, self.name, "push_t", "active", STARTS, now, now + 600.0)
        self.repository.assign("station-1", order_to_json(order), self.ring)


@pytest.fixture
def stick(tmp_path: Path) -> Stick:
    return Stick(tmp_path)


def test_what_people_released_and_ordered_comes_without_a_network(stick: Stick) -> None:
    stick.repository.release("push_t", stick.archive, stick.ring.humans, stick.ring)
    stick.order(1)
    done = import_bundles(stick.station, stick.copy(), ())
    assert (done.order, done.ordered, done.state) == (1, stick.name, "verified")
    assert bundles.read_unpacked(stick.station / "bundles" / stick.name).task == "push_t"
    assert import_bundles(stick.station, stick.folder, ()) == done


def test_a_bundle_that_is_named_is_brought_and_one_that_nobody_signed_is_not(stick: Stick) -> None:
    stick.repository.offer_candidate("push_t", stick.archive, stick.ring)
    assert import_bundles(stick.station, stick.copy(), [stick.name]).brought == (stick.name,)
    with pytest.raises(ImportRefused, match="no role names"):
        import_bundles(stick.station, stick.folder, ["c" * 64])


def test_a_revocation_comes_too(stick: Stick) -> None:
    stick.repository.offer_candidate("push_t", stick.archive, stick.ring)
    import_bundles(stick.station, stick.copy(), [stick.name])
    stick.repository.revoke(stick.name, "now", stick.ring.humans[0], stick.ring)
    assert import_bundles(stick.station, stick.copy(), ()).revoked == 1
    with Journal(stick.station / "activation.db") as journal:
        assert journal.row(stick.name).state == "revoked"


def test_an_older_stick_is_refused_and_changes_nothing(stick: Stick) -> None:
    older = shutil.copytree(stick.copy(), stick.folder.with_name("older"))
    stick.repository.release("push_t", stick.archive, stick.ring.humans, stick.ring)
    stick.order(1)
    done = import_bundles(stick.station, stick.copy(), ())
    with pytest.raises(ImportRefused) as caught:
        import_bundles(stick.station, older, ())
    assert "\n" not in str(caught.value)
    assert import_bundles(stick.station, stick.folder, ()) == done


def test_a_stick_of_another_lab_is_refused(stick: Stick, tmp_path: Path) -> None:
    other = Stick(tmp_path / "other")
    with pytest.raises(ImportRefused):
        import_bundles(stick.station, other.copy(), ())
    with Journal(stick.station / "activation.db") as journal:
        assert journal.rows() == []


def test_the_command_says_what_came_or_in_one_line_why_not(stick: Stick, tmp_path: Path) -> None:
    stick.repository.release("push_t", stick.archive, stick.ring.humans, stick.ring)
    stick.order(1)
    words = ["import-bundle", str(stick.station), str(stick.copy())]
    done = CliRunner().invoke(app, [*words, "--json"])
    assert (done.exit_code, json.loads(done.output)["state"]) == (0, "verified")
    assert "is verified" in CliRunner().invoke(app, words).output
    for station, folder in ((stick.station, tmp_path / "nothing"), (tmp_path / "nobody", stick.folder)):
        refused = CliRunner().invoke(app, ["import-bundle", str(station), str(folder)])
        assert (refused.exit_code, len(refused.output.splitlines())) == (2, 1)
