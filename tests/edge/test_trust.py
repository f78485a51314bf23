"""A station learns from its lab's repository what it may run, and keeps what it knows when it learns nothing."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tuf.api.exceptions import RepositoryError as TufError
from tuf.ngclient import FetcherInterface, Updater

from coordinator.publish.ceremony import Ceremony
from coordinator.publish.keys import Keyring
from coordinator.publish.repository import Repository
from edge.trust.client import ClockSuspect, NotGranted, Stale, Tampered, Trust, TrustError, Unreachable
from edge.trust.floor import Floor, Mark, read_floor, write_floor
from edge.trust.folder import FolderFetcher
from edge.wire.targets import bundle_path
from tests.harness.lab import EDGE, OTHER_EDGE, TASK, Lab, Served, sha256

ARCHIVE = b"a bundle" * 1000
NAME = sha256(ARCHIVE)
ORDER = b'{"number": 1}'
HOUR_S, DAY_S = 3600.0, 86400.0


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path, float(int(time.time())))


def test_a_candidate_is_granted_as_a_candidate_and_its_bytes_come(lab: Lab) -> None:
    lab.repository.offer_candidate(TASK, ARCHIVE, lab.ring)
    grant, data = lab.trust().bundle(TASK, NAME)
    assert (grant.bundle, grant.task, grant.role, data) == (NAME, TASK, "candidates", ARCHIVE)
    assert grant.expires_unix_s == lab.now_unix_s + DAY_S


def test_a_release_takes_two_people_and_outranks_a_candidate(lab: Lab) -> None:
    one, other, _ = lab.ring.humans
    served = lab.served()
    trust = lab.trust(served)
    lab.repository.offer_candidate(TASK, ARCHIVE, lab.ring)
    told = lab.repository.release(TASK, ARCHIVE, [one], lab.ring)
    assert (told.missing, told.published) == (1, False)
    served.files = lab.files()
    trust.refresh()
    assert trust.grant(TASK, NAME).role == "candidates"
    assert lab.repository.countersign(NAME, other, lab.ring).published
    served.files = lab.files()
    trust.refresh()
    assert trust.grant(TASK, NAME).role == "released"
    assert trust.bundle(TASK, NAME)[1] == ARCHIVE


def test_an_order_is_its_edge_s_own(lab: Lab) -> None:
    lab.repository.assign(EDGE, ORDER, lab.ring)
    trust = lab.trust()
    assert trust.order(EDGE) == ORDER
    assert trust.order(OTHER_EDGE) is None
    with pytest.raises(NotGranted):
        trust.order("../" + EDGE)


def test_what_was_revoked_is_known_without_a_network_and_stays_so(lab: Lab) -> None:
    lab.repository.revoke(NAME, "next-trial", lab.ring.humans[2], lab.ring)
    lab.trust().refresh()
    silent = Served({})
    assert lab.trust(silent).revoked() == {NAME: "next-trial"}
    lab.repository.revoke(NAME, "now", lab.ring.humans[0], lab.ring)
    lab.trust().refresh()
    assert lab.trust(silent).revoked() == {NAME: "now"}
    lab.repository.revoke(NAME, "next-trial", lab.ring.humans[0], lab.ring)  # weaker than what was said before
    lab.trust().refresh()
    assert lab.trust(silent).revoked() == {NAME: "now"}
    assert silent.asked == []


def test_an_override_is_for_one_bundle(lab: Lab) -> None:
    lab.repository.override(NAME, lab.ring.humans[:2], lab.ring)
    trust = lab.trust()
    assert trust.overridden(NAME)
    assert not trust.overridden(sha256(b"another"))
    assert not trust.overridden("not a name")


def test_a_lab_of_one_person_overrides_nothing(tmp_path: Path) -> None:
    lab = Lab(tmp_path, float(int(time.time())), humans=1, threshold=1)
    lab.repository.release(TASK, ARCHIVE, lab.ring.humans, lab.ring)
    trust = lab.trust()
    assert trust.grant(TASK, NAME).role == "released"
    assert not trust.overridden(NAME)


def test_weights_are_fetched_once_and_whole(lab: Lab, tmp_path: Path) -> None:
    weights = os.urandom(300_000)
    lab.repository.release_weights(weights, lab.ring.humans, lab.ring)
    served = lab.served()
    trust = lab.trust(served)
    path = trust.weights(sha256(weights), tmp_path / "weights")
    assert path.read_bytes() == weights
    assert [item.name for item in path.parent.iterdir()] == [path.name]
    asked = len(served.asked)
    assert trust.weights(sha256(weights), path.parent) == path
    assert len(served.asked) == asked
    for damaged in (weights[:-1], weights[:-1] + bytes([weights[-1] ^ 1]), weights + b"X", b""):
        path.write_bytes(damaged)
        assert trust.weights(sha256(weights), path.parent).read_bytes() == weights  # anew
    assert trust.weights_bytes(sha256(weights)) == len(weights)
    with pytest.raises(NotGranted):
        trust.weights(NAME, path.parent)


def test_a_refresh_that_finds_nothing_new_asks_two_questions_and_writes_nothing(lab: Lab) -> None:
    served = lab.served()
    trust = lab.trust(served)
    trust.refresh()
    stamps = {path: path.stat().st_mtime_ns for path in lab.station.rglob("*") if path.is_file()}
    served.asked.clear()
    trust.refresh()
    assert served.asked == ["metadata/2.root.json", "metadata/timestamp.json"]
    assert {path: path.stat().st_mtime_ns for path in lab.station.rglob("*") if path.is_file()} == stamps


def test_a_refresh_takes_only_what_is_new(lab: Lab) -> None:
    served = lab.served()
    trust = lab.trust(served)
    trust.refresh()
    lab.repository.assign(EDGE, ORDER, lab.ring)
    served.files = lab.files()
    served.asked.clear()
    trust.refresh()
    fetched = [url for url in served.asked if url in served.files and "timestamp" not in url]
    assert fetched == ["metadata/3.snapshot.json", "metadata/2.assignments.json"]


def test_a_folder_is_as_good_as_a_network(lab: Lab) -> None:
    lab.repository.offer_candidate(TASK, ARCHIVE, lab.ring)
    trust = lab.trust(FolderFetcher(lab.repository.folder))
    assert trust.bundle(TASK, NAME)[1] == ARCHIVE


@pytest.mark.parametrize("url", ["../keys/online.pem", "/etc/passwd", "metadata//1.root.json", "targets/.", ""])
def test_a_folder_is_not_left(lab: Lab, url: str) -> None:
    (lab.repository.folder / "keys").mkdir()
    with pytest.raises(Exception, match="not a file of a repository"):
        list(FolderFetcher(lab.repository.folder).fetch(url))


def test_links_and_pipes_in_a_folder_are_not_followed(lab: Lab) -> None:
    metadata = lab.repository.folder / "metadata"
    (metadata / "linked.json").symlink_to(lab.folder / "keys" / "online.pem")
    os.mkfifo(metadata / "pipe.json")
    fetcher = FolderFetcher(lab.repository.folder)
    for name in ("linked", "pipe"):
        with pytest.raises(Exception, match=r"cannot read|not a plain file"):
            list(fetcher.fetch(f"metadata/{name}.json"))


def test_a_stick_that_is_pulled_out_says_nothing(lab: Lab, tmp_path: Path) -> None:
    lab.trust().refresh()
    with pytest.raises(Unreachable, match="there is no repository"):
        lab.trust(FolderFetcher(tmp_path / "nowhere")).refresh()


def test_whatever_a_fetcher_raises_is_no_answer(lab: Lab) -> None:
    class Broken(FetcherInterface):
        def _fetch(self, url: str) -> Iterator[bytes]:
            raise KeyError(url)

    with pytest.raises(Unreachable):
        lab.trust(Broken()).refresh()


def test_a_station_without_a_root_says_how_to_get_one(lab: Lab) -> None:
    (lab.station / "trust" / "root.json").unlink()
    with pytest.raises(TrustError, match="enpire-edge enrol"):
        lab.trust().refresh()


# --- what grows old ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("later_s", "over"),
    [
        (HOUR_S, "timestamp"),
        (12 * HOUR_S, "assignments"),
        (24 * HOUR_S, "candidates"),
        (7 * DAY_S, "revoked"),
        (30 * DAY_S, "released"),
        (90 * DAY_S, "targets"),
        (365 * DAY_S, "root"),
    ],
)
def test_each_role_holds_for_its_time(lab: Lab, later_s: float, over: str) -> None:
    lab.repository.release(TASK, ARCHIVE, lab.ring.humans, lab.ring)
    candidate = lab.repository.offer_candidate(TASK, b"candidate", lab.ring)
    lab.repository.assign(EDGE, ORDER, lab.ring)
    needed: dict[str, Callable[[Trust], object]] = {
        "assignments": lambda trust: trust.order(EDGE),
        "candidates": lambda trust: trust.grant(TASK, candidate),
        "released": lambda trust: trust.grant(TASK, NAME),
    }
    trust = lab.trust()
    trust.refresh()
    lab.now_unix_s += later_s - 1
    with lab.repository.changing() as books:  # all but the role at hand is signed anew in time
        for name in books.names():
            if name not in (over, "root", "snapshot", "timestamp"):
                books.sign(name, [lab.ring.online, *lab.ring.humans], lab.now_unix_s)
        if over != "timestamp":
            lab.repository.publish(books, lab.ring.online, snapshot=True)
    if over not in ("root", "timestamp"):
        trust = lab.trust()
        trust.refresh()
        needed.get(over, Trust.refresh)(trust)
    lab.now_unix_s += 2
    with pytest.raises(Stale, match=over):
        needed.get(over, Trust.refresh)(trust)
    other = next(name for name in needed if name != over)
    if over in needed:  # the other roles go on
        trust.refresh()
        needed[other](trust)


def test_what_was_verified_may_be_used_until_its_time_is_over(lab: Lab) -> None:
    lab.repository.offer_candidate(TASK, ARCHIVE, lab.ring)
    served = lab.served()
    trust = lab.trust(served)
    trust.refresh()
    served.silent = set(served.files)
    lab.now_unix_s += HOUR_S - 1
    assert trust.grant(TASK, NAME).role == "candidates"
    lab.now_unix_s += 2
    with pytest.raises(Stale, match="timestamp"):
        trust.grant(TASK, NAME)


# --- the floor --------------------------------------------------------------------------------------------------------


class Bare:
    """python-tuf as it is, on the same folder."""

    def __init__(self, folder: Path, files: dict[str, bytes]) -> None:
        self.updater = Updater(
            str(folder / "metadata"),
            "metadata/",
            None,
            "targets/",
            Served(files),
            bootstrap=(folder / "root.json").read_bytes(),
        )


def test_bare_tuf_believes_an_old_repository_once_its_cache_is_wiped_and_the_floor_does_not(
    lab: Lab, tmp_path: Path
) -> None:
    old = lab.files()
    lab.repository.revoke(NAME, "now", lab.ring.humans[0], lab.ring)
    lab.trust().refresh()
    bare = lab.clone(tmp_path / "bare") / "trust"
    with pytest.raises(TufError):
        Bare(bare, old).updater.refresh()
    for folder in (bare, lab.station / "trust"):
        for name in ("timestamp", "snapshot", "targets", "revoked"):
            (folder / "metadata" / f"{name}.json").write_bytes(b"")
    Bare(bare, old).updater.refresh()  # the attack, on python-tuf alone
    with pytest.raises(Tampered, match="went back from version"):
        lab.trust(lab.served(old)).refresh()
    assert lab.trust(Served({})).revoked() == {NAME: "now"}


@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize("how", ["missing", "empty", "garbled", "older"])
def test_one_lost_copy_of_the_floor_is_made_anew(lab: Lab, lost: int, how: str) -> None:
    copies = (lab.station / "trust" / "floor.json", lab.station / "floor.json")
    old = lab.files()
    lab.trust().refresh()
    older = copies[0].read_bytes()
    lab.repository.assign(EDGE, ORDER, lab.ring)
    lab.trust().refresh()
    if how == "missing":
        copies[lost].unlink()
    else:
        copies[lost].write_bytes({"empty": b"", "garbled": older[:-80] + older[-79:], "older": older}[how])
    for path in (lab.station / "trust" / "metadata").glob("*.json"):
        path.unlink()
    with pytest.raises(Tampered, match="went back"):
        lab.trust(lab.served(old)).refresh()
    assert copies[0].read_bytes() == copies[1].read_bytes()
    lab.trust().refresh()


def test_copies_of_one_count_that_differ_are_refused(tmp_path: Path) -> None:
    copies = (tmp_path / "one.json", tmp_path / "other.json")
    for path, version in zip(copies, (1, 2), strict=True):
        write_floor([path], Floor(roles={"root": Mark(version, "", "")}))
    with pytest.raises(Tampered, match="differ"):
        read_floor(copies)


def test_a_floor_comes_back_as_it_was_written(tmp_path: Path) -> None:
    copies = (tmp_path / "one.json", tmp_path / "other.json")
    assert read_floor(copies) is None
    floor = write_floor(copies, Floor(wall_unix_s=12.5, roles={"root": Mark(3, "a", "b")}, revoked={NAME: "now"}))
    assert read_floor(copies) == floor
    assert write_floor(copies, floor).count == floor.count + 1


def test_the_floor_is_there_before_the_cache_so_that_a_cut_does_not_look_like_a_loss(lab: Lab) -> None:
    class Cut(BaseException):
        pass

    class Cutting(Served):
        def _fetch(self, url: str) -> Iterator[bytes]:
            if url in self.cut:
                raise Cut
            return super()._fetch(url)

    for role in ("timestamp", "2.snapshot", "1.targets", "1.released"):
        with pytest.raises(Cut):
            lab.trust(Cutting(lab.files(), cut={f"metadata/{role}.json"})).refresh()
        assert (lab.station / "trust" / "floor.json").exists()
    assert (lab.station / "trust" / "metadata" / "targets.json").exists()
    lab.trust().refresh()


def test_what_was_refused_is_not_held_against_what_comes_next(lab: Lab) -> None:
    honest = lab.files()
    lab.trust().refresh()
    with lab.repository.changing() as books:  # somebody with the online key counts far, and shows nothing to it
        books.timestamp.signed.version = books.snapshot.signed.version = 1 << 31
        lab.repository.publish(books, lab.ring.online, snapshot=True)
    served = lab.served()
    served.silent = {f"metadata/{(1 << 31) + 1}.snapshot.json"}
    trust = lab.trust(served)
    with pytest.raises(Unreachable):
        trust.refresh()
    lab.trust(lab.served(honest)).refresh()


def test_the_floor_follows_a_new_online_key_and_only_that(lab: Lab) -> None:
    stolen = lab.ring.online
    with lab.repository.changing() as books:  # whoever has the key counts so far that nobody can count on
        books.timestamp.signed.version = books.snapshot.signed.version = 1 << 31
        books.targets["candidates"].signed.version = 1 << 31
        books.sign("candidates", [stolen], lab.now_unix_s)
        lab.repository.publish(books, stolen)
    lab.trust().refresh()
    assert Ceremony(lab.repository, lab.ring, lab.ring.humans).rotate_online()
    ring = Keyring.open(lab.folder / "keys", humans=True)
    with lab.repository.changing() as books:
        books.timestamp.signed.version = books.snapshot.signed.version = 10
        books.targets["candidates"].signed.version = 10
        books.sign("candidates", [ring.online], lab.now_unix_s)
        lab.repository.publish(books, ring.online)
    lab.trust().refresh()
    lab.repository.offer_candidate(TASK, ARCHIVE, ring)
    assert lab.trust().bundle(TASK, NAME)[1] == ARCHIVE
    with lab.repository.changing() as books:  # without yet another root, this goes for the new key too
        books.timestamp.signed.version = books.snapshot.signed.version = 10
        lab.repository.publish(books, ring.online)
    with pytest.raises(Tampered, match="must be >="):
        lab.trust().refresh()


# --- the clock --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("back_s", "suspect"), [(299.0, False), (301.0, True), (365 * DAY_S, True)])
def test_the_clock_may_not_run_back_behind_the_last_good_refresh(lab: Lab, back_s: float, suspect: bool) -> None:
    lab.repository.offer_candidate(TASK, ARCHIVE, lab.ring)
    trust = lab.trust()
    trust.refresh()
    lab.now_unix_s -= back_s
    for asked in (trust, lab.trust()):
        if not suspect:
            asked.refresh()
            continue
        with pytest.raises(ClockSuspect):
            asked.refresh()
        with pytest.raises(ClockSuspect):
            asked.grant(TASK, NAME)


def test_a_first_clock_that_is_behind_the_root_is_suspect(lab: Lab) -> None:
    lab.now_unix_s -= DAY_S
    with pytest.raises(ClockSuspect, match="signed already"):
        lab.trust().refresh()


def test_a_clock_that_was_ahead_for_a_while_does_no_lasting_harm(lab: Lab) -> None:
    lab.trust().refresh()
    lab.now_unix_s += 365 * DAY_S
    with pytest.raises(Stale):
        lab.trust().refresh()
    lab.now_unix_s -= 365 * DAY_S
    lab.trust().refresh()


def test_the_floor_is_written_for_the_clock_s_sake_now_and_then(lab: Lab) -> None:
    trust = lab.trust()
    trust.refresh()
    path = lab.station / "floor.json"
    before = path.read_bytes()
    lab.now_unix_s += 599
    trust.refresh()
    assert path.read_bytes() == before
    lab.now_unix_s += 2
    trust.refresh()
    assert json.loads(path.read_bytes().splitlines()[0])["wall_unix_s"] == lab.now_unix_s


def test_a_released_bundle_is_under_its_own_path(lab: Lab) -> None:
    lab.repository.release(TASK, ARCHIVE, lab.ring.humans, lab.ring)
    assert (
        bundle_path("released", TASK, NAME)
        in Repository.open(lab.repository.folder).books().targets["released"].signed.targets
    )
