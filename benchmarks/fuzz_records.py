"""Damaged records files, given to every verb that reads a results folder, and to resume."""

from __future__ import annotations

import copy
import json
import os
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from analysis import sections
from analysis.frame import AnalysisError, samples
from analysis.reading import read
from bench import cli_show
from bench.cli_errors import one_line
from bench.controller.config import Settings
from bench.controller.ledger import Ledger
from bench.controller.sweep import Schedule
from bench.record import SCHEMA_VERSION, Status
from bench.record_files import RecordsError
from bench.trial import Configuration
from benchmarks.fuzzing import Ended, Fault, Tally, ended, spbench
from tests.factories import error, failed, ok

REFERENCE = Path(__file__).resolve().parents[1] / "results" / "reference"
VERBS: dict[str, Sequence[str]] = {
    "show": ("show", "RESULTS"),
    "failures": ("show", "RESULTS", "--failures"),
    "across": ("show", "RESULTS", "--across-machines"),
    "compare": ("compare", "RESULTS"),
    "compare json": ("compare", "RESULTS", "--format", "json", "--fail-if-wrong"),
    "compare junit": ("compare", "RESULTS", "--format", "junit", "--fail-on-error"),
    "export csv": ("export", "RESULTS", "--to", "csv"),
    "export json": ("export", "RESULTS", "--to", "json"),
    "export parquet": ("export", "RESULTS", "--to", "parquet"),
    "audit": ("audit", "RESULTS", "--format", "json"),
    "audit table": ("audit", "RESULTS"),
    "baseline": ("baseline", "write", "RESULTS/golden.yaml", "RESULTS"),
    "trace": ("trace", "RESULTS"),
}
"""Verbs of the command line; `report`, `samples` and `resume` follow without their slow parts."""
WRONG: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1.5,
    -0.0,
    1e308,
    5e-324,
    2**31,
    2**53 + 1,
    2**63,
    2**64,
    -(2**63),
    10**400,
    float("nan"),
    float("inf"),
    float("-inf"),
    "",
    "x",
    "ok",
    "1",
    "\x1b[2J\x07",
    "\u202e\u200b",
    "\ud800",
    "\0",
    "=1+1",
    "::error::x",
    "../../etc/passwd",
    "/",
    "é" * 300,
    "x" * 100_000,
    [],
    [None],
    [[]],
    [1, "x", None],
    {},
    {"x": 1},
    {"": {}},
    {"rank": 0},
)


def originals() -> list[dict[str, Any]]:
    """Records as spbench writes them: of the reference sweep, and of other kinds and scenarios."""
    lines = (REFERENCE / "records-reference.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines[:4] + lines[-4:]]
    for one in found:  # their samples are most of their bytes, and alike
        one["schema_version"] = one.get("schema_version", SCHEMA_VERSION)
    made = [ok(round=round_, loss=loss) for round_ in range(3) for loss in ("local", "all_gather")]
    made += [failed(seq_len=1024, errors=[error(0, phase="forward")], loss="local")]
    made += [failed(Status.HANG, round=1), failed(Status.OOM, seq_len=2048), ok(attempt=1)]
    scenarios = ("capacity", "collectives", "compat", "profile", "mutation", "drill", "selfcheck")
    details = {"headline": "7 of 9", "trace": "traces/x.json", "attempts": [], "cases": {"a": 1}}
    made += [ok(scenario=name, details=details, experiment="mine") for name in scenarios]
    return [*found, *(json.loads(one.model_dump_json()) for one in made)]


class Damage:
    """Damages records, as drawn from a seed."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        self._originals = originals()

    def file(self) -> bytes:
        """A records file of a few lines, one or two of them damaged."""
        draw = self._draw
        chosen = draw.sample(self._originals, draw.choice((1, 2, 4, 6)))
        lines = [json.dumps(one).encode() for one in chosen]
        for _ in range(draw.choice((1, 1, 1, 2, 3))):
            index = draw.randrange(len(lines))
            if draw.random() < 0.65:
                lines[index] = self._of_value(chosen[index])
            else:
                lines[index] = self._of_bytes(lines[index])
        end = draw.choice((b"\n",) * 6 + (b"", b"\r\n", b"\n\n"))
        start = draw.choice((b"",) * 8 + (b"\xef\xbb\xbf", b"\n"))
        return start + b"\n".join(lines) + end

    def verbs(self) -> Iterable[str]:
        """The verbs that one file is given to."""
        return self._draw.sample([*VERBS, "report", "samples"], 2)

    def _of_value(self, record: dict[str, Any]) -> bytes:
        """Values of other types, keys of other names."""
        draw = self._draw
        content = copy.deepcopy(record)
        for _ in range(draw.choice((1, 1, 1, 2, 5))):
            self._spoil(content)
        text = json.dumps(content, ensure_ascii=draw.random() < 0.5)
        if draw.random() < 0.03:
            text = text.replace('"round"', '"round": 0, "round"', 1)
        if draw.random() < 0.02:
            deep = draw.choice((100, 1000, 100_000))
            text = text.replace("null", "[" * deep + "]" * deep, 1)
        return text.encode(errors="surrogatepass")

    def _spoil(self, content: dict[str, Any]) -> None:
        draw = self._draw
        place: Any = content
        key: Any = None
        while isinstance(place, (dict, list)) and place:
            key = draw.choice(list(place) if isinstance(place, dict) else range(len(place)))
            if not isinstance(place[key], (dict, list)) or not place[key] or draw.random() < 0.3:
                break
            place = place[key]
        if key is None:
            return
        kind = draw.random()
        if kind < 0.6:
            place[key] = copy.deepcopy(draw.choice(WRONG))
        elif kind < 0.75:
            del place[key]
        elif kind < 0.85 and isinstance(place, dict):
            place[f"{key}{draw.choice('sx ')}"] = place.pop(key)
        elif kind < 0.92 and isinstance(place, list):
            place.append(copy.deepcopy(place[key]))
        else:
            other = draw.choice(list(content))
            place[key] = copy.deepcopy(content[other])

    def _of_bytes(self, line: bytes) -> bytes:
        draw = self._draw
        data = bytearray(line)
        for _ in range(draw.choice((1, 1, 2, 8))):
            at = draw.randrange(len(data)) if data else 0
            kind = draw.randrange(6)
            if not data:
                break
            if kind == 0:
                data[at] ^= 1 << draw.randrange(8)
            elif kind == 1:
                del data[at : at + draw.choice((1, 1, 5, 500))]
            elif kind == 2:
                data[at:at] = data[at : at + draw.choice((1, 20, 500))]
            elif kind == 3:
                del data[at:]
            elif kind == 4:
                data[at:at] = bytes(draw.randrange(256) for _ in range(draw.choice((1, 3))))
            else:
                data[at:at] = draw.choice((b"\0", b"\n", b"\r", b"\xff", b"\x1b", b"{", b'"', b","))
        return bytes(data)


def attack(count: int, seed: int) -> Tally:
    """Give `count` damaged files to two verbs each, and all to resume."""
    damage, tally = Damage(seed), Tally()
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "work" / "results"
        folder.mkdir(parents=True)
        os.chdir(folder.parent)
        try:
            for index in range(count):
                content = damage.file()
                (folder / "records-fuzz-1.jsonl").write_bytes(content)
                name = f"file {index} of seed {seed}"
                for verb in damage.verbs():
                    tally.count(f"{verb}: {name}", _run(verb, folder))
                tally.count(f"resume: {name}", ended(lambda: _resume(folder)))
                _agree(name, folder, tally)
                _clean(name, folder, tally)
        finally:
            os.chdir(before)
    return tally


def _run(verb: str, folder: Path) -> Ended:
    if verb == "report":
        with patch.object(sections, "notebooks", lambda _: []):
            return ended(lambda: cli_show.report(folder, None))
    if verb == "samples":
        return ended(_refusing(lambda: samples(folder), AnalysisError))
    return spbench(*(one.replace("RESULTS", folder.name) for one in VERBS[verb]))


def _refusing(call: Callable[[], object], *known: type[Exception]) -> Callable[[], None]:
    def run() -> None:
        with one_line(*known):
            call()

    return run


_CONFIGURATIONS: list[Configuration] = []


def _resume(folder: Path) -> None:
    """What a sweep of the originals' configurations would still do."""
    if not _CONFIGURATIONS:
        configs = {one["config_hash"]: one["config"] for one in originals()}
        _CONFIGURATIONS.extend(Configuration.model_validate(one) for one in configs.values())
    settings = Settings(results=folder, rounds=3, seed=0, precision=0.02, max_rounds=5)

    def schedule() -> None:
        planned = Schedule(_CONFIGURATIONS, settings)
        planned.remarks()
        planned.widths()
        planned.summary()

    _refusing(schedule, RecordsError)()


def _agree(name: str, folder: Path, tally: Tally) -> None:
    """Note where the ledger takes other lines than readers do."""
    ledger = Ledger(folder)
    taken = Counter(
        (hash_, round_, one.attempt, one.status.value)
        for (hash_, round_), entries in ledger._entries.items()
        for one in entries
    )
    try:
        rows = read(folder)[0].results
    except AnalysisError:
        rows = {"config_hash": [], "round": [], "attempt": [], "status": []}
    keys = ("config_hash", "round", "attempt", "status")
    shown = Counter(zip(*(rows[key] for key in keys), strict=True))
    if taken != shown:
        both = f"ledger {dict(taken - shown)}, readers {dict(shown - taken)}"
        tally.differing.append(Fault(name, both))


def _clean(name: str, folder: Path, tally: Tally) -> None:
    for made in folder.parent.iterdir():
        if made != folder:
            tally.outside.append(Fault(name, f"made {made.name!r}"))
            made.rename(folder.parent.parent / f"outside-{len(tally.outside)}")
    for file in folder.iterdir():
        if file.is_file():
            file.unlink()
