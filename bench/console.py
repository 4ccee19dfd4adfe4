"""The terminal as rich draws it: styles are the program's, texts only text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import IO, Any, Optional

from rich import console as rich_console
from rich.segment import Segment
from rich.text import Text

from bench.printable import PrintableStream, printable


class Console(rich_console.Console):
    """rich's console for texts that anybody may have written.

    Brackets are no markup, and no character of a text acts (`bench.printable`). Whatever is drawn
    is rendered here first, so that this holds for tables and live displays alike.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def like(self, file: IO[str], width: Optional[int] = None) -> Console:
        """A console that writes to `file` with this one's colours, as wide unless told."""
        return Console(
            file=file,
            width=width or self.width,
            force_terminal=self.is_terminal,
            color_system=self.color_system,
            no_color=self.no_color,
        )

    def add(self, drawn: str) -> None:
        """Write what a console of `like` drew: clean text and styles."""
        self.file.write(drawn)

    @property
    def file(self) -> IO[str]:
        """Where the styled text goes: past the guard, which would escape the styles."""
        found = super().file
        return found.styled() if isinstance(found, PrintableStream) else found

    @file.setter
    def file(self, new: IO[str]) -> None:
        self._file = new

    def render_str(self, text: str, **options: Any) -> Text:
        """`text` as rich draws and measures it, printable."""
        return super().render_str(printable(text), **options)

    def render(
        self,
        renderable: rich_console.RenderableType,
        options: Optional[rich_console.ConsoleOptions] = None,
    ) -> Iterable[Segment]:
        """The segments of `renderable`, of printable text."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else _clean(segment)


def _clean(segment: Segment) -> Segment:
    text = printable(segment.text)
    style = segment.style
    if style is not None and style.link is not None:  # a terminal makes it an address to open
        style = style.update_link(None)
    return segment if text is segment.text and style is segment.style else Segment(text, style)
