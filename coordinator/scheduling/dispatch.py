"""What handing out and taking back attempts says of the stations."""

from __future__ import annotations

from coordinator.evolution.candidate import Slot
from coordinator.scheduling.health import Health
from coordinator.scheduling.wear import Wear, WearBudget
from edge.records import Outcome, Trial

RESET = "reset"  # the cause of a trial whose scene could not be made ready


class Dispatch:
    """Health and wear of all stations."""

    def __init__(self, budget: WearBudget) -> None:
        self.health = Health()
        self.wear = Wear(budget)

    def handed(self, slot: Slot, edge: str, incumbent_id: int, now_s: float) -> None:
        """Note what a station is given."""
        self.health.present(edge, True)
        self.health.handed(edge, _is_incumbent(slot, incumbent_id), slot.purpose == "check")
        if slot.purpose == "play" and not slot.bundle:
            self.wear.played(edge, now_s)

    def took(self, slot: Slot, trial: Trial, incumbent_id: int, rate: tuple[int, int]) -> list[tuple[str, str]]:
        """Take in a trial that fills a place; return (station, sentence) for what people should know.

        Args:
            rate: successes and attempts of the incumbent on the other stations that are believed.
        """
        edge = trial.edge
        success = None if trial.outcome is Outcome.INVALID else trial.outcome is Outcome.SUCCESS
        self.wear.worked(edge, trial.reset_s + trial.trial_s)
        if self.health.quarantined(edge):
            if slot.purpose == "check" and self.health.canary(edge, success, *rate):
                return [(edge, "is out of quarantine: its canaries are as they should be")]
            return []
        found = self.health.reset_failed(edge, trial.cause == RESET)
        if _is_incumbent(slot, incumbent_id):
            found += self.health.outcome(edge, success)
        elif success is None:
            self.health.unjudged(edge)
        return [(name, f"is in quarantine, and gets canaries only: {why}") for name, why in found]


def _is_incumbent(slot: Slot, incumbent_id: int) -> bool:
    """Return whether the incumbent runs as it is."""
    return slot.candidate.candidate_id == incumbent_id and not slot.bundle
