"""The page's words on its judge and on tokens: verdict precision, the ledger of language models."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from coordinator.report.markup import Markup, element, join, table
from coordinator.report.milestones import token_use
from coordinator.report.run import Run, TokenCall
from coordinator.report.verdicts import verdicts

# Tokens a minute of the paper's teams on pin insertion, by robots and agents: its Fig. 7; which tokens is not said.
PAPER_TOKENS_PER_MINUTE = {1: 9_269, 4: 40_029, 8: 140_310}
NO_TOKENS = "No language model was called in this run; the offline researcher uses no tokens."
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


def token_part(run: Run) -> Markup:
    """Return the ledger of tokens, a row for each researcher and model."""
    if not run.token_calls:
        return element("p", NO_TOKENS, css="quiet")
    header = ("Researcher", "Model", "Calls", "Fresh input", "Cached input", "Output", "Waited")
    use = token_use(run)
    each = "" if use.per_accept is None else f", {use.per_accept:,.0f} for each accepted idea"
    words = f"{use.tokens:,} tokens in and out: {use.per_minute:,.0f} a minute (MTU){each}."
    return join((table(header, _token_rows(run), none=""), element("p", words), element("p", _paper(), css="quiet")))


def _token_rows(run: Run) -> Iterator[tuple[str, ...]]:
    calls: dict[tuple[str, str], list[TokenCall]] = defaultdict(list)
    for call in run.token_calls:
        calls[call.researcher, call.model].append(call)
    for (researcher, model), made in sorted(calls.items()):
        cached = sum(call.cached_tokens for call in made)
        yield (
            researcher,
            model,
            str(len(made)),
            f"{sum(call.input_tokens for call in made) - cached:,}",
            f"{cached:,}",
            f"{sum(call.output_tokens for call in made):,}",
            f"{sum(call.seconds for call in made) / 60.0:.1f} min",
        )


def _paper() -> str:
    told = ", ".join(f"{tokens:,} with {robots}" for robots, tokens in PAPER_TOKENS_PER_MINUTE.items())
    return f"The paper's teams used, a minute: {told} robots (pin insertion; it does not say which tokens it counts)."
