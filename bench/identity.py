"""What a result is of, beside its configuration: the code, the versions and the machine.

A configuration's hash says what was asked for. Two records of one hash are one result only if the
same code ran, on the same versions of the software, on machines of one class. Works on the content
of a record, parsed but not validated, so that resume and all readers share one rule.
"""

from __future__ import annotations

from typing import Any, List, Mapping, NamedTuple

UNKNOWN = "unknown"
"""Code of a record that does not say which ran: those before schema version 3."""
NOTHING = ""
"""Of a trial in which nothing ran: refused before it was launched, or its environment is broken."""

Content = Mapping[str, Any]


class Identity(NamedTuple):
    """Equal where two records of one configuration are rounds of one result."""

    code: str
    """`role=digest` of each role, in order of the roles; `UNKNOWN`; or `NOTHING`."""
    versions: str
    """`torch 2.13.0+cpu, deepspeed 0.18.2`, as the worker saw them; or `NOTHING`."""
    machine: str
    """Class of the machine: CPU model and cores, GPUs, nodes, driver, transport; or `NOTHING`."""


def identity_of(record: Content) -> Identity:
    """The identity of a record's content. Raises KeyError, TypeError if it is none."""
    return Identity(code_of(record), versions_of(record), machine_class_of(record))


def code_of(record: Content) -> str:
    """The fingerprint of the code that ran."""
    code = record.get("code")
    if code is None:
        return UNKNOWN if record["worker"] else NOTHING
    if not isinstance(code, dict):
        raise TypeError(f"code is no mapping of roles: {code!r}")
    return code_text(code)


def code_text(code: Mapping[str, str]) -> str:
    """A fingerprint, by role, as one text."""
    return " ".join(f"{role}={code[role]}" for role in sorted(code))


def roles_that_differ(one: str, other: str) -> List[str]:
    """Roles in which two such texts differ, by name: what to call the difference."""
    pairs = set(one.split()) ^ set(other.split())
    return sorted({pair.partition("=")[0] for pair in pairs})


def versions_of(record: Content) -> str:
    """Versions that the worker saw."""
    worker = record["worker"]
    return f"torch {worker['torch']}, deepspeed {worker['deepspeed']}" if worker else NOTHING


def machine_class_of(record: Content) -> str:
    """The class of the machine: hosts of one class count as one."""
    machine, worker = record["machine"], record["worker"]
    if not machine or not worker:
        return NOTHING
    parts = [f"{machine['cpu']}, {machine['cores']} cores"]
    for name in sorted(set(machine["gpus"])):
        parts.append(f"{machine['gpus'].count(name)} x {name}")
    if machine.get("nodes", 1) > 1:
        parts.append(f"{machine['nodes']} nodes")
    if machine["gpus"] and worker["driver"]:
        parts.append(f"driver {worker['driver']}")
    if machine.get("transport"):
        parts.append(str(machine["transport"]))
    return ", ".join(parts)
