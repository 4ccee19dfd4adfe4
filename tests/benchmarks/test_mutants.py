"""The list of mutants: nothing in it has rotted, and the script tells what happens to each."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest

from benchmarks import mutants
from benchmarks.mutants import BROKEN, KILLED, LIVES, NOT_FOUND, ROOT, Copy, Mutant, read_list

TESTS = ("tests/bench/test_verdicts.py",)
FILE = "bench/verdicts.py"


def test_the_text_of_every_mutant_occurs_once_and_its_tests_are_there() -> None:
    for one in read_list():
        assert one.found_in((ROOT / one.file).read_text(encoding="utf-8")), one
        assert one.old != one.new, one
        for test in one.tests:
            path, _, name = test.partition("::")
            assert f"def {name}" in (ROOT / path).read_text(encoding="utf-8"), test


def test_names_are_unique() -> None:
    counts = Counter(one.name for one in read_list())
    assert [name for name, count in counts.items() if count > 1] == []


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    return Copy(tmp_path_factory.mktemp("mutants") / "copy")


@pytest.mark.parametrize(
    ("old", "new", "tests", "word"),
    [
        pytest.param("ranks_agree is False", "ranks_agree", TESTS, KILLED, id="killed"),
        pytest.param("in a word: one rule", "in words: one rule", TESTS, LIVES, id="lives"),
        pytest.param("no such text", "", TESTS, NOT_FOUND, id="no-text"),
        pytest.param("Optional[bool]", "bool", TESTS, NOT_FOUND, id="text-is-there-twice"),
        pytest.param("FIRST_LOSS = ", "FIRST_LOSS", TESTS, BROKEN, id="no-python"),
        pytest.param("in a word: one", "", ("tests/bench/none.py",), BROKEN, id="no-tests"),
    ],
)
def test_what_becomes_of_a_mutant(
    copy: Copy, old: str, new: str, tests: tuple[str, ...], word: str
) -> None:
    before = (ROOT / FILE).read_bytes()
    assert copy.try_out(Mutant("one", FILE, old, new, tests)) == word
    assert (ROOT / FILE).read_bytes() == before


@pytest.mark.parametrize(("reason", "code"), [("", 1), ("it is a comment", 0)])
def test_one_that_lives_needs_a_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], reason: str, code: int
) -> None:
    lives = Mutant("lives", FILE, "in a word: one rule", "in words: one rule", TESTS, reason)
    monkeypatch.setattr(mutants, "read_list", lambda: [lives])
    monkeypatch.setattr(sys, "argv", ["mutants"])
    with pytest.raises(SystemExit) as left:
        mutants.main()
    assert left.value.code == code
    said = capsys.readouterr().out
    assert f"mutants that live without a reason: {code} " in said
    assert reason in said


def test_nothing_is_said_of_mutants_where_the_tests_fail_without_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failing = subprocess.CompletedProcess([], 1, "1 failed", "")
    monkeypatch.setattr(Copy, "run", lambda self, tests: failing)
    with pytest.raises(SystemExit, match="without any mutant the tests fail:\n1 failed"):
        mutants.try_all([Mutant("one", FILE, "", "", TESTS)], jobs=1)
