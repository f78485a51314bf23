"""What is published is what was asked for, has one name for one content, and may be tried by stations at once."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from coordinator.publish.ceremony import Ceremony
from coordinator.publish.keys import Keyring
from coordinator.publish.publisher import FOLDER, KEYS, Lab, Publisher
from coordinator.publish.repository import MOST_CANDIDATES, Repository, RepositoryRefused
from coordinator.store import FILE, Store
from edge.trust.client import NotGranted, Stale, Trust
from edge.trust.folder import FolderFetcher
from policies.bundle import BundleError, bundle_id, open_bundle
from policies.space import SpaceError
from tests.harness.lab_folder import POLICY, TASK

DAY_S = 86_400.0


@dataclass
class Here:
    """A publisher, and a station that looks at what it has published."""

    publisher: Publisher
    station: Path
    now_unix_s: list[float]

    @property
    def keys(self) -> Path:
        """Where the lab's keys lie."""
        return self.publisher.lab.repository.folder.parent / KEYS

    def now(self) -> float:
        return self.now_unix_s[0]

    def trust(self) -> Trust:
        """Return the station's trust, which knows nothing yet."""
        return Trust(self.station, FolderFetcher(self.publisher.lab.repository.folder), self.now)

    def rows(self) -> int:
        """Return how many bundles are in the store."""
        return int(self.publisher.store._db.execute("SELECT COUNT(*) FROM bundles").fetchone()[0])

    def timestamp(self) -> int:
        """Return how often anything was signed."""
        return self.publisher.lab.repository.books().timestamp.signed.version


@pytest.fixture
def here(tmp_path: Path) -> Here:
    now_unix_s = [time.time() + DAY_S]  # python-tuf goes by the machine's clock
    ring = Keyring.for_demo(tmp_path / KEYS)
    repository = Repository.create(tmp_path / FOLDER, ring, lambda: now_unix_s[0])
    station = tmp_path / "station" / "trust"
    station.mkdir(parents=True)
    (station / "root.json").write_bytes(repository.root())
    return Here(Publisher(POLICY, Lab(tmp_path / KEYS, ring, repository), Store(tmp_path / FILE)), station, now_unix_s)


def test_a_published_bundle_holds_what_was_asked_and_stations_may_try_it(here: Here) -> None:
    said = {"hypothesis": "Slower is surer.", "researcher": "hand", "commit": "c0ffee"}
    seed = here.publisher.publish({}, {}, None)
    child = here.publisher.publish({"push_speed_m_s": 0.1}, said, seed)
    grant, archive = here.trust().bundle(TASK, child)
    assert grant.role == "candidates"
    assert here.publisher.store.bundle(child) == archive
    assert bundle_id(archive) == child
    manifest = open_bundle(archive, child).manifest
    assert (manifest.params["push_speed_m_s"], manifest.parent, manifest.provenance) == (0.1, seed, said)


def test_of_where_a_bundle_comes_from_it_holds_three_words_and_no_more(here: Here) -> None:
    bundle = here.publisher.publish({}, {"kind": "parameter", "hypothesis": 7, "researcher": "hand"}, None)
    archive = here.publisher.store.bundle(bundle)
    assert archive is not None
    provenance = open_bundle(archive, bundle).manifest.provenance
    assert provenance == {"hypothesis": "7", "researcher": "hand", "commit": ""}


def test_the_same_content_has_the_same_name_and_one_row_and_is_signed_once(here: Here) -> None:
    name = here.publisher.publish({}, {}, None)
    signed = here.timestamp()
    assert here.publisher.publish({}, {}, None) == name
    assert here.rows() == 1
    assert here.timestamp() == signed


def test_a_parameter_out_of_range_is_neither_kept_nor_signed(here: Here) -> None:
    signed = here.timestamp()
    with pytest.raises(SpaceError):
        here.publisher.publish({"push_speed_m_s": 99.0}, {}, None)
    assert (here.rows(), here.timestamp()) == (0, signed)


def test_a_parent_that_is_no_bundle_is_neither_kept_nor_signed(here: Here) -> None:
    signed = here.timestamp()
    with pytest.raises(BundleError):
        here.publisher.publish({}, {}, "../ledger.db")
    assert (here.rows(), here.timestamp()) == (0, signed)


def test_what_was_offered_long_ago_can_be_offered_again(here: Here) -> None:
    bundle = here.publisher.publish({}, {}, None)
    for number in range(MOST_CANDIDATES):
        here.publisher.lab.repository.offer_candidate(TASK, b"%d" % number, here.publisher.lab.ring)
    with pytest.raises(NotGranted):
        here.trust().grant(TASK, bundle)
    here.publisher.offer(TASK, bundle)
    assert here.trust().bundle(TASK, bundle)[1] == here.publisher.store.bundle(bundle)


def test_a_bundle_that_is_not_in_the_store_is_not_offered(here: Here) -> None:
    signed = here.timestamp()
    here.publisher.offer(TASK, "c" * 64)
    assert here.timestamp() == signed


def test_what_is_published_can_be_tried_for_as_long_as_it_is_signed_anew(here: Here) -> None:
    bundle = here.publisher.publish({}, {}, None)
    for _ in range(5):
        here.now_unix_s[0] += 0.6 * DAY_S
        here.publisher.lab.renew()
        assert here.trust().grant(TASK, bundle).expires_unix_s > here.now() + 0.4 * DAY_S
    signed = here.timestamp()
    here.publisher.lab.renew()
    assert here.timestamp() == signed  # once is enough
    here.now_unix_s[0] += 1.1 * DAY_S
    with pytest.raises(Stale):
        here.trust().grant(TASK, bundle)


def test_a_demo_s_keys_and_repository_are_made_in_its_run_and_never_over_another_s(tmp_path: Path) -> None:
    with Store(tmp_path / FILE) as store:
        first = Publisher.for_demo(POLICY, tmp_path, store)
        assert first.lab.ring.threshold == len(first.lab.ring.humans) == 1
        assert first.lab.repository.folder == tmp_path / FOLDER
        root = first.lab.repository.root()
        with pytest.raises(RepositoryRefused, match="already"):
            Publisher.for_demo(POLICY, tmp_path, store)
    assert Repository.open(tmp_path / FOLDER).root() == root


def test_a_coordinator_that_runs_takes_up_the_online_key_that_was_rotated_beside_it(here: Here) -> None:
    lab = here.publisher.lab
    bundle = here.publisher.publish({}, {}, None)
    old = lab.ring.online.public_key
    Ceremony.of(
        lab.repository.folder, here.keys, (str(here.keys / "human-1.pem"),), lambda name: "", False
    ).rotate_online()
    other = here.publisher.publish({"push_speed_m_s": 0.1}, {}, bundle)
    assert lab.ring.online.public_key != old
    assert here.trust().grant(TASK, other).role == "candidates"
