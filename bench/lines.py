"""Lines out of a stream of bytes, however long; shared by the server and the controller."""

from __future__ import annotations

from typing import List, NamedTuple, Optional

MOST_REPORT_BYTES = 256 << 20
"""Of the line in which a rank reports; what it returned beyond is no record's."""
_KEPT = 1000
"""Bytes that are kept of a line that is too long, for a look at it."""


class Line(NamedTuple):
    """A whole line."""

    content: bytes
    """Without its end; of a line that is too long only the beginning."""
    length: int
    """Bytes that it had."""


class Lines:
    """Collects bytes until they make lines: each byte is copied once or twice, never more.

    Of a line of more than `most` bytes only the beginning is kept.
    """

    def __init__(self, most: Optional[int] = None) -> None:
        self._most = most
        self._parts: List[bytes] = []
        self._length = 0

    def take(self, data: bytes) -> List[Line]:
        """The lines that `data` completes."""
        *ends, rest = data.split(b"\n")
        found = []
        for end in ends:
            self._add(end)
            found.append(Line(b"".join(self._parts), self._length))
            self._parts, self._length = [], 0
        self._add(rest)
        return found

    def _add(self, part: bytes) -> None:
        self._length += len(part)
        if self._most is None or self._length <= self._most:
            self._parts.append(part)
        elif len(self._parts) != 1 or len(self._parts[0]) > _KEPT:
            self._parts = [b"".join([*self._parts, part])[:_KEPT]]
