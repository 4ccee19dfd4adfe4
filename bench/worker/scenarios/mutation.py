"""A self-test of the judge: one training step with a fault that it must see.

`options.mutation` names the fault (`bench.worker.mutations`). The loss aggregation and ZeRO
stage must be a pair that is right on this stack, or the fault is not the only one; `untouched`
tells whether they are.
"""

from __future__ import annotations

import difflib
from typing import Any, Dict

from bench.worker.metrics.gradient import scale_label
from bench.worker.mutations import MUTATIONS, trainer
from bench.worker.one_step import judged
from bench.worker.rank import Rank


def run(rank: Rank) -> Dict[str, Any]:
    """The judged step, and in `details` which verdict was expected of it.

    Raises:
        ValueError: there is no such mutation.
    """
    name = str(rank.configuration.options.get("mutation", "untouched"))
    if name not in MUTATIONS:
        near = difflib.get_close_matches(name, MUTATIONS, n=1)
        raise ValueError(
            f"options.mutation={name}: unknown; allowed: {', '.join(MUTATIONS)}"
            + (f"; did you mean '{near[0]}'?" if near else "")
        )
    mutation = MUTATIONS[name]
    result = judged(rank, trainer(mutation))
    expected = mutation.verdict
    if expected == "scaled":
        expected += f" {scale_label(mutation.factor(rank.configuration.sp))}"
    result["details"] = {
        "mutation": name,
        "expected": expected,
        "headline": f"{name}: {expected} expected",
    }
    return result
