"""Keys that tell configurations apart where all axes are equal: a row never stands for two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from analysis.columns import AXES, Content, flat

HASH = "config"
"""The column with the start of the hash, where no key tells two configurations apart."""
_NO_KEYS = ("limits", "deepspeed", "options")
"""Parts of a configuration that define nothing, or are axes already."""


def keys_apart(axes: Mapping[str, Content], configs: Mapping[str, Content]) -> dict[str, list[Any]]:
    """Columns for the keys in which configurations differ that share all axes; most often none.

    Both arguments are by hash, in the order of the columns' values: `analysis.columns.axes_of`,
    and the `config` of a record. Names are Hydra's (`environment.torch`), top-level ones with
    `config.` before them.
    """
    groups: dict[tuple[Any, ...], list[str]] = {}
    for key, found in axes.items():
        place = tuple(sorted((name, str(v)) for name, v in found.items() if v is not None))
        groups.setdefault(place, []).append(key)
    names: dict[str, None] = {}
    for alike in groups.values():
        if len(alike) > 1:
            names |= _apart([_leaves(configs[key]) for key in alike])
    leaves = [_leaves(configs[key]) for key in axes] if names else []
    columns = {name: [one.get(name) for one in leaves] for name in names if name != HASH}
    if HASH in names:
        columns[HASH] = [key[:8] for key in axes]
    return columns


def _leaves(config: Content) -> dict[str, Any]:
    """A configuration's keys that are no axis, under dotted names."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        if name not in _NO_KEYS:
            found |= flat(name if isinstance(value, dict) else f"{HASH}.{name}", value)
    of_axes = {"model.name", "comm.name", "environment.name", *(f"{HASH}.{name}" for name in AXES)}
    return {name: value for name, value in found.items() if name not in {*of_axes, *AXES}}


def _apart(configs: Sequence[Mapping[str, Any]]) -> dict[str, None]:
    """Names whose values tell these apart, and `HASH` where they leave two alike."""
    every = dict.fromkeys(name for one in configs for name in one)
    names = [name for name in every if len({str(one.get(name)) for one in configs}) > 1]
    told = {tuple(str(one.get(name)) for name in names) for one in configs}
    return dict.fromkeys([*names, *([HASH] if len(told) < len(configs) else [])])
