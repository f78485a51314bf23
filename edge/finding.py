"""What one of the doctor's checks found, and how findings are told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

OK, WARNING, FAILED, SKIPPED = "ok", "warning", "failed", "skipped"
CHECK_COLUMNS = 24  # the longest name of a check, and a space


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    check: str
    outcome: str  # OK, WARNING, FAILED or SKIPPED
    detail: str
    remedy: str = ""


def line_of(finding: Finding) -> str:
    """Return a finding as one line, in columns."""
    remedy = f"; {finding.remedy}" if finding.remedy else ""
    return f"{finding.outcome:8} {finding.check:{CHECK_COLUMNS}}{finding.detail}{remedy}"


def verdict_of(findings: Sequence[Finding]) -> str:
    """Return the line that sums up: whether the arm can be run, and which checks say no, warn or are missing."""

    def named(outcome: str) -> list[str]:
        return [finding.check for finding in findings if finding.outcome == outcome]

    failed = named(FAILED)
    line = f"{len(failed)} check{'s' * (len(failed) > 1)} failed: {', '.join(failed)}" if failed else "ready"
    for words, names in (("warnings", named(WARNING)), ("not checked", named(SKIPPED))):
        line += f"; {words}: {', '.join(names)}" if names else ""
    return line
