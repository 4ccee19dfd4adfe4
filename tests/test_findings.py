"""Every script under docs/findings prints what docs/findings.md says, and takes no mistake of its
own for a finding.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import pytest

from tests.conftest import ROOT

SCRIPTS = sorted((ROOT / "docs" / "findings").glob("*.py"))
ENVIRONMENTS = {"torch-2.2": "2.2.2", "torch-2.13": "2.13.0"}
GPUS = "collectives_nccl_all_gather.py"
RunInside = Callable[..., Any]


class Clause(NamedTuple):
    """`words` on ranks 2 and 3: what a script prints, and who does."""

    words: tuple[str, ...]
    ranks: tuple[str, ...]


def expected(version: str) -> dict[str, list[Clause]]:
    """Of each command, what the table of docs/findings.md says that it prints with this torch."""
    text = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
    table = text.partition("## What the scripts print\n")[2].partition("\n## ")[0]
    header, _, *lines = [line for line in table.splitlines() if line.startswith("|")]
    at = _cells(header).index(version)
    found = {}
    for line in lines:
        cells = _cells(line)
        said = cells[1] if cells[at] == "the same" else cells[at]
        found[cells[0].strip("`")] = [_clause(one) for one in said.split("; ")]
    return found


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split(" | ")]


def _clause(text: str) -> Clause:
    said = re.fullmatch(r"((?:`[^`]+`(?:, )?)+)(?: on (?:(every rank)|ranks? ([\d, and]+)))?", text)
    assert said, f"docs/findings.md, what the scripts print: cannot read {text!r}"
    ranks = re.findall(r"\d", said[3] or "")
    words = tuple(re.findall(r"`([^`]+)`", said[1]))
    return Clause(words, tuple(ranks) if not said[2] else ("every",))


def check(clauses: list[Clause], printed: str) -> None:
    """Each clause is in the output of each of its ranks, and no rank says anything else."""
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    ranked = {line for line in lines if line.startswith("rank ")}
    ranks = {line[5] for line in ranked}
    covered = set()
    for clause in clauses:
        for words in clause.words:
            for rank in (sorted(ranks) if clause.ranks == ("every",) else clause.ranks) or [""]:
                start = f"rank {rank}: " if rank else ""
                said = {line for line in lines if line.startswith(start) and words in line}
                assert said, f"{start}does not say {words!r}:\n{printed}"
                covered |= said
    assert not ranked - covered, f"not in docs/findings.md:\n{printed}"


NEEDS = ["torch", pytest.param("deepspeed", marks=pytest.mark.slow)]


def needing(library: str, commands: Iterable[str]) -> list[str]:
    """Those of `commands` that need DeepSpeed, or those that need torch alone."""
    texts = {script.name: script.read_text(encoding="utf-8") for script in SCRIPTS}
    deepspeed = library == "deepspeed"
    return [c for c in commands if ("import deepspeed" in texts[c.split()[0]]) == deepspeed]


@pytest.mark.environment
@pytest.mark.parametrize("library", NEEDS)
@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_scripts_print_what_the_document_says(
    run_inside: RunInside, environment: str, library: str
) -> None:
    said = expected(ENVIRONMENTS[environment])
    wanted = [command for command in needing(library, said) if command != GPUS]
    # buffered, or lines of several ranks get mixed
    found = run_inside(environment, "findings.py", "whole", *wanted, PYTHONUNBUFFERED="")
    for command in wanted:
        assert found[command]["exit"] == 0, f"{command}: {found[command]['stderr']}"
        check(said[command], found[command]["stdout"])


@pytest.mark.environment
@pytest.mark.slow
@pytest.mark.parametrize("library", ["torch", "deepspeed"])
def test_another_exception_is_no_finding(run_inside: RunInside, library: str) -> None:
    commands = needing(library, expected("2.13.0"))
    found = run_inside("torch-2.13", "findings.py", "broken", *commands)
    for command in commands:
        assert found[command]["exit"] == 1, command
        if command != GPUS:
            assert re.search("on purpose|sequence.layer", found[command]["stderr"]), command


@pytest.mark.environment
@pytest.mark.slow
def test_a_wrong_start_is_told_the_right_one(run_inside: RunInside) -> None:
    wrong = {
        "all_gather_subgroup.py gloo": "usage: python all_gather_subgroup.py",
        "compat_backward.py": "usage: python compat_backward.py STAGE",
        "zero_gradient_scale.py reduce_scatter": "usage: python zero_gradient_scale.py",
        GPUS: f"{expected('2.13.0')[GPUS][0].words[0]}: torchrun --nproc-per-node 2 {GPUS}",
    }
    for command, one in run_inside("torch-2.13", "findings.py", "whole", *wrong).items():
        assert one["exit"] == 1
        assert wrong[command] in one["stderr"]
        assert "Traceback" not in one["stderr"]


def test_the_table_has_every_script() -> None:
    for version in ENVIRONMENTS.values():
        assert {command.split()[0] for command in expected(version)} == {s.name for s in SCRIPTS}


def test_what_the_issue_said_of_the_first_script() -> None:
    both = [expected(version)["all_gather_subgroup.py nccl"] for version in ENVIRONMENTS.values()]
    assert Clause(("IndexError: tuple index out of range",), ("2", "3")) in both[0]
    assert both[1] == [Clause(("gradient 2, right is 2",), ("every",))]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda one: one.name)
def test_no_script_catches_everything(script: Any) -> None:
    caught = [
        node.type
        for node in ast.walk(ast.parse(script.read_text(encoding="utf-8")))
        if isinstance(node, ast.ExceptHandler)
    ]
    names = {ast.unparse(one) if one else "everything" for one in caught}
    assert not names & {"everything", "Exception", "BaseException"}


def test_a_line_that_the_document_does_not_have_is_seen() -> None:
    clauses = [Clause(("gradient 2",), ("0", "1")), Clause(("IndexError",), ("2", "3"))]
    right = "torch 2.2.2\n" + "".join(
        f"rank {rank}: {'gradient 2' if rank < 2 else 'IndexError: no'}\n" for rank in range(4)
    )
    check(clauses, right)
    with pytest.raises(AssertionError, match="does not say 'IndexError'"):
        check(clauses, right.replace("IndexError", "TypeError"))
    with pytest.raises(AssertionError, match=re.escape("not in docs/findings.md")):
        check(clauses, right + "rank 0: TypeError: unexpected\n")
