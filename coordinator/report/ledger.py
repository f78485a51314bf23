"""The page's ledger of language models: tokens by kind, money, and what came of them, by lane and by hypothesis.

A lane is one researcher; the calls of a lane that led to no hypothesis are part of the price of its gains.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from coordinator.agents.prices import NANO_USD
from coordinator.report import gains
from coordinator.report.markup import Markup, element, join, table
from coordinator.report.milestones import accepted_ideas, token_use
from coordinator.report.run import Idea, Run, TokenCall

# Tokens a minute of the paper's teams on pin insertion, by robots and agents: its Fig. 7; which tokens is not said.
PAPER_TOKENS_PER_MINUTE = {1: 9_269, 4: 40_029, 8: 140_310}
NO_TOKENS = "No language model was called in this run; the offline researcher uses no tokens."
KINDS = ("Fresh input", "Cache read", "Cache written", "Output", "Reasoning", "Other")
GUESSED = (
    "Other: counted in the vendor's total, but in none of its kinds. {percent:.1f} % of all tokens are guessed: answers"
    " broke off before they told. Dollars are by the table of prices that this version ships or was given."
)
Calls = Sequence[TokenCall]


def token_part(run: Run) -> Markup:
    """Return the ledger, or a sentence where no language model was called."""
    calls = run.token_calls
    if not calls:
        return element("p", NO_TOKENS, css="quiet")
    guessed = sum(call.guessed_tokens for call in calls) / max(sum(call.tokens for call in calls), 1)
    return join(
        (
            element("p", total(run)),
            element("h3", "Tokens by kind"),
            table(("Lane", "Model", "Calls", *KINDS, "Dollars", "Waited"), _kinds(run), none=""),
            element("p", GUESSED.format(percent=100.0 * guessed), css="quiet"),
            element("h3", "What they gained"),
            table(
                ("Lane", "Ideas", "Accepted", "Tokens", "A minute", "An accepted idea", "Dollars", "An accepted idea"),
                _lanes(run),
                none="",
            ),
            element("h3", "By hypothesis"),
            table(("", "Hypothesis", "Lane", "Verdict", "Gain", "Calls", "Tokens", "Dollars"), _ideas(run), none=""),
            element("p", _paper(), css="quiet"),
        )
    )


def total(run: Run) -> str:
    """Return the use of tokens over the whole run (MTU) in words."""
    use = token_use(run)
    said = f"{use.tokens:,} tokens in and out, {use.per_minute:,.0f} a minute; {dollars(use.usd)}"
    if use.per_accept is None or use.usd_per_accept is None:
        return f"{said}; no idea of a language model was accepted"
    return f"{said}; {use.per_accept:,.0f} tokens and {dollars(use.usd_per_accept)} for each accepted idea"


def dollars(usd: float) -> str:
    """Return an amount with cents, or with as many digits as show that it is not nothing."""
    return f"${usd:,.2f}" if usd >= 1.0 or not usd else f"${usd:.4f}"


def _kinds(run: Run) -> Iterator[tuple[str, ...]]:
    calls: dict[tuple[str, str], list[TokenCall]] = defaultdict(list)
    for call in run.token_calls:
        calls[call.researcher, call.model].append(call)
    for (lane, model), made in sorted(calls.items()):
        yield (lane, model, *_kind_row(made))
    if len(calls) > 1:
        yield ("all", "", *_kind_row(run.token_calls))


def _kind_row(calls: Calls) -> tuple[str, ...]:
    kinds = (
        (call.fresh_tokens, call.cached_tokens, call.cache_write_tokens, call.said_tokens, call.reasoning_tokens,
         call.other_tokens)
        for call in calls
    )  # fmt: skip
    return (
        str(len(calls)),
        *(f"{sum(column):,}" for column in zip(*kinds, strict=True)),
        dollars(_usd(calls)),
        f"{sum(call.seconds for call in calls) / 60.0:.1f} min",
    )


def _lanes(run: Run) -> Iterator[tuple[str, ...]]:
    for lane in sorted({call.researcher for call in run.token_calls}):
        calls = [call for call in run.token_calls if call.researcher == lane]
        made = [idea for idea in run.ideas if idea.researcher == lane and idea.parent_candidate_id is not None]
        accepted = [idea for idea in accepted_ideas(run) if idea.researcher == lane]
        tokens, usd = sum(call.tokens for call in calls), _usd(calls)
        yield (
            lane,
            str(len(made)),
            str(len(accepted)),
            f"{tokens:,}",
            f"{tokens / max(run.minutes, 1e-9):,.0f}",
            f"{tokens / len(accepted):,.0f}" if accepted else "none",
            dollars(usd),
            dollars(usd / len(accepted)) if accepted else "none",
        )


def _ideas(run: Run) -> Iterator[tuple[str, ...]]:
    """Yield a row for each hypothesis that calls led to, then one for each lane's calls that led to none."""
    calls: dict[int | None, list[TokenCall]] = defaultdict(list)
    for call in run.token_calls:
        calls[call.hypothesis_id].append(call)
    for idea in run.ideas:
        if idea.hypothesis_id in calls:
            yield (*_idea_words(run, idea), *_cost(calls[idea.hypothesis_id]))
    for lane in sorted({call.researcher for call in calls[None]}):
        mine = [call for call in calls[None] if call.researcher == lane]
        yield ("", "calls that led to no hypothesis", lane, "", "", *_cost(mine))


def _idea_words(run: Run, idea: Idea) -> tuple[str, ...]:
    verdict = element("span", idea.verdict, css="accept" if idea.verdict == "accept" else "")
    gained = gains.points(run, idea, idea.decision) if idea.decision else ""
    return (str(idea.candidate_id), idea.sentence, idea.researcher, verdict, gained)


def _cost(calls: Calls) -> tuple[str, str, str]:
    return (str(len(calls)), f"{sum(call.tokens for call in calls):,}", dollars(_usd(calls)))


def _usd(calls: Calls) -> float:
    return sum(call.nano_usd for call in calls) / NANO_USD


def _paper() -> str:
    told = ", ".join(f"{tokens:,} with {robots}" for robots, tokens in PAPER_TOKENS_PER_MINUTE.items())
    return f"The paper's teams used, a minute: {told} robots (pin insertion; it does not say which tokens it counts)."
