"""The page's words on its judge: verdict precision."""

from __future__ import annotations

from coordinator.report.markup import Markup, element, join, table
from coordinator.report.run import Run
from coordinator.report.verdicts import verdicts

TRUTH = (
    "What was really so a run cannot know: precision and recall against the truth are measured on emulated benches, and"
    " stand in docs/figures.md. Two attempts of one policy from one start need not end alike, so agreement is a lower"
    " bound for the judge's."
)


def verdict_part(run: Run) -> Markup:
    """Return what the run tells of its judge."""
    told = verdicts(run)
    rows = [
        ("abstentions, of the trials that came to a verdict", told.abstentions.text),
        (
            "same verdict as the attempt before, same policy and start",
            told.agreement.text if told.agreement.trials else "nothing was tried twice",
        ),
        (
            "canaries that succeeded",
            told.canaries.text if told.canaries.trials else "no canary was run",
        ),
    ]
    return join((table((), rows, none=""), element("p", TRUTH, css="quiet")))
