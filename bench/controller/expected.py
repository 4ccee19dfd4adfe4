"""What a record must be of to count as a round of what would be measured here and now.

The same code on the same versions, on a machine of the same class: `bench.identity`. A record that
is of other things stays where it is, and its trial runs again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from bench.controller import observed
from bench.controller.code import code_of_trial
from bench.controller.ledger import Entry
from bench.controller.provenance import hardware_here, machine_class
from bench.identity import NOTHING, UNKNOWN, code_text, roles_that_differ
from bench.trial import Configuration, EnvironmentSpec


class Difference(NamedTuple):
    """Why a record does not count, in the words of one line for many."""

    kind: str
    """`code`, `unknown`, `versions` or `machine`: those nearer to what is wanted come first."""
    detail: str


class Expected:
    """What is wanted of the records of one sweep; looked up when a record is there to compare."""

    def __init__(self, retry_unknown_code: bool) -> None:
        self._retry_unknown_code = retry_unknown_code
        self._codes: dict[str, set[str]] = {}
        self._versions: dict[EnvironmentSpec, str | None] = {}

    def difference(self, configuration: Configuration, entry: Entry) -> Difference | None:
        """Why `entry`, a record of `configuration`, does not count; None: it does."""
        if entry.own:
            return None
        return (
            self._of_machine(entry)
            or self._of_versions(configuration, entry)
            or self._of_code(configuration, entry)
        )

    def nearest(self, configuration: Configuration, entries: Iterable[Entry]) -> Difference:
        """The difference of the record among `entries`, none of which counts, that lacks least."""
        found = [self.difference(configuration, one) for one in entries]
        order = list(_LINES)
        return min(filter(None, found), key=lambda one: order.index(one.kind))

    def _of_machine(self, entry: Entry) -> Difference | None:
        if entry.identity.machine == NOTHING:
            # nothing ran: a refusal says the same everywhere, a broken environment only here
            here = entry.hardware is None or entry.hardware == hardware_here()
        else:
            here = entry.identity.machine == machine_class()
        return None if here else Difference("machine", entry.identity.machine or "unknown")

    def _of_versions(self, configuration: Configuration, entry: Entry) -> Difference | None:
        spec, found = configuration.environment, entry.identity.versions
        if found == NOTHING:
            return None
        if spec not in self._versions:
            self._versions[spec] = observed.versions(spec)
        now = self._versions[spec]
        if now is None or found == now:
            return None
        return Difference("versions", f"{found}; now {now}")

    def _of_code(self, configuration: Configuration, entry: Entry) -> Difference | None:
        found = entry.identity.code
        if found == UNKNOWN:
            return Difference("unknown", "") if self._retry_unknown_code else None
        if found == NOTHING:
            return None
        now = code_text(code_of_trial(configuration))
        # what a sweep measured before a file was edited in its middle counts for that sweep
        accepted = self._codes.setdefault(configuration.hash, set())
        accepted.add(now)
        if found in accepted:
            return None
        return Difference("code", ", ".join(roles_that_differ(found, now)))


_LINES = {
    "code": "{count} of {total} trials were measured by other code ({detail}): they run again",
    "versions": (
        "{count} of {total} trials were measured with other versions ({detail}): they run again"
    ),
    "machine": (
        "{count} of {total} trials were measured on another class of machine ({detail}): "
        "they run here, too"
    ),
    "unknown": "{count} of {total} trials do not say which code ran: they run again",
}


def lines(differences: Iterable[Difference], unknown: int, total: int) -> list[str]:
    """A line for each kind of difference that records of a sweep of `total` trials have.

    And one for those, `unknown` in number, that count although they do not say which code ran.
    """
    found = Counter(differences)
    said = []
    for kind, line in _LINES.items():
        details = {one.detail: count for one, count in found.items() if one.kind == kind}
        for detail, count in details.items():
            said.append(line.format(count=count, total=total, detail=detail))
    if unknown:
        said.append(
            f"{unknown} of {total} trials have records that do not say which code ran; "
            "retry=unknown_code runs them again"
        )
    return said
