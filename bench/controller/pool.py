"""Environments made on the fly: when first asked for, and only so many of them on disk.

With `env.keep=2` a sweep over many versions needs the disk of two. An environment that such a
sweep had to build is marked as made on the fly; of the marked ones, those that were least
recently used are removed before another is built. Never removed are those that
`conf/environment` names, those that were there without the mark, interpreters of the user's,
and what another process uses at the moment. uv keeps what it downloaded in its own cache, so
that making one again takes seconds; `uv cache prune` empties that.
"""

from __future__ import annotations

from collections.abc import Callable

from bench.controller.config import CONF
from bench.controller.environments import (
    EnvironmentStatus,
    installed,
    key_of,
    known_specs,
    mark_on_the_fly,
    remove,
    status,
)
from bench.controller.interpreter import EnvironmentProblem, Interpreter, Provide
from bench.controller.uv import Report
from bench.trial import EnvironmentSpec


def _nothing(_key: str) -> None:
    """No server runs."""


class Pool:
    """The interpreters of one sweep; at most `keep` of those made on the fly stay on disk."""

    def __init__(self, keep: int, provide: Provide, report: Report) -> None:
        self._keep = keep
        self._provide = provide
        self._report = report
        self._named = {key_of(spec) for spec in known_specs(CONF).values() if spec.python is None}
        self.leave: Callable[[str], None] = _nothing
        """Ends whatever of this process runs in the environment of a key, before it is removed."""

    def interpreter(self, spec: EnvironmentSpec) -> Interpreter:
        """The interpreter of `spec`, made now if need be; raises `EnvironmentProblem`."""
        if spec.python is not None or key_of(spec) in self._named:
            return self._provide(spec, self._report)
        before = status(spec)
        new = before.state == "missing"
        if new or before.on_the_fly:
            self._make_room(key_of(spec))
        made = self._provide(spec, self._report)
        if new and status(spec).state == "ready":
            mark_on_the_fly(spec)
        return made

    def _make_room(self, wanted: str) -> None:
        """Remove environments until one more, `wanted`, may be there."""
        others = [one for one in self._removable() if one.key != wanted]
        for one in others[self._keep - 1 :]:
            self.leave(one.key)
            try:
                gone = remove(one.key, self._report)
            except EnvironmentProblem as problem:  # others use it: it is theirs to remove
                self._report(str(problem))
                continue
            if gone:
                self._report(f"environment '{one.spec.name}': removed, env.keep={self._keep}")

    def _removable(self) -> list[EnvironmentStatus]:
        """What was made on the fly, the last used first."""
        return [one for one in installed() if one.on_the_fly and one.key not in self._named]
