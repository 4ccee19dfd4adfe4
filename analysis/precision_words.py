"""What a ratio's rounds can tell, in words: what they leave possible, and whether they depend."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from analysis.statistics import Ratio, rounds_for
from analysis.wording import span

USEFUL = (0.05, 0.1, 0.2, 0.5)
"""Differences that are named when the smallest that matters would take too many rounds."""
MOST_ROUNDS = 30
"""Rounds beyond which more of them are no advice; as many as `precision` adds at most."""


def hidden(ratios: Sequence[Ratio], smallest: float) -> str:
    """How large a difference the intervals leave possible, and how many rounds would tell.

    `differences up to 2.5 × cannot be ruled out with 3 rounds; about 30 rounds would show 20 %`.
    The rounds are named where they are at most `MOST_ROUNDS`, for the smallest difference that
    so many show.
    """
    factor = max(ratio.hidden or 1.0 for ratio in ratios)
    if factor - 1 <= smallest:
        return f"differences of more than {difference(factor)} are ruled out"
    rounds = span((ratio.rounds for ratio in ratios), ",")
    text = f"differences up to {difference(factor)} cannot be ruled out with {rounds} rounds"
    return text + _more(ratios, smallest, factor)


def more_rounds(ratios: Sequence[Ratio], smallest: float, factor: float) -> tuple[int, str] | None:
    """Rounds that would show a difference worth knowing, and which; None where no more help.

    `factor` is how large a difference the rounds so far leave possible.
    """
    for precision in (smallest, *(one for one in USEFUL if smallest < one < factor - 1)):
        needed = max(rounds_for(ratio, precision) or 0 for ratio in ratios)
        if needed <= MOST_ROUNDS:
            helps = needed > max(ratio.rounds for ratio in ratios)
            return (needed, difference(1 + precision)) if helps else None
    return None


def _more(ratios: Sequence[Ratio], smallest: float, factor: float) -> str:
    """`; about 30 rounds would show 5 %`, or nothing where that would be no help."""
    found = more_rounds(ratios, smallest, factor)
    return f"; about {found[0]:,} rounds would show {found[1]}" if found else ""


def dependence(ratios: Sequence[Ratio]) -> str:
    """What to add to a verdict whose rounds are not independent; nothing where they are."""
    found = [ratio for ratio in ratios if ratio.dependent]
    values = [ratio.correlation.value for ratio in found if ratio.correlation]
    if not values:
        return ""
    text = f"; rounds are not independent: neighbours correlate by {span(values, '.2f')}, so "
    if len(found) == 1 and found[0].effective:
        return f"{text}{found[0].rounds} rounds count as {found[0].effective:.1f}"
    return f"{text}they count as fewer"


def independence(ratios: Sequence[Ratio]) -> Iterator[str]:
    """One sentence on the correlations of points whose rounds do count as independent."""
    values = [r.correlation.value for r in ratios if r.correlation and not r.dependent]
    if values:
        some = len(values) < len(ratios)
        where = f" (known at {len(values)} of {len(ratios)} points)" if some else ""
        yield (
            f"neighbouring rounds correlate by {span(values, '+.2f')}, not significantly, and "
            f"count as independent{where}."
        )


def difference(factor: float) -> str:
    """A ratio as a difference: `5.1 %`, `52 %`, from 2 on `2.5 ×`."""
    if factor >= 2:
        return f"{factor:.1f} ×" if factor < 10 else f"{factor:,.0f} ×"
    percent = 100 * (factor - 1)
    return f"{percent:.2g} %" if percent < 10 else f"{percent:.0f} %"
