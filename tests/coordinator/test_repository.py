"""The repository names what it was told to, on the word of who may say so; a cut leaves the old state or the new."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from coordinator.publish.ceremony import Ceremony
from coordinator.publish.keys import Keyring
from coordinator.publish.repository import GRACE_S, MOST_CANDIDATES, Repository, RepositoryRefused
from coordinator.publish.roles import ROLES
from coordinator.publish.shelf import Shelf
from edge.trust.client import Stale, Tampered, Trust
from edge.trust.folder import FolderFetcher
from edge.wire.targets import ROOT, bundle_path
from tests.harness.lab import EDGE, OTHER_EDGE, TASK, Lab, sha256

ARCHIVE = b"a bundle" * 1000
NAME = sha256(ARCHIVE)
ORDER = b'{"number": 1}'
HOUR_S, DAY_S = 3600.0, 86400.0


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path, float(int(time.time())))


@pytest.fixture
def one_person(tmp_path: Path) -> Lab:
    return Lab(tmp_path, float(int(time.time())), humans=1, threshold=1)


def versions(lab: Lab) -> dict[str, int]:
    """Return the version of every role, as a process that has just started reads them."""
    books = Repository.open(lab.repository.folder, lab.clock).books()
    return {name: books.role(name).signed.version for name in books.names()}


def test_a_new_repository_needs_enough_people(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(RepositoryRefused, match="there is a repository"):
        Repository.create(lab.repository.folder, lab.ring, lab.clock)
    for few, lacking in ((Keyring.open(lab.folder / "keys"), 2), (one_of(lab.ring), 1)):
        with pytest.raises(RepositoryRefused, match=f"{lacking} more signatures"):
            Repository.create(tmp_path / "other", few, lab.clock)
    with pytest.raises(RepositoryRefused, match="there is no repository"):
        Repository.open(tmp_path / "other")


def one_of(ring: Keyring) -> Keyring:
    return Keyring(ring.folder, ring.threshold, ring.online, ring.people, ring.humans[:1])


def test_the_newest_candidates_are_kept(lab: Lab) -> None:
    names = [lab.repository.offer_candidate(TASK, b"%d" % number, lab.ring) for number in range(MOST_CANDIDATES)]
    before = versions(lab)
    lab.repository.offer_candidate(TASK, b"%d" % (MOST_CANDIDATES - 1), lab.ring)  # among the newer half
    lab.repository.offer_candidate(TASK, b"%d" % (MOST_CANDIDATES // 2), lab.ring)
    assert versions(lab) == before
    lab.repository.offer_candidate(TASK, b"0", lab.ring)  # the oldest becomes the newest
    newest = lab.repository.offer_candidate(TASK, b"one more", lab.ring)
    listed = {path.split("/")[2].split(".")[0] for path in lab.repository.books().targets["candidates"].signed.targets}
    assert listed == {*names, newest} - {names[1]}


def test_the_same_again_writes_nothing(lab: Lab) -> None:
    lab.repository.release(TASK, ARCHIVE, lab.ring.humans, lab.ring)
    lab.repository.assign(EDGE, ORDER, lab.ring)
    lab.repository.offer_candidate(TASK, ARCHIVE, lab.ring)
    before = versions(lab)
    assert lab.repository.release(TASK, ARCHIVE, [], lab.ring).published
    lab.repository.assign_all({EDGE: ORDER}, lab.ring)
    lab.repository.offer_candidate(TASK, ARCHIVE, lab.ring)
    assert not lab.repository.renew(lab.ring)
    assert versions(lab) == before


def test_many_orders_are_one_version(lab: Lab) -> None:
    before = versions(lab)
    lab.repository.assign_all({f"arm-{number}": ORDER for number in range(64)}, lab.ring)
    after = versions(lab)
    assert {name: after[name] - before[name] for name in after if after[name] != before[name]} == {
        "assignments": 1,
        "snapshot": 1,
        "timestamp": 1,
    }
    assert lab.trust().order("arm-63") == ORDER


def test_two_processes_take_turns(lab: Lab) -> None:
    other = Repository.open(lab.repository.folder, lab.clock)
    lab.repository.assign(EDGE, ORDER, lab.ring)
    other.assign(OTHER_EDGE, ORDER, lab.ring)
    lab.repository.offer_candidate(TASK, ARCHIVE, lab.ring)
    trust = lab.trust()
    assert (trust.order(EDGE), trust.order(OTHER_EDGE)) == (ORDER, ORDER)
    assert trust.grant(TASK, NAME).role == "candidates"


# --- what people sign ------------------------------------------------------------------------------------------------


def test_what_people_have_signed_waits_for_the_online_key(lab: Lab) -> None:
    """A person's machine need not have the online key: the coordinator names what it finds finished."""
    one, other, third = lab.ring.humans
    told = lab.repository.release(TASK, ARCHIVE, [one])
    assert (told.missing, told.published) == (1, False)
    assert not lab.repository.renew(lab.ring)
    assert lab.repository.waiting() == {"released": [bundle_path("released", TASK, NAME)]}
    told = Repository.open(lab.repository.folder, lab.clock).countersign(NAME, other)
    assert (told.missing, told.published) == (0, False)
    lab.repository.revoke(sha256(b"x"), "now", third)
    lab.repository.revoke(sha256(b"y"), "now", one)  # upon what waits
    assert lab.repository.revoked() == {}
    assert lab.repository.renew(lab.ring)
    assert lab.repository.waiting() == {}
    trust = lab.trust()
    assert trust.grant(TASK, NAME).role == "released"
    assert trust.revoked() == {sha256(b"x"): "now", sha256(b"y"): "now"}


def test_one_person_cannot_sign_twice_and_a_stranger_not_at_all(lab: Lab, tmp_path: Path) -> None:
    stranger = Lab(tmp_path / "other", lab.now_unix_s).ring.humans[0]
    with pytest.raises(RepositoryRefused, match="none of these keys"):
        lab.repository.release(TASK, ARCHIVE, [stranger, lab.ring.online], lab.ring)
    lab.repository.release(TASK, ARCHIVE, lab.ring.humans[:1], lab.ring)
    for signer in (lab.ring.humans[0], stranger, lab.ring.online):
        with pytest.raises(RepositoryRefused, match="has signed this, or may not"):
            lab.repository.countersign(NAME, signer, lab.ring)
    with pytest.raises(RepositoryRefused, match="nothing about bundle"):
        lab.repository.countersign(sha256(b"x"), lab.ring.humans[1], lab.ring)


def test_one_thing_waits_in_a_role_until_it_is_withdrawn(lab: Lab) -> None:
    lab.repository.release(TASK, ARCHIVE, lab.ring.humans[:1], lab.ring)
    with pytest.raises(RepositoryRefused, match="countersign or withdraw"):
        lab.repository.release(TASK, b"another", lab.ring.humans, lab.ring)
    lab.repository.withdraw("released")
    assert lab.repository.release(TASK, b"another", lab.ring.humans, lab.ring).published


def test_what_waits_is_dropped_once_it_is_overtaken(lab: Lab) -> None:
    lab.repository.release(TASK, ARCHIVE, lab.ring.humans[:1], lab.ring)
    Ceremony(lab.repository, lab.ring, lab.ring.humans).renew(everything=True)
    assert lab.repository.waiting() == {}


def test_one_person_revokes_and_two_override(lab: Lab) -> None:
    for person in lab.ring.humans:
        assert lab.repository.revoke(sha256(person.public_key.keyid.encode()), "now", person, lab.ring).published
    assert len(lab.repository.revoked()) == 3
    assert lab.repository.override(NAME, lab.ring.humans[:1], lab.ring).missing == 1
    assert lab.repository.countersign(NAME, lab.ring.humans[1], lab.ring).published
    with pytest.raises(RepositoryRefused, match="'later'"):
        lab.repository.revoke(NAME, "later", lab.ring.humans[0], lab.ring)
    with pytest.raises(RepositoryRefused, match="none of these keys"):
        lab.repository.revoke(NAME, "now", lab.ring.online, lab.ring)


def test_one_person_alone_overrides_nothing(one_person: Lab) -> None:
    with pytest.raises(RepositoryRefused, match="two people"):
        one_person.repository.override(NAME, one_person.ring.humans, one_person.ring)


# --- time ------------------------------------------------------------------------------------------------------------


def test_what_the_coordinator_signs_never_expires_while_it_runs(lab: Lab) -> None:
    """Ten minutes at a time for two days; people's signatures last longer than that."""
    lab.repository.offer_candidate(TASK, ARCHIVE, lab.ring)
    lab.repository.assign(EDGE, ORDER, lab.ring)
    online = Keyring.open(lab.folder / "keys")
    for _ in range(2 * 24 * 6):
        lab.now_unix_s += 600.0
        lab.repository.renew(online)
        books = lab.repository.books()
        for name in books.names():
            left_s = books.role(name).signed.expires.timestamp() - lab.now_unix_s
            assert left_s >= ROLES[name].life_s / 2 - 600.0 or name in ("root", "targets")
    trust = lab.trust()
    assert (trust.order(EDGE), trust.grant(TASK, NAME).role) == (ORDER, "candidates")


def test_a_demo_renews_what_its_one_person_signs(one_person: Lab) -> None:
    one_person.now_unix_s += 20 * DAY_S
    assert one_person.repository.renew(one_person.ring)
    one_person.trust().refresh()
    assert versions(one_person)[ROOT] == 1


def test_files_that_nothing_names_go_after_a_while(lab: Lab) -> None:
    for number in range(5):
        lab.repository.assign(EDGE, b"%d" % number, lab.ring)
    lab.repository.release(TASK, ARCHIVE, lab.ring.humans[:1], lab.ring)  # waits, and stays
    before = set(lab.files())
    lab.now_unix_s += HOUR_S / 2 + 1
    old = time.time() - lab.now_unix_s
    assert lab.repository.renew(lab.ring)
    assert old < -GRACE_S
    kept = set(lab.files())
    assert sum("assign/" in path for path in before) == 5
    assert [path for path in kept if "assign/" in path] == [f"targets/assign/{sha256(b'4')}.{EDGE}.json"]
    assert any(NAME in path for path in kept)
    assert {path for path in before if ".root." in path} <= kept
    lab.trust().refresh()


def test_files_that_were_replaced_a_moment_ago_stay(lab: Lab) -> None:
    served = lab.served()
    lab.repository.assign(EDGE, ORDER, lab.ring)
    lab.repository.release(TASK, ARCHIVE, lab.ring.humans)
    lab.repository.renew(lab.ring)
    assert served.files.keys() <= lab.files().keys()


def test_a_carried_repository_holds_for_days_and_a_station_goes_from_one_to_the_other(lab: Lab, tmp_path: Path) -> None:
    lab.repository.release(TASK, ARCHIVE, lab.ring.humans, lab.ring)
    assert lab.repository.carry(tmp_path / "stick", lab.ring) > len(ARCHIVE)
    lab.now_unix_s += 2 * DAY_S
    with pytest.raises(Stale):
        lab.trust().refresh()
    stick = Trust(lab.station / "trust", FolderFetcher(tmp_path / "stick"), lab.clock)
    assert stick.bundle(TASK, NAME)[1] == ARCHIVE
    lab.now_unix_s += 4 * DAY_S
    stick.refresh()
    lab.repository.renew(lab.ring)
    lab.trust().refresh()
    with pytest.raises(Tampered, match="went back"):
        stick.refresh()
    lab.repository.carry(tmp_path / "stick", lab.ring)
    stick.refresh()


# --- what is served --------------------------------------------------------------------------------------------------


def test_every_public_file_is_served_whole_and_in_pieces(lab: Lab) -> None:
    lab.repository.offer_candidate(TASK, ARCHIVE, lab.ring)
    for path, data in lab.files().items():
        assert lab.repository.file(path) == data
        assert lab.repository.piece(path, 10, 7) == (len(data), data[10:17])
    assert lab.repository.piece(path, len(data) + 5, 7) == (len(data), b"")


@pytest.mark.parametrize(
    "path",
    [
        "",
        ".lock",
        "metadata",
        "targets/candidates",
        "metadata/",
        "metadata/../../keys/online.pem",
        "../keys/online.pem",
        "metadata/./timestamp.json",
        "/etc/passwd",
        "metadata//timestamp.json",
        "metadata/.unfinished-timestamp.json",
        "metadata/timestamp.json\n",
        "metadata/timestamp.json\0",
        "targets/linked.json",
        "targets/linked/online.pem",
        "targets/pipe.json",
        "targets/a/b/c/d/e/f",
        "keys/online.pem",
    ],
)
def test_nothing_else_is_served(lab: Lab, path: str) -> None:
    folder = lab.repository.folder
    lab.repository.offer_candidate(TASK, ARCHIVE, lab.ring)
    (folder / "metadata" / ".unfinished-timestamp.json").write_bytes(b"x")
    (folder / "targets" / "linked.json").symlink_to(lab.folder / "keys" / "online.pem")
    os.mkfifo(folder / "targets" / "pipe.json")
    assert lab.repository.file(path) is None
    assert lab.repository.piece("metadata/timestamp.json", -1, 5) is None


def test_the_root_that_stations_are_given_is_the_newest(lab: Lab) -> None:
    first = lab.repository.root()
    Ceremony(lab.repository, lab.ring, lab.ring.humans).rotate_online()
    assert lab.repository.root() != first
    (lab.station / "trust" / "root.json").write_bytes(lab.repository.root())
    lab.trust().refresh()


# --- cuts ------------------------------------------------------------------------------------------------------------


class Cut(Exception):
    """The power is off."""


CHANGES: dict[str, Callable[[Repository, Lab], object]] = {
    "candidate": lambda repository, lab: repository.offer_candidate(TASK, ARCHIVE, lab.ring),
    "order": lambda repository, lab: repository.assign(EDGE, ORDER, lab.ring),
    "release": lambda repository, lab: repository.release(TASK, ARCHIVE, lab.ring.humans, lab.ring),
    "revocation": lambda repository, lab: repository.revoke(NAME, "now", lab.ring.humans[0], lab.ring),
    "override": lambda repository, lab: repository.override(NAME, lab.ring.humans, lab.ring),
    "renewal": lambda repository, lab: repository.renew(lab.ring, lab.now_unix_s + 13 * HOUR_S),
    "new online key": lambda repository, lab: Ceremony(repository, ring(lab), lab.ring.humans).rotate_online(),
    "new person": lambda repository, lab: Ceremony(repository, ring(lab), lab.ring.humans).rotate_person(
        "human-3", None, None
    ),
    "dropped person": lambda repository, lab: Ceremony(repository, ring(lab), lab.ring.humans).drop(
        lab.ring.people["human-3"].keyid
    ),
}


def ring(lab: Lab) -> Keyring:
    """Return the ring as it lies on the disk."""
    return Keyring.open(lab.folder / "keys")


class CutShelf(Shelf):
    """A disk that loses its power after so many files of a repository were written."""

    def __init__(self, folder: Path, left: int) -> None:
        super().__init__(folder)
        self.left = left

    def write(self, files: Mapping[str, bytes]) -> None:
        for path, data in files.items():
            if not self.left:
                raise Cut
            self.left -= 1
            super().write({path: data})


@pytest.mark.parametrize("change", CHANGES)
def test_a_cut_leaves_the_old_state_or_the_new_and_the_same_again_finishes(lab: Lab, change: str) -> None:
    lab.trust().refresh()
    cut_at = 0
    while True:
        cut = CutRepository(lab, cut_at)
        try:
            CHANGES[change](cut, lab)
        except Cut:
            pass
        else:
            break
        again = Repository.open(lab.repository.folder, lab.clock)
        files = lab.files()
        if not any(path.endswith(f"{versions(lab)[ROOT] + 1}.root.json") for path in files):
            served_well(lab)
        assert again.books().timestamp.signed.version >= 1
        cut_at += 1
    assert cut_at >= 3
    lab.repository = Repository.open(lab.repository.folder, lab.clock)
    if change == "renewal":
        lab.now_unix_s += 13 * HOUR_S
    lab.trust().refresh()


def served_well(lab: Lab) -> None:
    """A station believes what is served, unless a new root has come without the timestamp that its key has signed."""
    root = lab.repository.folder / "metadata" / f"{versions(lab)[ROOT]}.root.json"
    if root.stat().st_mtime_ns <= (lab.repository.folder / "metadata" / "timestamp.json").stat().st_mtime_ns:
        lab.trust().refresh()


class CutRepository(Repository):
    """A repository on such a disk."""

    def __init__(self, lab: Lab, left: int) -> None:
        super().__init__(lab.repository.folder, lab.clock)
        self._shelf = CutShelf(lab.repository.folder, left)
