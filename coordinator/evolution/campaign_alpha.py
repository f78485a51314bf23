"""What a campaign may risk on false gains, as money: each gate stakes some of a purse, each gain earns more.

- A campaign begins with PURSE. A gate stakes an amount and bets it; it accepts once the stake has grown to 1, which a
  fair bet of a candidate that is no better reaches with a chance of at most the stake (Ville's inequality).
- What a bet still holds when it is given up goes back to the purse, but never more than was staked.
- A gain puts another PURSE in. So the expected number of false gains of a campaign, however long it is and however
  its ideas were chosen, is at most PURSE x (1 + the expected number of gains): alpha-investing (Foster and Stine
  2008) with e-values.
- Stakes shrink with the number of gates since the last gain, so that a long dry spell asks ever more of a candidate
  and never empties the purse.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

PURSE = 0.1
MOST = 0.05  # that one gate may stake


@dataclass(frozen=True)
class Purse:
    """What is left to risk."""

    left: float = PURSE
    since_gain: int = 0  # gates that have staked since

    @property
    def stake(self) -> float:
        """What the next gate stakes, in (0, MOST]."""
        return min(MOST, self.left / (self.since_gain + 2))

    def staked(self) -> Purse:
        """Return the purse after a gate has taken its stake."""
        return Purse(self.left - self.stake, self.since_gain + 1)

    def given_up(self, stake: float, wealth: float) -> Purse:
        """Return the purse after a gate has ended without a gain, each unit staked having become `wealth`."""
        return replace(self, left=self.left + stake * min(1.0, wealth))

    def gained(self) -> Purse:
        """Return the purse after a candidate was accepted; its stake is spent."""
        return Purse(self.left + PURSE, 0)
