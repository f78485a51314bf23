"""What is published opens with the public key, has one name for one content, and the key stays private."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from coordinator.publish.keys import PRIVATE_FILE, KeyRefused, load_or_make
from coordinator.publish.publisher import Publisher
from coordinator.store import FILE, Store
from policies.bundle import BundleMalformed, BundleRefused, bundle_id, open_bundle
from policies.space import SpaceError

POLICY = Path(__file__).parents[2] / "policies" / "push_t"


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    return Publisher(POLICY, load_or_make(tmp_path / "keys"), Store(tmp_path / FILE))


def test_a_published_bundle_opens_with_the_public_key_and_holds_what_was_asked(publisher: Publisher) -> None:
    seed = publisher.publish({}, {"kind": "seed"}, None)
    child = publisher.publish({"push_speed_m_s": 0.1}, {"kind": "parameter"}, seed)
    archive = publisher.store.bundle(child)
    assert archive is not None
    assert bundle_id(archive) == child
    manifest = open_bundle(archive, [publisher.keys.public]).manifest
    assert (manifest.params["push_speed_m_s"], manifest.parent) == (0.1, seed)
    assert manifest.provenance == {"kind": "parameter"}


def test_the_same_content_has_the_same_name_and_one_row(publisher: Publisher) -> None:
    names = {publisher.publish({}, {}, None) for _ in range(2)}
    assert len(names) == 1
    assert publisher.store._db.execute("SELECT COUNT(*) FROM bundles").fetchone() == (1,)


def test_another_key_and_altered_bytes_are_refused(publisher: Publisher, tmp_path: Path) -> None:
    archive = publisher.store.bundle(publisher.publish({}, {}, None))
    assert archive is not None
    with pytest.raises(BundleRefused):
        open_bundle(archive, [load_or_make(tmp_path / "others").public])
    for at in range(0, len(archive), 97):
        altered = archive[:at] + bytes([archive[at] ^ 1]) + archive[at + 1 :]
        with pytest.raises((BundleRefused, BundleMalformed)):
            open_bundle(altered, [publisher.keys.public])


def test_a_parameter_out_of_range_is_never_signed(publisher: Publisher) -> None:
    with pytest.raises(SpaceError):
        publisher.publish({"push_speed_m_s": 99.0}, {}, None)
    assert publisher.store._db.execute("SELECT COUNT(*) FROM bundles").fetchone() == (0,)


def test_the_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    first = load_or_make(tmp_path / "keys")
    path = tmp_path / "keys" / PRIVATE_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert load_or_make(tmp_path / "keys").public == first.public


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    load_or_make(tmp_path)
    (tmp_path / PRIVATE_FILE).chmod(mode)
    with pytest.raises(KeyRefused, match="others can read"):
        load_or_make(tmp_path)


def test_a_file_that_is_no_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / PRIVATE_FILE).write_text("not a key")
    (tmp_path / PRIVATE_FILE).chmod(0o600)
    with pytest.raises(KeyRefused, match="not a private key"):
        load_or_make(tmp_path)
