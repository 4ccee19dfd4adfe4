"""Whatever a rank may say or do, as hypothesis draws it: values, exceptions, lines, ends."""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Optional

from hypothesis import strategies as st

from bench.record import BlockScale
from tests import factories


class Mute(Exception):
    """Its text cannot be had."""

    def __str__(self) -> str:
        raise ValueError("no text")


class Odd(dict):  # type: ignore[type-arg]
    """A mapping with a representation of its own."""

    def __repr__(self) -> str:
        raise RuntimeError("no representation")


@dataclass(frozen=True)
class Life:
    """What one rank does."""

    returns: Any = None
    """What its scenario returns, unless it raises."""
    raises: Optional[BaseException] = None
    phase: Any = "forward"
    step: Any = 0
    rows: list[Any] = field(default_factory=list)
    """What it notes on its way: mappings through `Rank.row`, bytes straight into the file."""
    noted: dict[str, Any] = field(default_factory=dict)
    """What it says beside its result."""
    lines: list[bytes] = field(default_factory=list)
    """What something writes into its pipe before the report."""
    reports: bool = True
    signal: Optional[int] = None
    """Which ended it; None: it left with `exit_code`."""
    exit_code: int = 0


def loops() -> list[Any]:
    """A list that contains itself."""
    loop: list[Any] = []
    loop.append(loop)
    return loop


def deep() -> Any:
    """Lists within each other, deeper than records take."""
    value: Any = 1
    for _ in range(300):
        value = [value]
    return value


TEXT = st.one_of(
    st.text(max_size=8),
    st.text(st.characters(categories=["Cs", "Cc", "Cf", "Zl"]), max_size=4),
    st.sampled_from(["", "\udcff", "\0", "a\nb", "é" * 30, "x" * 501, os.fsdecode(b"\xff")]),
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.integers(),
    st.sampled_from([2**31, 2**63, -(2**63), 10**40, 1e308, -0.0, 1e-300]),
    st.floats(),
    TEXT,
)
NO_JSON = st.one_of(
    st.binary(max_size=4),
    st.builds(object),
    st.just({1, 2}),
    st.builds(loops),
    st.builds(deep),
    st.builds(Odd, a=st.integers()),
    st.just(1j),
    st.just(Life),
)
VALUES = st.recursive(
    st.one_of(SCALARS, NO_JSON),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.one_of(TEXT, st.integers(), st.none()), inner, max_size=3),
    ),
    max_leaves=6,
)


def whole(rank: int, steps: int = 2) -> dict[str, Any]:
    """A result with all parts, each of which a record can hold."""
    blocks = [BlockScale(name="layers.0", scale=1.0, scale_error=0.1)]
    gradient = factories.gradient(rank=rank, other=factories.other(), blocks=blocks)
    memory = {"rank": rank, "peak_bytes": 10, "baseline_bytes": 0}
    count = {"phase": "forward", "collective": "all_reduce", "calls": 1, "bytes": 8}
    return {
        "samples": factories.samples(rank, [0.5] * steps).model_dump(),
        "memory": {**memory, "outside_allocator_bytes": 5, "device_used_bytes": 7},
        "gradient": gradient.model_dump(),
        "gradient_reason": None,
        "clipping": {"threshold": 0.0},
        "sketch": "sketches/a.npz",
        "sketch_version": 1,
        "collectives": [{"rank": rank, **count}],
        "details": {"headline": "one", "list": [1, {"a": None}]},
        "first_loss": [1.5, 64.0],
    }


def places(value: Any, so_far: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of everything inside `value`."""
    steps = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for step, inner in steps:
        found.append((*so_far, step))
        if isinstance(inner, (dict, list)):
            found += places(inner, (*so_far, step))
    return found


@st.composite
def damaged(draw: st.DrawFn, make: Callable[[int], Any], rank: int) -> Any:
    """`make(rank)`, with some of what is in it replaced, removed or joined by what is not sound."""
    value = make(rank)
    found = places(value)
    for _ in range(draw(st.integers(0, 3))):
        *way, last = draw(st.sampled_from(found))
        how = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        with contextlib.suppress(LookupError, TypeError):  # replaced or removed before
            inner = functools.reduce(lambda around, step: around[step], way, value)
            if how == "remove":
                del inner[last]
            else:
                inner[draw(TEXT) if how == "add" else last] = draw(st.one_of(SCALARS, VALUES))
    return value


EXTREMES: dict[type, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    int: st.sampled_from([-1, 0, 1, 2**31, 2**62, 2**63 - 1, -(2**63), 2**63]),
    float: st.one_of(
        st.floats(), st.sampled_from([0.0, -0.0, 1e-300, 1e-13, 1e8, 1e9, 1e308, -1.0])
    ),
    str: TEXT,
}


@st.composite
def extreme(draw: st.DrawFn, rank: int) -> Any:
    """A whole result with other values of the same types."""
    value = whole(rank)
    found = places(value)
    for _ in range(draw(st.integers(0, 2))):
        *way, last = draw(st.sampled_from(found))
        inner = functools.reduce(lambda around, step: around[step], way, value)
        inner[last] = draw(EXTREMES.get(type(inner[last]), st.just(inner[last])))
    return value


def results(rank: int) -> st.SearchStrategy[Any]:
    """What a scenario returns."""
    return st.one_of(
        damaged(whole, rank),
        extreme(rank),
        st.just(rank).map(whole),
        st.just(1 - rank).map(whole),
        st.integers(0, 3).map(lambda steps: whole(rank, steps)),
        st.just({}),
        VALUES,
    )


EXCEPTIONS = st.one_of(
    st.builds(RuntimeError, st.one_of(TEXT, VALUES)),
    st.builds(Mute),
    st.builds(KeyError, TEXT),
    st.builds(SystemExit, SCALARS),
    st.sampled_from(
        [MemoryError(), KeyboardInterrupt(), RuntimeError("Connection closed by peer")]
    ),
    st.builds(UnicodeDecodeError, st.just("utf-8"), st.just(b"\xff"), st.just(0), st.just(1), TEXT),
)


def _encoded(message: Any) -> bytes:
    try:
        return json.dumps(message, skipkeys=True, default=repr).encode()
    except (ValueError, RecursionError, RuntimeError):
        return b"nothing"


def whole_report(rank: int) -> dict[str, Any]:
    """That of a rank that finished, and the error of one that raised."""
    observed = {"variables": {"A": "1"}, "sdpa_kernel": "math", "shared_gpu": False}
    seen = {"observed": observed, "warnings": ["w"], "late_imports": ["a.b"], "device": "cpu"}
    error = factories.error(rank).model_dump()
    return {"rank": rank, "outcome": "finished", "result": whole(rank), "error": error, **seen}


def detailed(rank: int, value: Any) -> dict[str, Any]:
    """That of a rank that finished with `value` among its details."""
    return {**whole_report(rank), "result": {"details": {"a": value}}}


def whole_failure(rank: int) -> dict[str, Any]:
    """That of a rank that raised."""
    return {**whole_report(rank), "outcome": "raised", "faults": ["one"]}


def lines(rank: int) -> st.SearchStrategy[bytes]:
    """What may stand in a pipe or a file."""
    return st.one_of(
        damaged(whole_report, rank).map(_encoded),
        damaged(whole_failure, rank).map(_encoded),
        st.binary(max_size=12),
        VALUES.map(_encoded),
        st.sampled_from([b"", b"\xff\xfe", b"NaN", b"null", b"{"]),
        st.sampled_from([b"[", b"9", b'{"rank":']).map(lambda start: start * 50_000),
    )


NOTED = st.fixed_dictionaries(
    {},
    optional={
        "observed": st.fixed_dictionaries(
            {},
            optional={
                "variables": st.dictionaries(TEXT, TEXT, max_size=2),
                "sdpa_kernel": TEXT,
                "mesh_setup": TEXT,
                "shared_gpu": st.booleans(),
            },
        ),
        "warnings": st.lists(TEXT, max_size=2),
        "late_imports": st.lists(TEXT, max_size=2),
        "device": TEXT,
    },
)
"""What a rank says beside its result, of the types that it should have."""


def lives(rank: int) -> st.SearchStrategy[Life]:
    """What rank `rank` does."""
    row = st.dictionaries(TEXT.filter(lambda key: key != "self"), VALUES, max_size=3)
    names = st.sampled_from(["observed", "warnings", "late_imports", "device", "more"])
    hostile = st.builds(
        Life,
        returns=results(rank),
        raises=st.one_of(st.none(), st.none(), EXCEPTIONS),
        phase=st.one_of(st.just("backward"), TEXT, VALUES),
        step=st.one_of(st.integers(0, 3), SCALARS),
        rows=st.lists(st.one_of(row, lines(rank)), max_size=2),
        noted=st.one_of(NOTED, st.dictionaries(names, VALUES, max_size=2)),
        lines=st.one_of(st.just([]), st.just([]), st.lists(lines(rank), max_size=2)),
        reports=st.sampled_from([True, True, True, False]),
        signal=st.one_of(st.none(), st.none(), st.none(), st.integers(1, 64)),
        exit_code=st.sampled_from([0, 0, 0, 1, 3, 255]),
    )
    returns = st.builds(Life, returns=results(rank))
    return st.one_of(hostile, returns)


def finishing(rank: int) -> st.SearchStrategy[Life]:
    """What rank `rank` does that comes to its end, with numbers that nobody expects."""
    return st.builds(Life, returns=extreme(rank), noted=NOTED)


def telling(rank: int) -> st.SearchStrategy[Life]:
    """What rank `rank` does that comes to its end, and writes its report by itself."""
    details = st.one_of(VALUES, SCALARS, st.builds(deep))
    told = details.map(lambda value: [_encoded(detailed(rank, value))])
    return st.builds(Life, lines=told, reports=st.just(False))
