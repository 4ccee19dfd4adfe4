"""The code that lies on the disk now: what a trial that is launched now would run.

A trial whose record names another fingerprint is stale, and so is a server. A file is parsed once,
and again when its time or size has changed.
"""

from __future__ import annotations

import functools
from pathlib import Path

from bench import theory
from bench.code_roles import code_of, reference_code
from bench.controller import drivers
from bench.controller.environments import cache_dir
from bench.fingerprint import Facts, candidates, digest, facts_of, source_files, stamp_of
from bench.trial import Configuration

ROOT = Path(__file__).resolve().parents[2]

Code = dict[str, str]
"""Role to 16 hex digits."""


class Disk:
    """The files of a checkout, looked at again at every question."""

    def __init__(self, root: Path = ROOT) -> None:
        self._root = root
        self._parsed: dict[Path, tuple[list[int], Facts]] = {}
        self._codes: dict[tuple[str, ...], tuple[_Look, Code]] = {}

    def code_of(self, configuration: Configuration) -> Code:
        """The fingerprint of a configuration that is launched as it says, by role."""
        key = _choice(configuration)
        if key in self._codes:
            before, code = self._codes[key]
            if before.still_true():
                return code
        look = _Look(self)
        code = code_of(configuration, look.facts)
        self._codes[key] = (look, code)
        return code

    def reference_code(self) -> str:
        """Digest of all that makes a reference."""
        return reference_code(_Look(self).facts)

    def facts_at(self, path: Path, stamp: list[int]) -> Facts:
        """The facts of the file at `path`, which has this `stamp`."""
        known = self._parsed.get(path)
        if known is None or known[0] != stamp:
            known = (stamp, facts_of(path.read_bytes()))
            self._parsed[path] = known
        return known[1]

    def path(self, relative: str) -> Path:
        """A file of the checkout."""
        return self._root / relative

    def stamps(self) -> dict[str, list[int]]:
        """Time of the last change [ns] and size [bytes] of every file that ranks may import."""
        found = {relative: _stamp(path) for relative, path in source_files(self._root)}
        return {relative: stamp for relative, stamp in found.items() if stamp is not None}


class _Look:
    """One look at the files: each is asked for its time and size once."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._stamps: dict[Path, list[int] | None] = {}
        self._found: dict[str, Facts | None] = {}

    def facts(self, name: str) -> Facts | None:
        """The facts of the module `name`; None where there is no such file."""
        if name not in self._found:
            self._found[name] = self._read(name)
        return self._found[name]

    def _read(self, name: str) -> Facts | None:
        for candidate in candidates(name):
            path = self._disk.path(candidate)
            stamp = self._stamps[path] = _stamp(path)
            if stamp is not None:
                return self._disk.facts_at(path, stamp)
        return None

    def still_true(self) -> bool:
        """Whether every file that was looked at, or looked for, is as it was."""
        return all(_stamp(path) == stamp for path, stamp in self._stamps.items())


DISK = Disk()


def code_of_trial(configuration: Configuration) -> Code:
    """The fingerprint that the record of a trial launched now would have.

    That of its ranks, and `driver` where it takes several launches.
    """
    code = DISK.code_of(drivers.launched(configuration))
    return code | driver_code(configuration)


def driver_code(configuration: Configuration) -> Code:
    """The role `driver`, where the scenario has one: as it was when it was first asked for.

    This process goes on with what it imported.
    """
    return _driver_code(configuration.scenario)


@functools.cache
def _driver_code(scenario: str) -> Code:
    name = f"bench.controller.drivers.{scenario}"
    facts = _Look(DISK).facts(name)
    return {} if facts is None else {"driver": facts.own}


def of_launches(codes: list[Code]) -> Code:
    """One fingerprint of several launches; what changed between them is like neither."""
    roles = sorted({role for code in codes for role in code})
    found = {role: sorted({code.get(role, "") for code in codes}) for role in roles}
    return {role: one[0] if len(one) == 1 else digest(one) for role, one in found.items()}


def reference_folder(configuration: Configuration, code: str | None = None) -> Path:
    """Where the reference of `configuration` lies that `code` makes; None: what is on the disk."""
    name = f"{configuration.reference_key}-{code or DISK.reference_code()}"
    return cache_dir() / "references" / name


def _choice(c: Configuration) -> tuple[str, ...]:
    """What decides which files a configuration's ranks run."""
    mode = theory.gradient_mode(c)
    return (c.scenario, c.loss, c.attention, mode)


def _stamp(path: Path) -> list[int] | None:
    try:
        return stamp_of(path)
    except OSError:
        return None
