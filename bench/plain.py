"""What a record can hold: the values that JSON has, in numbers and text that every reader takes.

Shared by the worker, which makes reports of what scenarios return, and the controller, which
makes records of reports; standard library only.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Dict, List, Set

MOST_DEPTH = 100
"""Lists and mappings within each other; pydantic and orjson write some 250."""
MOST_VALUES = 10_000_000
"""Values of one report: text, numbers, lists and mappings together."""
_INTEGERS = range(-(2**63), 2**63)
"""What readers of 64 bits take."""
_SHOWN = 80
_SURROGATE = re.compile("[\ud800-\udfff]")


class Unwritable(Exception):
    """A value that no record can hold; the message says where it is and why."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why
        self.path = ""

    def inside(self, step: str) -> Unwritable:
        """The same error, seen from the list or mapping around it."""
        self.path = step + self.path
        return self

    def __str__(self) -> str:
        place = self.path.lstrip(".")
        return f"{place}: {self.why}" if place else self.why


def plain(value: Any) -> Any:
    """`value` in JSON's own types: numbers that are not finite become None, tuples lists.

    Bytes that could not be decoded, and other lone surrogates, become their escapes.

    Raises:
        Unwritable: JSON has no such value, a whole number needs more than 64 bits, or lists and
            mappings are too deep, too many, or inside themselves.
    """
    return _Walk().take(value)


def plain_text(text: str) -> str:
    r"""`text` with lone surrogates escaped: a byte that could not be decoded reads `\xff`."""
    text = str.__str__(text)
    return text if text.isascii() else _SURROGATE.sub(_escaped, text)


def shown(value: Any) -> str:
    """A short look at `value` for a message; never raises."""
    try:
        text = plain_text(repr(value))
    except BaseException:  # noqa: BLE001 (somebody else's `__repr__`)
        text = f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    undecodable_byte = 0xDC80 <= code <= 0xDCFF  # as `os.fsdecode` has them
    return f"\\x{code - 0xDC00:02x}" if undecodable_byte else f"\\u{code:04x}"


class _Walk:
    """One conversion: how many values it met, and which it is inside of."""

    def __init__(self) -> None:
        self._met = 0
        self._around: Set[int] = set()

    def take(self, value: Any) -> Any:
        self._met += 1
        if self._met > MOST_VALUES:
            raise Unwritable(f"more than {MOST_VALUES:,} values")
        if value is None or value is True or value is False:
            return value
        kind = type(value)
        if issubclass(kind, str):
            return plain_text(value)
        if issubclass(kind, int):
            return _integer(int.__pos__(value))
        if issubclass(kind, float):
            return float.__pos__(value) if math.isfinite(value) else None
        if issubclass(kind, (list, tuple, dict)):
            return self._container(kind, value)
        raise Unwritable(f"JSON has no {kind.__name__}")

    def _container(self, kind: type, value: Any) -> Any:
        if id(value) in self._around:
            raise Unwritable("it contains itself")
        if len(self._around) == MOST_DEPTH:
            raise Unwritable(f"more than {MOST_DEPTH} lists and mappings inside each other")
        self._around.add(id(value))
        try:
            return self._mapping(value) if issubclass(kind, dict) else self._list(kind, value)
        finally:
            self._around.remove(id(value))

    def _list(self, kind: type, value: Any) -> List[Any]:
        base = list if issubclass(kind, list) else tuple
        made = []
        for index, item in enumerate(base.__iter__(value)):
            try:
                made.append(self.take(item))
            except Unwritable as error:
                raise error.inside(f"[{index}]") from None
        return made

    def _mapping(self, value: Any) -> Dict[str, Any]:
        made: Dict[str, Any] = {}
        for key, item in dict.items(value):
            name = self._key(key)
            if name in made:
                raise Unwritable(f"two keys that JSON writes as {shown(name)}")
            try:
                made[name] = self.take(item)
            except Unwritable as error:
                raise error.inside(f".{name[:_SHOWN]}") from None
        return made

    def _key(self, key: Any) -> str:
        """A key as JSON writes it: numbers, truth values and None become text."""
        if issubclass(type(key), str):
            return plain_text(key)
        if key is None or isinstance(key, (bool, int, float)):
            return json.dumps(self.take(key))
        raise Unwritable(f"the key {shown(key)} is no text")


def _integer(value: int) -> int:
    if value not in _INTEGERS:
        raise Unwritable("a whole number of more than 64 bits")
    return value
