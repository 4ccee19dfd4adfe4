"""Draw captured terminal output, with its colours, as a self-contained SVG.

tmux new-session -d -s picture -x 100 -y 60 './run_sweep.sh; sleep 60'
tmux capture-pane -e -p -t picture | python docs/terminal_picture.py docs/quick.svg TITLE
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text


def main() -> None:
    """Read the capture from standard input; the arguments are the SVG's path and its title."""
    lines = sys.stdin.read().rstrip("\n").split("\n")
    screen = Text("\n").join(Text.from_ansi(line.rstrip()) for line in lines)
    width = max(len(line.plain) for line in screen.split("\n"))
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True)
    console.print(screen, soft_wrap=True)
    svg = console.export_svg(title=sys.argv[2])
    # rich names a font on the web; a picture must not need the network
    Path(sys.argv[1]).write_text(re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL))


if __name__ == "__main__":
    main()
