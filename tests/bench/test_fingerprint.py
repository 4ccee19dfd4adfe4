"""Which edits of a file are other code, and which are not."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.fingerprint import Import, facts_of, source_files

ROOT = Path(__file__).parents[2]

PLAIN = b'''"""What it does."""

import torch
from bench.worker.model import ShardLoss

SCALE = 2
"""Of what."""


def aggregate(shard, group=None):
    """The loss."""
    # the mean
    return SCALE * shard.mean
'''


def own(source: bytes) -> str:
    return facts_of(source).own


GOLDEN = "52447d4d78797100"
"""When it moves, every record of today is of other code."""


def test_the_digest_does_not_move() -> None:
    assert own(PLAIN) == GOLDEN


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(b"What it does.", b"What it really does.", id="docstring"),
        pytest.param(b'    """The loss."""\n', b"", id="no-docstring"),
        pytest.param(b"Of what.", b"Of the loss.", id="documented-value"),
        pytest.param(b"    # the mean\n", b"", id="comment"),
        pytest.param(b"SCALE * shard.mean", b"(SCALE  *\n        shard.mean)", id="layout"),
        pytest.param(b"SCALE = 2", b"__all__ = ['aggregate']\nSCALE = 2", id="all"),
        pytest.param(b"bench.worker.model", b"bench.worker.decoder", id="moved-import"),
    ],
)
def test_what_only_documents_or_moves_is_no_other_code(old: bytes, new: bytes) -> None:
    assert own(PLAIN.replace(old, new)) == own(PLAIN)
    assert PLAIN.replace(old, new) != PLAIN


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(b"SCALE = 2", b"SCALE = 3", id="number"),
        pytest.param(b"SCALE = 2", b"SCALE = 2.0", id="type-of-a-number"),
        pytest.param(b"SCALE = 2", b"SCALE = '2'", id="text"),
        pytest.param(b"SCALE *", b"SCALE +", id="operator"),
        pytest.param(b"group=None", b"group", id="default"),
        pytest.param(b"shard.mean", b"shard.tokens", id="attribute"),
        pytest.param(b"import torch", b"import numpy as torch", id="foreign-import"),
        pytest.param(b"return SCALE", b"SCALE", id="return"),
    ],
)
def test_what_it_does_is_its_code(old: bytes, new: bytes) -> None:
    assert old in PLAIN
    assert own(PLAIN.replace(old, new)) != own(PLAIN)


def test_a_file_that_says_nothing_has_no_code() -> None:
    assert own(b'"""A package."""\n\n__all__ = ["x"]\n__version__ = "1"\n') == ""


def test_imports_of_ours_and_plugins_are_noted_at_any_depth() -> None:
    facts = facts_of(
        b"import os, bench.rounds as rounds\n"
        b"def f():\n"
        b"    from .. import sdpa as kernels\n"
        b"    return plugins.load('loss', name), other.load('no'), plugins.names('no')\n"
    )
    assert facts.imports == [
        Import(0, "bench.rounds", "", "rounds"),
        Import(2, "", "sdpa", "kernels"),
    ]
    assert facts.plugins == ["loss"]
    assert own(b"import os, bench.rounds as rounds") != own(b"import bench.rounds as rounds")


def test_of_a_file_that_does_not_parse_every_byte_counts() -> None:
    assert own(b"def f(:") != own(b"def f(:  # no")


def pythons() -> list[str]:
    """Other Pythons of this machine that workers may be."""
    versions = [version for version in range(9, 15) if version != sys.version_info[1]]
    found = [shutil.which(f"python3.{version}") for version in versions]
    for home in Path.home().glob(".pyenv/versions/3.*/bin"):
        found += [str(home / f"python3.{version}") for version in versions]
    return sorted({one for one in found if one and Path(one).exists() and "/shims/" not in one})


ALL_KINDS = (
    'f"{a!r:>{b}} and {c=} {d:}" "text" f"é\\n"\n'
    'f"{a:>{b}.{c}}{{" "" f"x" f"{f\'\'}"\n'
    "def f(a, /, b=1, *, c: int = -1, **d): return {**d, 'x': [*a], 1: ...}\n"
    "async def g():\n    async with a as b, c: await d\n"
    "class A(B, metaclass=C):\n    x: int\n    y: 'str' = 1j\n"
    "try: pass\nexcept (A, B) as e: raise C from e\nelse: pass\nfinally: del x[1:2, ::3]\n"
    "lambda *a, b=2: (yield)\nx = y if z else [i for i in j if i]\nwith a: global_ = b'\\x00'\n"
)


def test_every_python_gives_the_same_digests() -> None:
    others = pythons()
    if not others:
        pytest.skip("no other Python from 3.9 on is installed here")
    program = (
        "import json, sys\nfrom pathlib import Path\n"
        "from bench.fingerprint import facts_of, source_files\n"
        "found = {name: facts_of(path.read_bytes()) for name, path in source_files(Path('.'))}\n"
        f"found['kinds'] = facts_of({ALL_KINDS!r}.encode())\n"
        "print(json.dumps(found))\n"
    )
    here = {name: facts_of(path.read_bytes()) for name, path in source_files(ROOT)}
    here["kinds"] = facts_of(ALL_KINDS.encode())
    expected = json.loads(json.dumps(here))
    for python in others:
        done = subprocess.run(
            [python, "-S", "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert json.loads(done.stdout) == expected, python
