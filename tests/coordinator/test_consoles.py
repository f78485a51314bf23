"""A console's key goes only into a folder that is its user's own."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from coordinator.consoles import enrol_console
from coordinator.enrolment import Enrolment, EnrolmentRefused
from coordinator.publish.keys import Keyring
from coordinator.publish.repository import Repository
from coordinator.store import FILE


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    Repository.create(folder / "trust", Keyring.for_demo(folder / "keys"))
    return folder


@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_a_key_goes_into_no_folder_of_another_user(run: Path, mode: int, monkeypatch: pytest.MonkeyPatch) -> None:
    into = run.parent / "there"
    into.mkdir(mode=mode)
    owner = into.stat().st_uid
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: owner + 1)  # as if somebody else had made the folder
        with pytest.raises(EnrolmentRefused, match=r"another user owns .*there"):
            enrol_console(run, "ann", into, 1.0, time.time())
        assert list(into.iterdir()) == []
    with Enrolment(run / FILE) as people:
        assert people.edges() == set()
    tls, _ = enrol_console(run, "ann", into, 1.0, time.time())
    assert tls.key.exists()


def test_nor_into_one_that_others_make_meanwhile(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    into, make = run.parent / "there", Path.mkdir

    def late(path: Path, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        make(path, mode, parents, exist_ok)
        if path == into:
            path.chmod(0o777)  # as if somebody else had been faster

    monkeypatch.setattr(Path, "mkdir", late)
    with pytest.raises(EnrolmentRefused, match="others can write"):
        enrol_console(run, "ann", into, 1.0, time.time())
    assert list(into.iterdir()) == []
