"""What a person sees while a campaign runs: one calm picture on a terminal, plain lines anywhere else.

- Everything goes to standard error; standard output is for the result.
- What matters later, an accepted idea or a held-out measurement, is printed as a line that stays.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from coordinator.campaign import Snapshot
from coordinator.evolution.records import CandidateMade, DecisionMade, Event, HeldoutMeasured, HypothesisMade
from coordinator.roster import MOST_FAILED_RESETS, StationView

BAR_CELLS = 40
DECISIONS_SHOWN = 5
PLAIN_PERIOD_S = 10.0
COLOURS = {"accept": "green", "reject": "red", "inconclusive": "yellow", "superseded": "bright_black"}


@dataclass(frozen=True)
class View:
    """The campaign at one moment."""

    title: str
    elapsed_s: float
    budget_s: float
    trials: int
    per_minute: float
    target: int
    snapshot: Snapshot
    stations: Sequence[StationView]


class Display:
    """Shows views; use it as a context."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self._sentences: dict[int, str] = {}  # by hypothesis
        self._ideas: dict[int, str] = {}  # by candidate
        self._decisions: deque[Text] = deque(maxlen=DECISIONS_SHOWN)
        self._last_plain_s = -PLAIN_PERIOD_S

    def __enter__(self) -> Display:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """Take the picture away; lines can still be said."""
        if self._live is not None:
            self._live.stop()

    def say(self, sentence: str, style: str = "") -> None:
        """Print a line that stays."""
        self._console.print(Text(sentence, style=style), highlight=False, soft_wrap=self._live is None)

    def tell(self, events: Iterable[Event], elapsed_s: float) -> None:
        """Take in what the campaign has decided."""
        for event in events:
            match event:
                case HypothesisMade():
                    self._sentences[event.hypothesis_id] = event.sentence
                case CandidateMade():
                    self._ideas[event.candidate_id] = self._sentences.get(event.hypothesis_id, "")
                case DecisionMade() if event.stage != "seed":
                    self._decided(event, elapsed_s)
                case HeldoutMeasured():
                    self._measured(event, elapsed_s)

    def show(self, view: View) -> None:
        """Draw the campaign."""
        if self._live is not None:
            self._live.update(_picture(view, self._decisions), refresh=True)
        elif view.elapsed_s - self._last_plain_s >= PLAIN_PERIOD_S:
            self._last_plain_s = view.elapsed_s
            self.say(_plain(view))

    def _decided(self, event: DecisionMade, elapsed_s: float) -> None:
        idea = self._ideas.get(event.candidate_id, "")
        gain = f"{event.gain_points:+.0f} points"
        line = Text.assemble((f"{event.verdict:<12}", COLOURS.get(event.verdict, "")), f" {gain:>11}  ", idea)
        self._decisions.append(line)
        if event.verdict == "accept":
            counts = (
                f"{event.candidate_successes}/{event.candidate_trials}"
                f" against {event.incumbent_successes}/{event.incumbent_trials} on fresh starts;"
                f" {event.wins} pairs won, {event.losses} lost"
            )
            self.say(f"✔ {clock(elapsed_s)} accepted, {gain} ({counts}): {idea}", "green")

    def _measured(self, event: HeldoutMeasured, elapsed_s: float) -> None:
        counts = f"{event.successes}/{event.trials}, 95 % interval {100 * event.low:.0f}–{100 * event.high:.0f} %"
        how = "" if event.complete else ", stopped early"
        self.say(f"■ {clock(elapsed_s)} held-out starts: {counts}{how}", "cyan")


def clock(seconds: float) -> str:
    """Return minutes and seconds, e.g. 3:07."""
    whole = max(0, int(seconds))
    return f"{whole // 60}:{whole % 60:02d}"


def interval_bar(low: float, rate: float, high: float, cells: int = BAR_CELLS) -> Text:
    """Return a bar from 0 to 1: solid up to the rate, darker where the interval begins, faint up to its end."""
    bar = Text()
    for index in range(cells):
        at = (index + 0.5) / cells
        if at <= low:
            bar.append("█", "green")
        elif at <= rate:
            bar.append("▓", "green")
        elif at <= high:
            bar.append("░", "green")
        else:
            bar.append("·", "bright_black")
    return bar


def _picture(view: View, decisions: Sequence[Text]) -> RenderableType:
    parts: list[RenderableType] = [Text(), _header(view), Text(), _stations(view.stations)]
    if decisions:
        parts += [Text(), Text("decisions", style="bold"), *[_one_line(item) for item in reversed(decisions)]]
    return Group(*parts)


def _header(view: View) -> Table:
    snapshot = view.snapshot
    rate = snapshot.successes / snapshot.trials if snapshot.trials else 0.0
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column(no_wrap=True)
    left = f"{clock(view.budget_s - view.elapsed_s)} left of {clock(view.budget_s)}"
    grid.add_row("campaign", Text(f"{view.title} · {left} · {view.trials} trials, {view.per_minute:.0f} a minute"))
    grid.add_row(
        "incumbent", Text.assemble(interval_bar(snapshot.low, rate, snapshot.high), f"  {_incumbent_words(snapshot)}")
    )
    if snapshot.heldout_running:
        share = snapshot.heldout_done / snapshot.heldout_total
        words = f"  {_heldout_words(snapshot)}, {view.target} needed"
        grid.add_row("held-out", Text.assemble(interval_bar(share, share, share), words))
    ideas = f"{snapshot.tried} tried, {len(snapshot.accepted)} accepted"
    grid.add_row("ideas", _one_line(Text(ideas + (f" · testing: {snapshot.testing[0]}" if snapshot.testing else ""))))
    return grid


def _stations(stations: Sequence[StationView]) -> Table:
    table = Table(box=None, padding=(0, 2), header_style="bold")
    table.add_column("station", min_width=max((len(item.edge) for item in stations), default=0))
    table.add_column("now", min_width=12)
    for name in ("trials", "success", "invalid", "speed", "memory"):
        table.add_column(name, justify="right")
    for item in stations:
        table.add_row(
            Text(item.edge),
            _now(item),
            str(item.trials),
            str(item.successes),
            str(item.invalid),
            f"{item.speed:.1f} x" if item.speed else "",
            f"{item.memory_mb:.0f} MB" if item.memory_mb else "",
        )
    return table


def _now(station: StationView) -> Text:
    """Return what a station does; what it says itself is shown as it is, never read as markup."""
    if not station.here:
        return Text("away", "yellow") if station.clocks else Text("starting", "bright_black")
    if station.failed_resets >= MOST_FAILED_RESETS:
        return Text(f"{station.failed_resets} resets failed; look at its bench", "red")
    if station.state == "fault" or station.refusal:
        return Text((station.detail or station.refusal)[:60], "red")
    return Text(f"{station.state} {station.last_sequence}" if station.state in ("trial", "reset") else station.state)


def _plain(view: View) -> str:
    snapshot = view.snapshot
    words = [
        f"{clock(view.elapsed_s)} of {clock(view.budget_s)}",
        f"{view.trials} trials, {view.per_minute:.0f} a minute",
        f"incumbent {_incumbent_words(snapshot)}",
        f"{snapshot.tried} ideas tried, {len(snapshot.accepted)} accepted",
    ]
    if snapshot.heldout_running:
        words.append(f"held-out {_heldout_words(snapshot)}")
    return " · ".join(words)


def _incumbent_words(snapshot: Snapshot) -> str:
    if not snapshot.trials:
        return "no trials yet"
    percent = 100.0 * snapshot.successes / snapshot.trials
    interval = f"95 % interval {100 * snapshot.low:.0f}–{100 * snapshot.high:.0f} %"
    return f"{snapshot.successes}/{snapshot.trials} = {percent:.0f} % ({interval})"


def _heldout_words(snapshot: Snapshot) -> str:
    return f"{snapshot.heldout_successes}/{snapshot.heldout_done} of {snapshot.heldout_total}"


def _one_line(text: Text) -> Text:
    short = text.copy()
    short.no_wrap, short.overflow = True, "ellipsis"
    return short
