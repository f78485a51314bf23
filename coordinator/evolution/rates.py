"""Success rates with their intervals, and the chance that one of several tries succeeds.

- Counts are of valid trials, independent of one another and of the choice of the policy: held-out ones.
- The exact interval is the one to quote; Wilson's is what SQL can compute, as the views do.
"""

from __future__ import annotations

from math import comb, sqrt

CONFIDENCE = 0.95
NORMAL_QUANTILE = 1.959963984540054  # of CONFIDENCE, two-sided


def exact_interval(successes: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the exact two-sided interval of a success rate (Clopper and Pearson 1934); (0, 1) without trials.

    Raises:
        ValueError: the counts are no counts.
    """
    from scipy.special import betaincinv  # only here: scipy is half a second and forty megabytes

    _check(successes, trials)
    if trials == 0:
        return 0.0, 1.0
    tail = (1.0 - confidence) / 2.0
    low = 0.0 if successes == 0 else float(betaincinv(successes, trials - successes + 1, tail))
    high = 1.0 if successes == trials else float(betaincinv(successes + 1, trials - successes, 1.0 - tail))
    return low, high


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95 % score interval of a success rate (Wilson 1927); (0, 1) without trials.

    Raises:
        ValueError: the counts are no counts.
    """
    _check(successes, trials)
    if trials == 0:
        return 0.0, 1.0
    squared = NORMAL_QUANTILE**2
    middle = (successes + squared / 2.0) / (trials + squared)
    half = NORMAL_QUANTILE * sqrt(successes * (trials - successes) / trials + squared / 4.0) / (trials + squared)
    return max(0.0, middle - half), min(1.0, middle + half)


def pass_at(attempts: int, successes: int, trials: int) -> float | None:
    """Return the unbiased estimate that at least one of `attempts` independent tries succeeds.

    1 - C(n - c, k) / C(n, k), Chen et al. 2021, "Evaluating Large Language Models Trained on Code", eq. 1.
    None where fewer than `attempts` trials were measured.

    Raises:
        ValueError: the counts are no counts.
    """
    _check(successes, trials)
    if trials < attempts:
        return None
    return 1.0 - comb(trials - successes, attempts) / comb(trials, attempts)


def _check(successes: int, trials: int) -> None:
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes of {trials} trials")
