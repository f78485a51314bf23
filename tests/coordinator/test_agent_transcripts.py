"""Transcripts of a resumed run never lie on top of older ones."""

from __future__ import annotations

from pathlib import Path

from coordinator.agents.transcripts import next_path


def test_a_new_process_goes_on_above_what_the_lane_wrote_before(tmp_path: Path) -> None:
    folder = tmp_path / "said"
    names = []
    for _ in range(3):
        path = next_path(folder, "codex")
        assert not path.exists()
        path.write_text("{}\n", encoding="utf-8")
        names.append(path.name)
    assert names == ["codex-0001.jsonl", "codex-0002.jsonl", "codex-0003.jsonl"]


def test_a_gap_and_more_than_four_digits_count_by_the_highest(tmp_path: Path) -> None:
    (tmp_path / "codex-9999.jsonl").touch()
    next_path(tmp_path, "codex").touch()
    assert next_path(tmp_path, "codex").name == "codex-10001.jsonl"


def test_another_lane_whose_name_goes_on_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "codex-2-0007.jsonl").touch()
    assert next_path(tmp_path, "codex").name == "codex-0001.jsonl"
    assert next_path(tmp_path, "codex-2").name == "codex-2-0008.jsonl"
