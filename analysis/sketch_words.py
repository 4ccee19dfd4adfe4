"""What sketches say of two gradients, in words."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.sketches import DIFFERS, MATCH, NONE, SCALED, UNKNOWN, SketchComparison


def words(found: SketchComparison | None) -> str:
    """A cell: `×2 (residual 0.3 % ± 0.01 %)`, or the verdict."""
    if found is None:
        return "–"
    if found.residual is None:
        return found.verdict
    said = f"differs, {found.scale_label}" if found.verdict == DIFFERS else found.scale_label
    return f"{said} (residual {_residual(found)})"


def kind(found: SketchComparison | None) -> str:
    """What points are grouped by: those of one kind share a sentence. Empty: nothing to say."""
    if found is None:
        return ""
    return f"{found.verdict} {found.scale_label if found.verdict == SCALED else found.reason}"


def sentence(found: Sequence[SketchComparison], baseline: str, candidate: str) -> str:
    """About points of one kind: `by their sketches, the gradient of B is ×2 that of A (…)`."""
    first = found[0]
    lead = f"by their sketches, the gradient of {candidate}"
    if first.verdict == UNKNOWN:
        return f"the sketches say nothing: {first.reason}"
    if first.verdict == NONE:
        return f"the sketches say that {first.reason}"
    figures = _figures(found)
    if first.verdict == MATCH:
        return f"{lead} is that of {baseline}{figures}; whether it is right they cannot tell"
    if first.verdict == SCALED:
        return (
            f"{lead} is {first.scale_label} that of {baseline}{figures}; "
            "which is right they cannot tell"
        )
    return f"{lead} is not a multiple of that of {baseline}: {first.reason}{figures}"


def _figures(found: Sequence[SketchComparison]) -> str:
    """` (residual 0.3 % ± 0.01 %)`; of several points the largest."""
    known = [one for one in found if one.residual is not None]
    if not known:
        return ""
    worst = max(known, key=lambda one: one.residual or 0.0)
    most = "residual at most" if len(known) > 1 else "residual"
    scale = f"scale {worst.scale:.4g} ± {worst.scale_error:.1g}, "
    return f" ({scale if len(known) == 1 else ''}{most} {_residual(worst)})"


def _residual(found: SketchComparison) -> str:
    """`0.3 % ± 0.01 %`."""
    residual, error = found.residual or 0.0, found.residual_error or 0.0
    return f"{100 * residual:.2g} % ± {100 * error:.1g} %"
