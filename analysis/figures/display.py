"""Figures and tables in a notebook, with what a screen reader needs."""

from __future__ import annotations

import io
import re
from html import escape

import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.style import alt_text
from bench.printable import printable

MOST_SVG_BYTES = 400_000
"""A figure with more is shown as pixels."""
PIXELS_PER_INCH = 160
LONG = 26
"""Characters from which a table's cell may take several lines."""

NUMBER = re.compile(r"[-+±×]?[\d,.]+(e[-+]\d+)?!?( … +[\d,.]+)?$")


def show(figure: Figure) -> None:
    """Display `figure` in a notebook, with its alternative text."""
    from IPython.display import display

    alt = alt_text(figure)
    kind, image = rendered(figure)
    bundle = {kind: image, "text/plain": alt}
    display(bundle, raw=True, metadata={kind: {"alt": alt}})


def show_table(table: pd.DataFrame) -> None:
    """Display `table`; text in it stays text."""
    from IPython.display import HTML, display

    display(HTML(html_table(table)))


def rendered(figure: Figure) -> tuple[str, bytes | str]:
    """MIME type and content: SVG, or PNG where the drawing is too large for that."""
    vector = io.StringIO()
    figure.savefig(vector, format="svg", metadata={"Date": None, "Creator": None})
    if vector.tell() <= MOST_SVG_BYTES:
        return "image/svg+xml", printable(vector.getvalue())  # XML may hold no control characters
    pixels = io.BytesIO()
    figure.savefig(pixels, format="png", dpi=PIXELS_PER_INCH)
    return "image/png", pixels.getvalue()


def html_table(table: pd.DataFrame) -> str:
    """`table` as HTML without an index, everything escaped.

    Numbers have the class `n`, texts longer than `LONG` the class `t`.
    """
    head = "".join(f'<th scope="col">{escape(str(name))}</th>' for name in table)
    rows = "".join(
        f"<tr>{''.join(map(_html_cell, row))}</tr>\n" for row in table.itertuples(index=False)
    )
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table>"


def _html_cell(value: object) -> str:
    text = "" if value is None or value != value else str(value)
    kind = ' class="n"' if NUMBER.match(text) else ' class="t"' if len(text) > LONG else ""
    return f"<td{kind}>{escape(text)}</td>"
