"""No character of a text acts, whichever way it is printed."""

from __future__ import annotations

import ast
import io
import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.console import Console
from bench.printable import (
    PrintableStream,
    json_escaped,
    json_text,
    one_line,
    printable,
    without_commands,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b2J \x7f \x00 \r", r"\x9b2J \x7f \x00 \r"),
        ("\u202eright\u2066\u200f\u061c\u200b\ufeff", r"\u202eright\u2066\u200f\u061c\u200b\ufeff"),
        ("\u2028\u2029\ud800\U000e0041", r"\u2028\u2029\ud800\U000e0041"),
        ("×2 – 3 % é 漢字\tand\nlines", "×2 – 3 % é 漢字\tand\nlines"),
    ],
)
def test_what_could_act_is_written_as_an_escape(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_one_line_has_no_breaks() -> None:
    assert one_line("a\nb\tc\x1b") == r"a\nb\tc\x1b"


@given(st.text(st.characters(exclude_categories=())))
def test_nothing_that_could_act_is_left(text: str) -> None:
    left = set(printable(text)) - {"\n", "\t"}
    assert not {unicodedata.category(one) for one in left} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    printable(text).encode()


@given(st.text(st.characters(exclude_categories=())))
def test_json_says_the_same_and_is_printable(text: str) -> None:
    written = json_text({text: text})
    assert json.loads(written) == {text: text}
    assert printable(written) == written
    assert json_escaped(written) == written


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("::error::no", r"\x3a:error::no"),
        ("a\n \t\u3000::set-output name=x::y", "a\n \t\u3000\\x3a:set-output name=x::y"),
        ("it says ##[error]no", r"it says \x23#[error]no"),
        ("torch::nn: a ::b # [c] ## d", "torch::nn: a ::b # [c] ## d"),
    ],
)
def test_a_job_of_github_obeys_no_text(text: str, shown: str) -> None:
    assert without_commands(text) == shown
    below = io.StringIO()
    print(text, file=PrintableStream(below), end="")
    assert below.getvalue() == printable(shown)


def test_nor_what_rich_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    below = io.StringIO()
    monkeypatch.setattr(sys, "stdout", PrintableStream(below))
    Console(force_terminal=True).print("::error::no", style="red", highlight=False)
    Console().print("::error::no")
    styled, plain = below.getvalue().splitlines()
    assert styled == "\x1b[31m::error::no\x1b[0m"  # begins with a style, which makes it text
    assert plain == r"\x3a:error::no"


def test_in_json_the_escape_is_one_of_json() -> None:
    written = json_text("##[error]no")
    assert json.loads(written) == "##[error]no"
    assert without_commands(written) == written


def test_the_stream_has_no_way_around_it() -> None:
    below = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    stream = PrintableStream(below)
    print("a\x1bb\n", end="", file=stream, flush=True)
    below.seek(0)
    assert below.read() == "a\\x1bb\n"
    assert not hasattr(stream, "buffer")


@pytest.mark.parametrize("arguments", [["show", "/no\x1b[2J\u202e"], ["\x1b]0;x\x07"], ["show"]])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_refusals_of_the_command_line_are_printable(arguments: list[str], encoding: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.cli", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    said = (done.stdout + done.stderr).decode(encoding)
    assert printable(said) == said and "Traceback" not in said


def test_only_one_console_is_used() -> None:
    """rich's own takes brackets for markup, and passes on whatever a text holds."""
    for path in (*ROOT.glob("bench/**/*.py"), *ROOT.glob("analysis/**/*.py")):
        if path.is_relative_to(ROOT / "bench" / "worker") or path.name == "console.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [one.name for one in getattr(node, "names", []) if isinstance(one, ast.alias)]
            module = getattr(node, "module", None)
            wrong = isinstance(node, ast.ImportFrom) and module in ("rich.console", "rich")
            assert not (wrong and {"Console", "print", "console"} & set(names)), path
            assert not (isinstance(node, ast.Import) and "rich.console" in names), path


def test_nothing_is_written_past_the_guard() -> None:
    """Texts go through `print`, `typer.echo` or a console, and never to what is below them."""
    past = ("__stdout__", "__stderr__", "console.file.write", ".styled(", "stdout.buffer")
    allowed = {
        ROOT / "bench" / "printable.py",
        ROOT / "bench" / "console.py",
        ROOT / "analysis" / "reading.py",  # a child's answer, to the process that started it
    }
    for path in (*ROOT.glob("bench/**/*.py"), *ROOT.glob("analysis/**/*.py")):
        if path in allowed or path.is_relative_to(ROOT / "bench" / "worker"):
            continue
        text = path.read_text()
        assert not [name for name in past if name in text], path
