"""The code that this process imported, for the fingerprint in its trials' records.

A file may be edited while a server runs, which goes on with what it imported. So the server keeps
the text of every file at its start, and says what it read (`stamps`): the controller, which looked
before it started the server, then knows whether any of it changed meanwhile.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

from bench.code_roles import FactsOf, code_of, reference_code, weights_code
from bench.fingerprint import Facts, candidates, facts_of, source_files, stamp_of
from bench.trial import Configuration

_ROOT = Path(__file__).resolve().parents[2]


class Imported:
    """The files of spbench as they were when this was made."""

    def __init__(self, root: Path = _ROOT) -> None:
        self.stamps: Dict[str, List[int]] = {}
        """Time of the last change [ns] and size [bytes], by the path in the checkout."""
        self._texts: Dict[str, bytes] = {}
        self._facts: Dict[str, Facts] = {}
        for relative, path in source_files(root):
            self.stamps[relative] = stamp_of(path)
            self._texts[relative] = path.read_bytes()

    def fingerprint(self, configuration: Configuration) -> Dict[str, Any]:
        """`code`, by role, of a trial of `configuration`; `reference`, of what makes references.

        Files are parsed in a process of its own: what that leaves in the memory of a server would
        be memory that its ranks need not ask for.
        """
        try:
            return _fingerprint(configuration, self._known)
        except _NotParsed:
            answer = _in_a_fork(lambda: self._parse(configuration))
        self._facts.update({path: Facts.parsed(one) for path, one in answer.pop("facts").items()})
        found: Dict[str, Any] = answer
        return found

    def weights_code(self) -> str:
        """What the name of the initial weights' file holds of the code that draws them."""
        return weights_code(self.facts)

    def facts(self, name: str) -> Optional[Facts]:
        """The facts of the module `name`; None where there was no such file."""
        for path in candidates(name):
            if path in self._texts:
                if path not in self._facts:
                    self._facts[path] = facts_of(self._texts[path])
                return self._facts[path]
        return None

    def _known(self, name: str) -> Optional[Facts]:
        """`facts`, but `_NotParsed` where a file would have to be parsed."""
        if any(path in self._texts and path not in self._facts for path in candidates(name)):
            raise _NotParsed
        return self.facts(name)

    def _parse(self, configuration: Configuration) -> Dict[str, Any]:
        return {**_fingerprint(configuration, self.facts), "facts": self._facts}


class _NotParsed(Exception):
    """A file has not been parsed yet."""


def _fingerprint(configuration: Configuration, facts: FactsOf) -> Dict[str, Any]:
    return {"code": code_of(configuration, facts), "reference": reference_code(facts)}


_imported: Optional[Imported] = None


def imported() -> Imported:
    """What this process imported: read at the first call, and inherited by forks."""
    global _imported
    if _imported is None:
        _imported = Imported()
    return _imported


def _in_a_fork(work: Callable[[], Any]) -> Any:
    """What `work` returns, computed in a forked process. Raises RuntimeError if that fails."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read_end)
        try:
            with os.fdopen(write_end, "w") as pipe:
                json.dump(work(), pipe)
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    if not text:
        raise RuntimeError("spbench could not tell which code it runs; its server's log says why")
    return json.loads(text)
