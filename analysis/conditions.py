"""Under which conditions trials ran, where a reader has to know them: a line of text each."""

from __future__ import annotations

import pandas as pd


def imports(frame: pd.DataFrame, mark: str = "+: ") -> list[str]:
    """That ranks imported modules during trials, which weighs on their figures.

    `mark` stands before it: what a table marks such figures with.
    """
    late = frame[(frame.status == "ok") & (frame.late_imports > 0)]
    if late.empty:
        return []
    most = late.loc[late.late_imports.idxmax()]
    return [
        f"{mark}in {len(late):,} of {len(frame):,} trials ranks imported modules (up to "
        f"{most.late_imports:,}): peak memory counts them on CPU, and so may first steps. Run them "
        "again: what they imported is known by now"
    ]


def mesh_setups(frame: pd.DataFrame) -> list[str]:
    """What `mesh_setup=auto` came to, by environment; nothing where no sequence was shared."""
    asked = frame[(frame.mesh_setup == "auto") & (frame.sp > 1)]
    used = asked[asked.mesh_setup_used.notna()]
    if used.empty:
        return []
    by_setup: dict[str, list[str]] = {}
    for environment, name in used.groupby("environment").mesh_setup_used.first().items():
        by_setup.setdefault(str(name), []).append(str(environment))
    if len(by_setup) == 1:
        return [f"mesh_setup auto: {next(iter(by_setup))}"]
    parts = (f"{name} on {', '.join(places)}" for name, places in sorted(by_setup.items()))
    return [f"mesh_setup auto: {'; '.join(parts)}"]
