"""All rows of the self-check, the most telling first."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from bench.controller.messages import ConfigurationError, hint
from bench.controller.selfcheck import failures, gradients, timing
from bench.controller.selfcheck.row import Result, Row, Seen
from bench.controller.selfcheck.stand import RowFailed, Stand

ROWS = (
    Row("fork", "the device works in a forked rank", failures.fork),
    Row("one_rank", "world 1, float32, ZeRO 0 to 3: match", gradients.one_rank),
    Row("four_ranks", "world 4, sp 2: the verdicts of a second way", gradients.four_ranks),
    Row("tf32", "TF32 switched on by a variable: match", gradients.tf32),
    Row("no_nvcc", "the same as fork, without nvcc", failures.no_nvcc),
    Row("reference", "float64 by layers and whole: within 1e-10", gradients.reference),
    Row("modes", "directional within 1 %, sketch within 5 %", gradients.modes),
    Row("real_size", "160m, bf16: match, fused, ≤ 3 noises", gradients.real_size, needs_gpu=True),
    Row("events", "events over wall clock: 1 ± 0.01", timing.events, needs_gpu=True),
    Row("first_step", "at most 1.1 of the median", timing.first_step),
    Row("instrumentation", "1 ± 0.01 of a bare step, MFU ≤ 1", timing.instrumentation),
    Row("profile", "parts within 2 % of the step, bytes agree", timing.profile),
    Row("drills", "each its status, nothing left, next ok", failures.drills),
    Row("full_card", "oom", failures.full_card),
    Row("capacity", "brackets within 512 tokens", failures.capacity),
    Row("rates", "what the card's data sheet allows", timing.rates),
    Row("judge", "every injected fault is detected", gradients.judge),
)


def chosen(names: Sequence[str]) -> list[Row]:
    """The rows of these names, in the order of `ROWS`; all of them without names.

    Raises:
        ConfigurationError: there is no such row.
    """
    known = [row.name for row in ROWS]
    for name in names:
        if name not in known:
            raise ConfigurationError(
                f"--rows {name}: unknown row; allowed: {', '.join(known)}{hint(name, known)}"
            )
    return [row for row in ROWS if not names or row.name in names]


def check(stand: Stand, rows: Sequence[Row]) -> Iterator[Result]:
    """Run the rows; each result as it is there. A row that breaks is a miss, not the end."""
    for row in rows:
        started = time.monotonic()
        if row.needs_gpu and not stand.on_gpu:
            seen = Seen("not run: needs a GPU that this interpreter's torch can use")
        else:
            seen = _seen(row, stand)
        yield Result(row, seen, time.monotonic() - started)


def _seen(row: Row, stand: Stand) -> Seen:
    try:
        return row.run(stand)
    except RowFailed as failed:
        return Seen(str(failed), False)
    except Exception as broken:  # noqa: BLE001 (the row's border)
        return Seen(f"the row itself broke: {type(broken).__name__}: {broken}", False)
