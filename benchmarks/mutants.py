"""Do the tests notice when a line that matters is wrong? Each mutant of a list has to be killed.

    python -m benchmarks.mutants                        # the whole list
    python -m benchmarks.mutants --only "tie" --jobs 2  # those whose name has this text in it

`mutants.yaml` says for each mutant which text of which file becomes what, and which tests ought to
fail then: default ones, that need no environment. Each is tried in a copy of the checkout, which is
deleted afterwards. A mutant that no test can kill has a `reason` in the list.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

import yaml

from benchmarks.report import Targets

ROOT = Path(__file__).resolve().parents[1]
LIST = Path(__file__).with_name("mutants.yaml")
NOT_COPIED = shutil.ignore_patterns(
    ".git", "__pycache__", ".*_cache", ".venv", "shared", "*.egg-info"
)
TIMEOUT_S = 120
"""Of one test: a mutant may loop for ever."""

KILLED, LIVES, NOT_FOUND, BROKEN = "killed", "lives", "text not found", "tests did not run"


@dataclass(frozen=True)
class Mutant:
    """One wrong line, and the tests that ought to see it."""

    name: str
    file: str
    old: str
    """Text that occurs once in the file."""
    new: str
    tests: tuple[str, ...]
    """Files of tests, or single tests, as pytest is given them."""
    reason: str = ""
    """Why it may live; empty: it may not."""

    def found_in(self, text: str) -> bool:
        """Whether `text`, the file's, holds the old text exactly once."""
        return text.count(self.old) == 1


def read_list(path: Path = LIST) -> list[Mutant]:
    """The mutants of a list; raises TypeError where one lacks something or has too much."""
    found = []
    for group in yaml.safe_load(path.read_text(encoding="utf-8")):
        for one in group["mutants"]:
            fields = {"tests": group["tests"], **one}
            tests = tuple(fields.pop("tests"))
            found.append(Mutant(file=group["file"], tests=tests, **fields))
    return found


class Copy:
    """A copy of the checkout, in which tests are run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        shutil.copytree(ROOT, folder, ignore=NOT_COPIED)

    def run(self, tests: Iterable[str]) -> subprocess.CompletedProcess[str]:
        """Run tests until the first fails; those that are slow or need an environment are not."""
        chosen = ["-x", "-q", "-m", "not environment and not slow", f"--timeout={TIMEOUT_S}"]
        return subprocess.run(
            # no bytecode: two states of a file can have one size and second
            [sys.executable, "-B", "-m", "pytest", "-p", "no:cacheprovider", *chosen, *tests],
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
        )

    def try_out(self, mutant: Mutant) -> str:
        """What becomes of the mutant: one of the four words above."""
        path = self._folder / mutant.file
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        if not mutant.found_in(text):
            return NOT_FOUND
        path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
        try:
            code = self.run(mutant.tests).returncode
        finally:
            path.write_text(text, encoding="utf-8")
        # 0: all passed; 1: some failed; others: interrupted, no such test, nothing chosen
        return {0: LIVES, 1: KILLED}.get(code, BROKEN)


def try_all(mutants: Sequence[Mutant], jobs: int) -> list[str]:
    """What becomes of each, printed as it is known; exits where a test fails without a mutant."""
    with tempfile.TemporaryDirectory(prefix="spbench-mutants-") as folder:
        copies: SimpleQueue[Copy] = SimpleQueue()
        first = Copy(Path(folder) / "0")
        unchanged = first.run(dict.fromkeys(test for one in mutants for test in one.tests))
        if unchanged.returncode:
            sys.exit(f"without any mutant the tests fail:\n{unchanged.stdout}{unchanged.stderr}")
        for copy in (first, *(Copy(Path(folder) / str(number)) for number in range(1, jobs))):
            copies.put(copy)

        def one(mutant: Mutant) -> str:
            copy, began = copies.get(), time.monotonic()
            try:
                word = copy.try_out(mutant)
            finally:
                copies.put(copy)
            why = f" ({mutant.reason})" if word == LIVES and mutant.reason else ""
            seconds = time.monotonic() - began
            print(f"{word:8} {seconds:4.1f} s  {mutant.file}: {mutant.name}{why}", flush=True)
            return word

        with ThreadPoolExecutor(jobs) as pool:
            return list(pool.map(one, mutants))


def main() -> None:
    """Try the list out; exit code 1 where a mutant lives that should not, or cannot be tried."""
    parser = argparse.ArgumentParser(description="Do the tests notice a wrong line?")
    parser.add_argument("--only", default="", metavar="NAME", help="part of a mutant's name")
    parser.add_argument("--jobs", type=int, default=1, help="so many at a time (1)")
    chosen = parser.parse_args()
    mutants = [one for one in read_list() if chosen.only in one.name]
    if not mutants or chosen.jobs < 1:
        parser.error(f"no mutant has {chosen.only!r} in its name, or --jobs is below 1")
    words = try_all(mutants, chosen.jobs)
    counts = Counter(words)
    print(f"{len(mutants)} mutants: {', '.join(f'{n} {word}' for word, n in counts.items())}")
    unexplained = sum(
        word == LIVES and not one.reason for one, word in zip(mutants, words, strict=True)
    )
    targets = Targets()
    targets.check("mutants that live without a reason", unexplained, "<=", 0)
    targets.check("mutants that could not be tried", counts[NOT_FOUND] + counts[BROKEN], "<=", 0)
    targets.finish()


if __name__ == "__main__":
    main()
