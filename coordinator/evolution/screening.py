"""The screen: the incumbent's baseline and the candidates' first attempts, on a window of development starts.

Each incumbent has a window of its own, so that none is fitted to the same starts for long. A candidate's attempts are
looked at in the order of asking, up to the first that is not there, and few are out at a time as the screen may end
early.
"""

from __future__ import annotations

from collections.abc import Iterator

from coordinator.evolution.book import Book
from coordinator.evolution.candidate import Candidate, Slot
from coordinator.evolution.evidence import SCREEN_ATTEMPTS, Call, Result, Stage, screen, screen_length
from coordinator.evolution.starts import Start, Starts
from coordinator.scheduling.work import Urgency


class Screening:
    """Asks for attempts on development starts and says what they mean."""

    def __init__(self, book: Book, starts: Starts) -> None:
        self._book, self._dev = book, starts.dev
        self._generation = -1
        self.ended = 0  # screens that ended against this incumbent

    def begin(self) -> None:
        """Begin with a new incumbent."""
        self._generation += 1
        self._book.incumbent.screens = {}
        self.ended = 0

    @property
    def baseline_asked(self) -> bool:
        """Whether the incumbent's attempts are all out or there, so that candidates can share their seeds."""
        return len(self._book.incumbent.screens) == SCREEN_ATTEMPTS

    def baseline(self) -> Slot | None:
        """Return the incumbent's next place."""
        incumbent = self._book.incumbent
        for start in self._window():
            if start.start_id not in incumbent.screens:
                slot = Slot(incumbent, start, "baseline", self._book.draw_seed())
                incumbent.screens[start.start_id] = slot
                return slot
        return None

    def next(self, urgency: Urgency, most_out: int) -> Slot | None:
        """Return the next place of a candidate of that class; the one that was made first comes first.

        Args:
            most_out: attempts of one candidate at a time.
        """
        if not self.baseline_asked:
            return None
        for candidate in self.screening:
            if candidate.urgency == urgency and (start := self._next_start(candidate, most_out)) is not None:
                return self._slot(candidate, start)
        return None

    @property
    def screening(self) -> Iterator[Candidate]:
        """Candidates in the screen."""
        return (item for item in self._book.testing if item.state == "screen")

    def waiting(self, most_out: int) -> int:
        """Return how many of them could use another attempt now."""
        return sum(self._next_start(item, most_out) is not None for item in self.screening)

    def play(self) -> Slot:
        """Return a place that nothing is decided on."""
        return self.somewhere("play")

    def somewhere(self, purpose: str, bundle: str = "") -> Slot:
        """Return a place for the incumbent on any development start."""
        start = self._dev[int(self._book.rng.integers(0, len(self._dev)))]
        return Slot(self._book.incumbent, start, purpose, self._book.draw_seed(), bundle=bundle)

    def judge(self, candidate: Candidate) -> Stage:
        """Say what the candidate's attempts so far mean."""
        results: list[Result] = []
        for slot in candidate.screens.values():
            if slot.result is None:
                break
            results.append(slot.result)
        incumbent = self._book.incumbent.results
        stage = screen(results, incumbent, candidate.proposal.not_worse, self._length(candidate))
        candidate.last, candidate.lead, candidate.mean = stage, stage.lead, stage.mean
        self.ended += stage.call is not Call.GO_ON
        return stage

    def _next_start(self, candidate: Candidate, most_out: int) -> Start | None:
        """Return where a candidate is to be tried next; None while enough of its attempts are out."""
        if sum(slot.result is None for slot in candidate.screens.values()) >= most_out:
            return None
        length = self._length(candidate)
        if candidate.last is None or candidate.last.pairs < SCREEN_ATTEMPTS:
            length = min(length, SCREEN_ATTEMPTS)  # the rest only for what has passed there, whatever came in first
        window = self._window(length)
        return next((start for start in window if start.start_id not in candidate.screens), None)

    def _length(self, candidate: Candidate) -> int:
        """Return how many attempts a candidate is to have; a simplification need not stand out."""
        if candidate.screen_length or candidate.proposal.not_worse:
            return candidate.screen_length or SCREEN_ATTEMPTS
        return min(screen_length(self._book.incumbent.results), len(self._dev))

    def _slot(self, candidate: Candidate, start: Start) -> Slot:
        """Give the first test of a policy the incumbent's seeds, so that luck is shared; later ones others.

        The incumbent has none where a screen is long.
        """
        candidate.screen_length = self._length(candidate)  # else one that gets shorter later would never end
        its = self._book.incumbent.screens.get(start.start_id)
        is_first = self._book.tests_of(candidate.source) == 1
        seed = self._book.draw_seed() if its is None or not is_first else its.seed
        slot = candidate.screens[start.start_id] = Slot(candidate, start, "screen", seed)
        return slot

    def _window(self, length: int = SCREEN_ATTEMPTS) -> list[Start]:
        begin = self._generation * SCREEN_ATTEMPTS
        return [self._dev[(begin + k) % len(self._dev)] for k in range(length)]
