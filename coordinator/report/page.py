"""The words and tables of the page, section by section; the pictures come in ready-made.

Each claim of success stands with its count and its 95 % interval; hashes tie it to the policy, station and calibration.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from coordinator.evolution.evidence import FASTER_SHARE, PROGRESS_MARGIN
from coordinator.report import gains, measures, milestones
from coordinator.report.evidence import verdict_part
from coordinator.report.film import Strip
from coordinator.report.ledger import token_part, total
from coordinator.report.markup import (
    Markup,
    element,
    join,
    page,
    photograph,
    picture,
    section,
    short_hash,
    table,
)
from coordinator.report.measures import ATTEMPTS, Count
from coordinator.report.run import Decision, Idea, Run
from coordinator.report.timeline import away_minutes


@dataclass(frozen=True)
class Picture:
    """One plot in both themes, PNG."""

    light: bytes
    dark: bytes


def render(
    run: Run, pictures: Mapping[str, Picture], strips: tuple[Strip, ...], gallery: tuple[Strip, ...] = ()
) -> str:
    """Return the self-contained page; `pictures` has hillclimb, idea_tree, utilisation and failures."""
    title = f"{run.campaign.task if run.campaign else 'A run'} · {run.folder.resolve().name}"
    return page(
        title,
        element("h1", title),
        element("p", headline(run), css="headline"),
        element("p", _asked(run), css="quiet"),
        section("Key figures", table((), key_figures(run), none="")),
        section("Hill-climb", _show(pictures["hillclimb"], "Hill-climb", HILLCLIMB_CAPTION), _incumbents(run)),
        section("Ideas", _show(pictures["idea_tree"], "Idea tree", TREE_CAPTION), *_ideas(run)),
        section("Stations", _show(pictures["utilisation"], "Use of the stations", USE_CAPTION), _stations(run)),
        section("Failures", _show(pictures["failures"], "Failures by class", FAILURE_CAPTION), _failures(run)),
        section("What it looked like", _films(strips)),
        section("Each way to fail", _gallery(gallery)),
        section("The judge", verdict_part(run)),
        section("Tokens", token_part(run)),
        _summary(run),
    )


HILLCLIMB_CAPTION = (
    "Line and band: all valid trials of the policy but for held-out and audit starts, checks of stations and roll-outs,"
    " with their 95 % interval; they include the pairs that chose it and lean high for that reason."
    " Diamonds: measurements on held-out starts, which no decision has seen."
)
TREE_CAPTION = (
    "Each dot is one idea, numbered as in the table below, in the lane of its family; filled was accepted and moved the"
    " incumbent, hollow was not better. The thick line is the lineage of the best."
)
COUNTED = (
    "How ideas are compared.",
    "Wins and losses count comparisons of two attempts, not successes: success beats failure; of two failures the one"
    f" that got at least {PROGRESS_MARGIN:g} further (progress is 0 to 1) wins; two successes are even, unless the"
    f" incumbent is near its ceiling: then the one that took at most {100 * FASTER_SHARE:.0f} % of the other's time"
    " wins. The rest are even, so wins and losses need not add up to the comparisons.",
    "In the gate a comparison is a pair: candidate and incumbent from the same fresh start, one after the other. Both"
    " columns of success are over the same starts.",
    "Whoever gains by time must be shown to be not worse, and at least a tenth faster. Whoever passes the gate is tried"
    " on states that an incumbent failed and a later one mastered, and is turned down where it falls behind there. How"
    " much luck a gate allows is taken from one purse of the whole campaign, so the wealth that is asked for differs.",
    "In the screen a comparison is one attempt of the candidate on a development start, set against every attempt that"
    " the incumbent has made; it wins where it is better than more of them than it is worse than. The two columns of"
    " success are over different sets of starts, so the gain there is a first impression and no evidence.",
    "An idea is superseded when another one is accepted while it is tested: the incumbent that it was compared with no"
    " longer rules. It is undecided when the run ended before its test did.",
)
USE_CAPTION = (
    "Wall time of each station: trials by purpose, resets by the arm, waiting, and away: before it came, or from the"
    " trial that the end of its process cut short until it was back. Shares here are of the whole run, from"
    " its start to its end, for each station that was asked for. The view station_utilisation in coordinator.db divides"
    " by the time from a station's first trial to the end of its last: by less, which gives larger shares, but where a"
    " run was interrupted by more, as the time in between is in it, and in no figure of this page."
)
FAILURE_CAPTION = (
    "Failures count against the policy; faults of the harness are listed as invalid and leave the rate. All starts"
    " are in it, held-out and audit too; checks of stations and the attempts of a roll-out are not."
)


def headline(run: Run) -> str:
    """Return from what to what, in one sentence."""
    reigns = measures.incumbents(run)
    if not run.trials:
        return "This run ended before any trial was recorded."
    effort = (
        f"in {len(run.trials)} trials, {measures.station_minutes(run):.0f} station-minutes"
        f" and {run.minutes:.1f} wall minutes"
    )
    if not reigns:
        return f"No policy was measured as incumbent {effort}."
    first, last = reigns[0], reigns[-1]
    if len(reigns) == 1:
        return f"The seed policy stands at {_where(first)}; no idea was accepted {effort}."
    return f"From {_where(first)} to {_where(last)} {effort}."


def _where(reign: measures.Incumbent) -> str:
    return f"{reign.best_count.text} on {reign.starts} starts"


def _asked(run: Run) -> str:
    if run.campaign is None:
        return "The database names no campaign."
    asked = run.campaign
    end = f" It ended: {asked.ended_why}." if asked.ended_why else " It was cut short before it could say why it ended."
    return (
        f"Campaign {asked.campaign_id}, seed {asked.seed}: {asked.stations} stations, target"
        f" {asked.target_successes} of {asked.target_trials} on held-out starts, budget"
        f" {asked.budget_minutes:g} minutes.{end}"
    )


def key_figures(run: Run) -> Iterator[tuple[str, str]]:
    """Yield name and value of each figure that stands in the first table."""
    reigns = measures.incumbents(run)
    for name, reign in (("seed", reigns[:1]), ("incumbent", reigns[1:][-1:])):
        for item in reign:
            yield f"success of the {name}, held-out starts", _heldout(item)
            yield f"success of the {name}, other starts", item.pooled.text
            yield from _pass_rates(name, item)
    yield "ideas", measures.idea_words(measures.idea_counts(run))
    invalid = sum(not trial.valid for trial in run.trials)
    yield "trials", f"{len(run.trials)}, of them {invalid} invalid, {run.quarantined} refused as contradicting"
    use = measures.robot_use(run)
    yield "robots in use (MRU), any experiment with its reset", _share(use.any_at_work) + _paper_use(run)
    yield "robots in use (MRU), any experiment", _share(use.any_experiment)
    yield "robots in use (MRU), trials that became evidence, with their resets", _share(use.useful_at_work)
    yield "robots in use (MRU), trials that became evidence", _share(use.useful)
    yield "robots in use (MRU), candidates of the researcher", _share(use.candidates)
    if run.token_calls:
        yield "robots in use (MRU), candidates of language models", _share(use.agents)
    yield "robots resetting", _share(use.resetting)
    yield from _milestones(run)
    if run.token_calls:
        yield "tokens (MTU)", total(run)
    resets = measures.resets(run)
    if resets is not None:
        yield "resets by the arm, ready at first try", resets.first_try.text
        yield "reset, median station time", f"{resets.median_s:.1f} s"


def _heldout(reign: measures.Incumbent) -> str:
    return reign.heldout.text + measures.unjudged(reign.heldout_invalid) if reign.heldout else "not measured"


def _paper_use(run: Run) -> str:
    paper = measures.PAPER_MRU.get(measures.station_count(run))
    return "" if paper is None else f"; the paper's robots, as many: {100 * paper:.0f} %"


def _milestones(run: Run) -> Iterator[tuple[str, str]]:
    for share in milestones.SHARES:
        reached = milestones.time_to(run, share)
        yield f"time to {100 * share:.0f} % on held-out starts", _effort(reached) if reached else "not reached"
    for audit in run.audits[-1:]:
        early = "" if audit.complete else ", stopped early"
        measured = Count(audit.successes, audit.trials).text + measures.unjudged(audit.invalid) + early
        yield "success of the last incumbent, audit starts", measured
    ruled = milestones.success_at(run)
    if ruled is not None:
        words = f"{ruled.success.text} on {ruled.starts} starts, whenever it was measured"
        yield f"success of the policy that ruled after {milestones.EPISODES} trials", words


def _effort(reached: milestones.Milestone) -> str:
    tokens = f", {reached.tokens:,} tokens" if reached.tokens else ""
    return (
        f"{reached.minute:.1f} minutes, {reached.station_minutes:.0f} station-minutes, at most"
        f" {reached.clock_minutes:.0f} of one station, {reached.trials} trials{tokens}:"
        f" {reached.success.text}"
    )


def _pass_rates(name: str, reign: measures.Incumbent) -> Iterator[tuple[str, str]]:
    measured = reign.best_count
    for attempts in (1, ATTEMPTS):
        rate = measures.pass_at(attempts, measured)
        if rate is not None:
            words = (
                f"{100 * rate:.0f} %, estimated from {measured.successes}/{measured.trials} on {reign.starts} starts"
            )
            yield f"pass@{attempts} of the {name}, independent starts", words


def _share(value: float) -> str:
    return f"{100 * value:.1f} % of the stations' time in the whole run"


def _show(shown: Picture, words: str, caption: str) -> Markup:
    return picture(shown.light, shown.dark, words, caption)


def _incumbents(run: Run) -> Markup:
    return table(
        ("", "Incumbent", "Policy", "From minute", "Gain", "Held-out starts", "Other starts"),
        (
            (
                str(reign.generation),
                reign.idea.short,
                short_hash(reign.idea.bundle),
                f"{reign.from_minute:.1f}",
                _gain(run, reign),
                _heldout(reign),
                reign.pooled.text,
            )
            for reign in measures.incumbents(run)
        ),
        none="No policy became the incumbent.",
    )


def _gain(run: Run, reign: measures.Incumbent) -> str:
    """Return a claimed gain beside how many candidates were tried for it."""
    decision, parent = reign.idea.decision, reign.idea.parent_candidate_id
    if decision is None or parent is None:
        return ""
    return f"{gains.words(run, reign.idea, decision)}, one of {measures.tried_against(run, parent)} tried"


def _ideas(run: Run) -> Iterator[Markup]:
    yield table(
        ("", "Hypothesis", "Verdict", "Compared", "Wins / losses", "Candidate", "Incumbent", "Gain", "Why"),
        (_idea_row(run, idea) for idea in run.ideas),
        none="No idea was written down.",
    )
    name, *words = COUNTED
    yield element("details", element("summary", name), *(element("p", each, css="quiet") for each in words))


def _idea_row(run: Run, idea: Idea) -> tuple[str, ...]:
    words = element("span", idea.sentence, title=f"{idea.kind} by {idea.researcher}; false if: {idea.falsifier}")
    verdict = element("span", idea.verdict, css="accept" if idea.verdict == "accept" else "")
    made = idea.decision
    if made is None:
        return (str(idea.candidate_id), words, verdict, "", "", "", "", "", idea.state)
    return (
        str(idea.candidate_id),
        words,
        verdict,
        _compared(made),
        f"{made.wins} / {made.losses}",
        Count(made.candidate_successes, made.candidate_trials).text,
        Count(made.incumbent_successes, made.incumbent_trials).text,
        gains.words(run, idea, made) if made.candidate_trials and made.incumbent_trials else "",
        f"{made.stage}: {made.reason}" if made.reason else made.stage,
    )


def _compared(made: Decision) -> str:
    unit = {"gate": "pair", "screen": "attempt"}.get(made.stage)
    return f"{made.pairs} {unit}{'' if made.pairs == 1 else 's'}" if unit else ""


def _stations(run: Run) -> Markup:
    names = sorted({trial.edge for trial in run.trials} | {station.edge for station in run.stations})
    memory_mb = {station.edge: station.peak_memory_mb for station in run.stations}
    return table(
        (
            "Station",
            "Trials",
            "Invalid",
            "In trials, of the run",
            "In resets, of the run",
            "Away, of the run",
            "Success, all policies",
            "Peak memory",
            "Hashes",
        ),
        (_station_row(run, name, memory_mb.get(name, 0.0)) for name in names),
        none="No station took part.",
    )


def _station_row(run: Run, name: str, peak_mb: float) -> tuple[str, ...]:
    own = [trial for trial in run.trials if trial.edge == name]
    minutes = max(run.minutes, 1e-9)
    hashes = sorted({(trial.station_hash, trial.calibration_hash) for trial in own})
    return (
        name,
        str(len(own)),
        str(sum(not trial.valid for trial in own)),
        f"{100 * sum(trial.wall_trial_min for trial in own) / minutes:.0f} %",
        f"{100 * sum(trial.wall_reset_min for trial in own) / minutes:.0f} %",
        f"{100 * away_minutes(run, name) / minutes:.0f} %",
        measures.count(own).text,
        f"{peak_mb:.0f} MB" if peak_mb else "not told",
        join(Markup(f"station {short_hash(station)} calibration {short_hash(made)}") for station, made in hashes),
    )


def _failures(run: Run) -> Markup:
    rows = [
        (reign.idea.short, cause, str(hits))
        for reign in measures.incumbents(run)
        for cause, hits in measures.failure_classes(run, reign.idea.bundle).most_common()
    ]
    invalid = [(cause, str(hits)) for cause, hits in measures.invalid_causes(run).most_common()]
    return join(
        (
            table(("Incumbent", "Failure class", "Trials"), rows, none="No failure of an incumbent was recorded."),
            element("h3", "Invalid trials"),
            table(("Cause", "Trials"), invalid, none="No trial was invalid."),
        )
    )


def _films(strips: tuple[Strip, ...]) -> Markup:
    if not strips:
        return element("p", "No recording of a seed's failure or an incumbent's success has arrived.", css="quiet")
    return join(part for strip in strips for part in _film(strip))


def _gallery(strips: tuple[Strip, ...]) -> Markup:
    if not strips:
        return element("p", "No other recording of a failed or invalid trial has arrived.", css="quiet")
    words = "The newest recorded trial of each failure class, then of each fault of the harness."
    return join((element("p", words, css="quiet"), *(part for strip in strips for part in _film(strip))))


def _film(strip: Strip) -> Iterator[Markup]:
    trial = strip.trial
    yield element("h3", strip.title)
    if strip.frames:
        yield element(
            "div",
            *(
                photograph(frame.jpeg, f"+{frame.since_start_s:.1f} s (station clock {frame.station_s:.1f} s)")
                for frame in strip.frames
            ),
            css="strip",
        )
    else:
        yield element("p", strip.problem or "its recording holds no camera frame", css="quiet")
    told = ", ".join(f"{name} {value:.3g}" for name, value in trial.measures.items())
    yield element(
        "p",
        f"{trial.edge}, trial {trial.sequence}, start {trial.start_id}, seed {trial.seed}: ",
        trial.detail or trial.cause,
        f" ({told})." if told else ".",
        Markup(f" Policy {short_hash(trial.bundle)}, calibration {short_hash(trial.calibration_hash)},"),
        Markup(f" recording {short_hash(trial.recording)}."),
        css="quiet",
    )


def _summary(run: Run) -> Markup:
    rows = list(_flat("", run.summary))
    if not rows:
        return Markup("")
    return element("details", element("summary", "Every figure of summary.json"), table((), rows, none=""))


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield each scalar below `value` with the path to it."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flat(f"{prefix}.{name}" if prefix else str(name), inner)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _flat(f"{prefix}[{index}]", inner)
    else:
        yield prefix, f"{value:.6g}" if isinstance(value, float) else str(value)
