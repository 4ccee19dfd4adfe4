"""Shapes of parsed JSON, checked quickly: what a value must be before anything is computed of it.

The parser has refused what is no finite number. Python 3.9 or later, standard library only.
"""

from __future__ import annotations

from typing import Any, Callable, FrozenSet, Mapping, NamedTuple, Optional, Sequence

DEEPEST = 32
"""Levels of a free value: what walks it by recursion must come to its end."""
LARGEST = 2**53
"""Whole numbers stay below it: exact as a float, and far below what 64 bits hold."""
_MOST_SHOWN = 40
"""Characters of a value in a message."""

Check = Callable[[Any], None]
"""Of one value that is neither null nor missing."""


class Misshapen(ValueError):
    """A value is not of the shape that it must have; the message says where and what it is."""

    def __init__(self, place: str, why: str) -> None:
        super().__init__(f"{place} {why}" if place else why)
        self._place, self._why = place, why

    def inside(self, place: str) -> Misshapen:
        """The same, seen from the value that has this one at `place`."""
        dot = "" if self._place[:1] in ("", "[") else "."
        return Misshapen(f"{place}{dot}{self._place}", self._why)


class Shape(NamedTuple):
    """The types that a value may have, and what else must hold unless it is null or missing."""

    kinds: FrozenSet[type]
    what: str
    """For people: `text`, `a whole number from 0 on`."""
    check: Optional[Check] = None
    """Raises Misshapen."""


class _Absent:
    """The type of what is not there."""


_ABSENT = _Absent()
_NONE = type(None)
_NAMES = {
    dict: "a mapping",
    list: "a list",
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    _NONE: "null",
}

ANY = Shape(frozenset(_NAMES), "any value")
TEXT = Shape(frozenset({str}), "text")
FLAG = Shape(frozenset({bool}), "true or false")
NUMBER = Shape(frozenset({int, float}), "a number")
WHOLE = Shape(frozenset({int}), "a whole number")
LIST = Shape(frozenset({list}), "a list")
MAPPING = Shape(frozenset({dict}), "a mapping")


def nullable(shape: Shape) -> Shape:
    """`shape` or null."""
    return shape._replace(kinds=shape.kinds | {_NONE}, what=f"{shape.what} or null")


def absent(shape: Shape) -> Shape:
    """As the value of a key: `shape`, or the key is not there."""
    return shape._replace(kinds=shape.kinds | {_Absent})


def count(low: int = 0, high: int = LARGEST) -> Shape:
    """A whole number from `low` on and below `high`."""
    what = f"a whole number from {low} to {high - 1}"

    def check(value: int) -> None:
        if not low <= value < high:
            raise Misshapen("", f"is {_shown(value)}, not {what}")

    return Shape(WHOLE.kinds, what, check)


def number(low: float) -> Shape:
    """A number from `low` on."""
    what = f"a number from {low:g} on"

    def check(value: float) -> None:
        if value < low:
            raise Misshapen("", f"is {_shown(value)}, not {what}")

    return Shape(NUMBER.kinds, what, check)


def one_of(*allowed: str) -> Shape:
    """One of these texts."""
    names = frozenset(allowed)

    def check(value: str) -> None:
        if value not in names:
            raise Misshapen("", f"is {_shown(value)}, none of {', '.join(allowed)}")

    return Shape(TEXT.kinds, "text", check)


def sequence(shape: Shape) -> Shape:
    """A list of `shape`."""
    kinds, inner = shape.kinds, shape.check

    def check(values: Sequence[Any]) -> None:
        if not set(map(type, values)) <= kinds:
            place = next(i for i, value in enumerate(values) if type(value) not in kinds)
            raise Misshapen(f"[{place}]", _is_not(values[place], shape))
        if inner is not None:
            for place, value in enumerate(values):
                if value is not None:
                    try:
                        inner(value)
                    except Misshapen as error:
                        raise error.inside(f"[{place}]") from None

    return Shape(LIST.kinds, "a list", check)


def by_name(shape: Shape) -> Shape:
    """A mapping of any names to `shape`."""

    def check(named: Mapping[str, Any]) -> None:
        for name, value in named.items():
            if type(value) not in shape.kinds:
                raise Misshapen(_shown(name), _is_not(value, shape))
            if shape.check is not None and value is not None:
                try:
                    shape.check(value)
                except Misshapen as error:
                    raise error.inside(_shown(name)) from None

    return Shape(MAPPING.kinds, "a mapping", check)


def mapping(fields: Mapping[str, Shape]) -> Shape:
    """A mapping with these keys; others may be there, too."""
    table = [(name, shape.kinds, shape.check) for name, shape in fields.items()]

    def check(value: Mapping[str, Any]) -> None:
        get = value.get
        for name, kinds, inner in table:
            found = get(name, _ABSENT)
            if type(found) not in kinds:
                raise Misshapen(name, _is_not(found, fields[name]))
            if inner is not None and found is not None and found is not _ABSENT:
                try:
                    inner(found)
                except Misshapen as error:
                    raise error.inside(name) from None

    return Shape(MAPPING.kinds, "a mapping", check)


def free(value: Any, levels: int = DEEPEST) -> None:
    """Raise Misshapen where `value` is nested deeper than `levels`."""
    if not isinstance(value, (dict, list)):
        return
    if not levels:
        raise Misshapen("", f"is nested more than {DEEPEST} deep")
    for inner in value.values() if isinstance(value, dict) else value:
        free(inner, levels - 1)


FREE = MAPPING._replace(check=free)
"""A mapping of anything, not nested too deeply."""


def _is_not(value: Any, shape: Shape) -> str:
    if value is _ABSENT:
        return "is missing"
    return f"is {_NAMES.get(type(value), type(value).__name__)}, not {shape.what}"


def _shown(value: Any) -> str:
    """A value as far as it fits into a line."""
    text = ascii(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 1]}…"
