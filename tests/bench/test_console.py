"""What rich draws: its own styles, and of the texts only what can be read."""

from __future__ import annotations

import io
import re

import pytest
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bench.console import Console
from bench.printable import printable

HOSTILE = "\x1b]0;x\x07\x1b[2J\x9b1m\u202e[bold]x[/nothing] :smile: [link=file:///x]y[/link]"
SHOWN = printable(HOSTILE)


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=300, force_terminal=True, color_system="standard")


def said(console: Console) -> str:
    """What was written, without the styles of rich and without the moves of its live display."""
    written = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b" in written
    return re.sub(r"\x1b\[(\d+(;\d+)*)?[mAK]|\x1b\[\?25[lh]|\r", "", written)


def test_text_string_cell_title_and_styled_line(console: Console) -> None:
    table = Table("name", title=HOSTILE)
    table.add_row(HOSTILE)
    table.add_row(Text(HOSTILE.replace("\x07", ""), "red"))
    console.print(table)
    console.print(HOSTILE, style="bold", highlight=False)
    console.out(HOSTILE)
    text = said(console)
    assert printable(text) == text
    assert text.count(r"\x1b[2J\x9b1m\u202e[bold]x[/nothing] :smile: [link=file:///x]y") >= 4


def test_live_display(console: Console) -> None:
    with Live(Text(HOSTILE), console=console):
        console.print(HOSTILE)
    text = said(console)
    assert printable(text) == text


def test_an_address_in_a_style_is_none_to_open(console: Console) -> None:
    console.print(Text("here", "bold link file:///etc/passwd"))
    assert "file:" not in said(console)
