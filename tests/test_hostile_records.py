"""What a record contains never acts, whichever verb shows it."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import cli
from bench.printable import printable
from tests.analysis.sides import UPGRADE, WORKAROUND, timed
from tests.factories import error, failed, ok, write

HOSTILE = "\x1b]0;title\x07\x1b[2J\x9b31m\u202e\u2066\u200b\r\x7f[red]x[/nothing]\x08"
HOSTILE += "\n ::error::x\n##[error]x"
FORMULA = '=HYPERLINK("http://x")'
STYLES = re.compile(r"\x1b\[[0-9;]*m")
MOVES = re.compile(r"\x1b\[\?25[lh]|\x1b\[\d*[AKG]|\x1b\[2K|\r")

VERBS = [
    ("show",),
    ("show", "--failures"),
    ("audit",),
    ("audit", "--format", "markdown"),
    ("audit", "--format", "json"),
    ("audit", "--format", "github", "--fail-if-wrong"),
    ("audit", "--format", "junit", "--fail-if-wrong"),
    ("compare",),
    ("compare", "--format", "markdown"),
    ("compare", "--format", "csv"),
    ("compare", "--format", "json"),
    ("compare", "--format", "github", "--fail-on-error"),
    ("compare", "--format", "junit", "--fail-on-error"),
    ("compare", "--baseline", f"loss={HOSTILE}", "--candidate", f"nothing={HOSTILE}"),
    ("trace", HOSTILE),
    ("export", "--to", "csv"),
    ("export", "--to", "json"),
]


def spoilt(value: Any, *path: str) -> Any:
    """`value` with hostile text wherever records have texts that people choose or libraries say."""
    if isinstance(value, dict):
        return {key: spoilt(inner, *path, key) for key, inner in value.items()}
    if isinstance(value, list):
        return [spoilt(inner, *path) for inner in value]
    spoil = {"reason", "message", "traceback", "experiment", "loss", "attention", "hostname"}
    spoil |= {"cpu", "warnings", "type", "worst_parameter", "headline", "gradient_reason"}
    hit = isinstance(value, str) and (path[-1] in spoil or path[-2:] == ("environment", "name"))
    return f"{FORMULA if path[-1] == 'loss' else value}{HOSTILE}" if hit else value


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records of every kind, whose texts would act on a terminal."""
    results = tmp_path_factory.mktemp("hostile") / "results"
    made = [*timed(WORKAROUND, 1.0), *timed(UPGRADE, 0.5), failed(loss="local")]
    made += [failed(seq_len=1024, errors=[error(0, phase="forward")], loss="other")]
    made += [ok(seq_len=2048, details={"headline": "7 of 9"}, experiment="mine")]
    path = write(results, *made)
    lines = [json.dumps(spoilt(json.loads(one))) for one in path.read_text().splitlines()]
    path.write_text("\n".join([*lines, '{"schema_version": "\\u001b[2J"}', "{\x1b[2J"]) + "\n")
    return results


@pytest.mark.parametrize(
    ("verb", "terminal"),
    [*((verb, False) for verb in VERBS), *((verb, True) for verb in (*VERBS[:3], ("compare",)))],
    ids=str,
)
def test_no_character_of_a_record_reaches_the_terminal(
    verb: tuple[str, ...],
    terminal: bool,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(sys, "argv", ["spbench", verb[0], str(folder), *verb[1:]])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    captured = capsys.readouterr()
    said = captured.out + captured.err
    if terminal:
        said = MOVES.sub("", STYLES.sub("", said))
    assert ended.value.code in (None, 0, 1, 2), said
    assert said and printable(said) == said
    assert "Traceback (most" not in captured.err
    lines = (captured.out + captured.err).splitlines()
    commands = [line for line in lines if line.lstrip().startswith("::")]
    assert terminal or bool(commands) == ("github" in verb)
    assert {line.partition(" title=")[0] for line in commands} <= {"::error", "::notice"}
    assert "##[" not in "".join(line for line in lines if line not in commands)
    for file in folder.glob("trials.*"):
        text = file.read_text()
        assert printable(text) == text and ",=HYP" not in text
        assert "HYPERLINK" in text


def test_the_report_shows_them_and_has_none(folder: Path) -> None:
    from analysis.frame import load
    from analysis.report import content_of, page_of

    page = page_of(content_of(folder, load(folder)), [])
    assert printable(page) == page and r"\u202e" in page
