r"""What a record, a configuration or a message contains is shown, and never acts.

A terminal obeys control characters, readers are misled by bidirectional and invisible ones, and
streams refuse lone surrogates. All of these are written as Python writes them in a string, such as
`\x1b` and `\u202e`. So are the first characters of what a job of GitHub's would obey: lines that
begin with `::`, and `##[` anywhere. `guard_streams` lets all that the process prints pass through;
formats that other programs read escape by their own rules before that.
"""

from __future__ import annotations

import functools
import io
import json
import re
import sys
import unicodedata
from typing import Any, Callable, TextIO

_SUSPECTS = re.compile(r"[^\n\t\x20-\x7e]")
"""All characters that may act: few texts have any."""
_COMMANDS = re.compile(r"^(\s*):(?=:)|#(?=#\[)", re.MULTILINE)
"""Where GitHub's runner finds workflow commands in what a job prints, of both its syntaxes."""
_ACTING = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode's categories of what has no glyph of its own: control, format (bidirectional, zero
width), surrogate, private, unassigned, and the separators of lines and paragraphs."""


def printable(text: str) -> str:
    """`text` with each character that could act written as an escape; lines and tabs stay."""
    return _SUSPECTS.sub(lambda found: _shown(found[0]), text)


def one_line(text: str) -> str:
    """`printable` text of one line: breaks and tabs are escaped, too."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def json_text(content: Any, **options: Any) -> str:
    """`json.dumps` that leaves readable characters as they are, and escapes the others."""
    return json_escaped(json.dumps(content, ensure_ascii=False, **options))


def json_escaped(text: str) -> str:
    """JSON that says the same with each character that could act written as JSON's own escape."""
    shown = _SUSPECTS.sub(lambda found: _shown_in_json(found[0]), text)
    return shown.replace("##[", "\\u0023#[")  # the guard's own escape would be none of JSON's


def without_commands(text: str) -> str:
    """`text`, in which GitHub's runner finds no workflow command."""
    return _COMMANDS.sub(lambda found: rf"{found[1] or ''}\x{ord(found[0][-1]):02x}", text)


def print_commands(text: str) -> None:
    """Print workflow commands of our own, whose parts are escaped by GitHub's rules."""
    stream = sys.stdout
    if isinstance(stream, PrintableStream):
        stream.write_commands(f"{text}\n")
    else:
        print(text)


class PrintableStream(io.TextIOBase):
    """A text stream through which only what is printable passes, and no workflow command."""

    def __init__(self, below: TextIO, shown: Callable[[str], str] = printable) -> None:
        self._below = below
        self._shown = shown

    # It has no `buffer`, so that nobody writes past it.

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """As the stream below."""
        return self._below.encoding

    @property
    def errors(self) -> Any:  # type: ignore[override]
        """As the stream below."""
        return self._below.errors

    def write(self, text: str) -> int:
        """Write `text`, escaped."""
        self._below.write(without_commands(self._shown(text)))
        return len(text)

    def write_commands(self, text: str) -> None:
        """Write `text` with its workflow commands: see `print_commands`."""
        self._below.write(self._shown(text))

    def styled(self) -> Any:
        """Where `bench.console.Console` writes what it rendered: clean text, and its own styles."""
        return PrintableStream(self._below, shown=str)

    def flush(self) -> None:
        """Flush the stream below, which stays open when this one is closed."""
        if not self._below.closed:
            self._below.flush()

    def isatty(self) -> bool:
        """As the stream below."""
        return self._below.isatty()

    def fileno(self) -> int:
        """As the stream below."""
        return self._below.fileno()

    def writable(self) -> bool:
        """Always."""
        return True


def guard_streams() -> None:
    """Let all that this process prints from now on pass `printable`, tracebacks included."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or isinstance(stream, PrintableStream):
            continue
        if isinstance(stream, io.TextIOWrapper):  # characters that the terminal's encoding lacks
            stream.reconfigure(errors="backslashreplace")
        setattr(sys, name, PrintableStream(stream))


@functools.lru_cache(maxsize=4096)
def _shown(character: str) -> str:
    if unicodedata.category(character) not in _ACTING:
        return character
    return character.encode("unicode_escape").decode("ascii")


@functools.lru_cache(maxsize=4096)
def _shown_in_json(character: str) -> str:
    if unicodedata.category(character) not in _ACTING:
        return character
    return json.dumps(character)[1:-1]
