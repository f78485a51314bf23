"""No bundle opens that `build` would not have made, whoever has named it: each attack is a row, and none is accepted.

Most attacks come under their own name, as if everyone who has to sign that name had been fooled or robbed.
"""

from __future__ import annotations

import tracemalloc
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.bundle import BundleError, BundleMalformed, BundleRefused, open_bundle
from tests.harness.attacks_on_bytes import ALTERED, FRAMES, MAX_TAR, NAME, TARS, WINDOW_512K, ZZ, Attack, frame
from tests.harness.attacks_on_contents import HELD, MANIFESTS, TEXT, TOMLS
from tests.harness.bundle_format import FILES, GOOD, PROVENANCE, TAR, as_json, bundle_of, compressed, said, sha256

ATTACKS = [*ALTERED, *FRAMES, *TARS, *MANIFESTS, *HELD, *TOMLS]


def refusal(attack: Attack) -> BundleError | None:
    """Return how the bundle was refused, None where it was accepted; whatever else is raised, is."""
    try:
        open_bundle(attack.data, sha256(attack.data) if attack.name is None else attack.name)
    except BundleError as error:
        return error
    return None


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: str(attack.id))
def test_an_attack_is_refused_with_its_sentence(attack: Attack) -> None:
    error = refusal(attack)
    assert type(error) is attack.error
    message = str(error)
    assert attack.text in message
    assert "\n" not in message
    assert len(message) <= 400


def test_there_are_many_attacks_and_none_is_accepted() -> None:
    assert len({attack.id for attack in ATTACKS}) == len(ATTACKS) >= 200
    assert sum(refusal(attack) is None for attack in ATTACKS) == 0


def test_what_the_attacks_change_is_good_until_they_do() -> None:
    for data in (GOOD, compressed(ZZ), frame(WINDOW_512K, len(TAR), TAR), bundle_of(FILES, TEXT)):
        assert open_bundle(data, sha256(data)).files["policy.py"] == FILES["policy.py"]
    # The last compiles only for a reader that postpones no annotations, as the interpreter will be.
    for more in (
        {"zz.py": b"#" * 65536},
        {"zz.toml": b"#" * 16384},
        {"zz.json": b"1" + b" " * 131071},
        {"z" * 61 + ".py": b"from . import policy\n"},
        {"zz.py": b"def run():\n    x: (yield)\n"},
    ):
        data = bundle_of(FILES | more)
        assert open_bundle(data, sha256(data)).files == FILES | more
    longest = as_json(said(provenance=PROVENANCE | {"commit": "c" * 1000}))
    assert open_bundle(bundle_of(FILES, longest), sha256(bundle_of(FILES, longest))).files == FILES


def test_a_bomb_is_refused_without_being_unpacked() -> None:
    bombs = [attack for attack in FRAMES if "bomb" in attack.id]
    assert len(bombs) == 3
    tracemalloc.start()
    try:
        assert all(refusal(attack) is not None for attack in bombs)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * MAX_TAR


@given(st.binary(max_size=4096))
def test_random_bytes_are_no_bundle(data: bytes) -> None:
    for named_as, error in ((NAME, BundleRefused), (sha256(data), BundleMalformed)):
        with pytest.raises(error):
            open_bundle(data, named_as)


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_no_byte_can_be_changed_under_the_old_name(at: int, flip: int) -> None:
    with pytest.raises(BundleRefused):
        open_bundle(GOOD[:at] + bytes([GOOD[at] ^ flip]) + GOOD[at + 1 :], NAME)


@given(st.integers(0, len(TAR) - 1), st.integers(1, 255))
def test_a_changed_tar_under_a_new_name_opens_only_as_what_it_says(at: int, flip: int) -> None:
    tar = TAR[:at] + bytes([TAR[at] ^ flip]) + TAR[at + 1 :]
    try:
        opened = open_bundle(compressed(tar), sha256(compressed(tar)))
    except BundleMalformed:
        return
    # Another researcher, for example: a good bundle, and the only one that says so.
    assert opened.files == FILES
    assert bundle_of(opened.files, as_json(asdict(opened.manifest))) == compressed(tar)
