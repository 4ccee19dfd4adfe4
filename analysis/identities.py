"""Results of one configuration that are not one result: by code, versions or class of machine.

A result is what may become one number: the rounds of one configuration (`config_hash`) with one
identity (`bench.identity`). `variant` says in words what tells it from the other results of its
configuration, and is empty where there is no other; `RESULT` groups a frame by result.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from bench.identity import NOTHING, UNKNOWN, Identity

RESULT = ["config_hash", "variant"]
"""Columns of `analysis.frame.load` that name a result."""
PARTS = ("code", "versions", "machine_class")
"""Columns with the parts of an identity, in its order."""
SAMPLE = ["hostname", "machine_class", "round"]
"""Columns that name a sample within a result: a round on a host."""

JOINED = "Machines of several classes are put together, and their times differ by more than chance"
_DIGITS = 6
"""Of a digest, where they tell what has to be told apart."""
_FEW = 2
"""Roles that are named with digits of their own."""
_OF_ITS_OWN = "checking"
"""The role that judges one gradient by itself: it may differ between what is compared in time."""

Sample = tuple[str, str, int]
"""Host, class of machine and round: what both sides of a pair must have in common."""


class Known(NamedTuple):
    """One of the results of a configuration."""

    number: int
    identity: Identity


def numbers(frame: pd.DataFrame, across_machines: bool = False) -> pd.Series:
    """A number for the result that each record belongs to; records of one result share it.

    A record that lacks a part of its identity, since nothing ran say, belongs to the result that
    has the rest, if only one has. `across_machines`: classes of machines are no difference.
    """
    keys = ["config_hash", *(PARTS[:2] if across_machines else PARTS)]
    number = frame.groupby(keys, sort=False).ngroup()
    kinds = frame.loc[~number.duplicated(), ["config_hash", *PARTS]].assign(number=number)
    joined: dict[int, int] = {}
    for results in _of_configurations(kinds, across_machines):
        joined |= _completed(results)
    return number.replace(joined) if joined else number


def variants(frame: pd.DataFrame, across_machines: bool = False) -> pd.Series:
    """What tells each record's result from the others of its configuration, in words.

    Once some configuration was measured on machines of several classes, all rows name theirs.
    `frame` has a column `result`, from `numbers`.
    """
    if frame.result.nunique() == frame.config_hash.nunique():
        return pd.Series("", index=frame.index)
    # within a result a part is missing or the same, and what is missing sorts before everything
    kinds = frame[["config_hash", *PARTS, "result"]].drop_duplicates()
    kinds = kinds.groupby("result", sort=False).max().reset_index(names="number")
    found: dict[int, list[str]] = {}
    machines = False
    for results in _of_configurations(kinds, across_machines):
        for part in (_codes, _versions):
            for one, text in zip(results, part([each.identity for each in results]), strict=True):
                found.setdefault(one.number, []).append(text)
        machines |= len({one.identity.machine for one in results} - {NOTHING}) > 1
    if machines:
        classes = pieces_apart(set(kinds.machine_class) - {NOTHING})
        for row in kinds.itertuples():
            found.setdefault(row.number, []).append(classes.get(row.machine_class, ""))
    texts = {number: "; ".join(filter(None, parts)) for number, parts in found.items()}
    unique = _unique(kinds, texts)
    return frame.result.map(lambda number: unique.get(number, ""))


def identity_of(trials: pd.DataFrame) -> Identity:
    """The identity of a result, from its trials: of each part whatever some trial has."""
    return Identity(*(str(trials[part].max()) for part in PARTS))


def samples_of(trials: pd.DataFrame) -> list[Sample]:
    """The sample that each trial of a result is."""
    return [
        (str(host), str(machine), int(round_))
        for host, machine, round_ in zip(
            trials.hostname.fillna(""), trials.machine_class, trials["round"], strict=True
        )
    ]


def hosts_of(trials: pd.DataFrame) -> set[str]:
    """The machines that a result was measured on."""
    return set(trials.hostname.dropna())


def disagreement(
    left: Identity, right: Identity, compared: Iterable[str] = (), across_machines: bool = False
) -> str:
    """Why two results make no pair, in words; empty where they do.

    `compared` are the axes in which they are meant to differ. The code of all roles that both
    have must be the same, but of those compared; so must the class of machine, and the versions
    unless environments are compared.
    """
    names = {name.partition(".")[0] for name in compared}
    found = [_code_apart(left.code, right.code, names)]
    if not across_machines and _differ(left.machine, right.machine):
        found.append(f"the machines differ ({left.machine} | {right.machine})")
    if "environment" not in names and _differ(left.versions, right.versions):
        apart = pieces_apart({left.versions, right.versions})
        found.append(f"the versions differ ({apart[left.versions]} | {apart[right.versions]})")
    return "; ".join(filter(None, found))


def roles_of(code: str) -> dict[str, str]:
    """Digest by role; empty where the code is not known."""
    if code in (UNKNOWN, NOTHING):
        return {}
    return dict(part.partition("=")[::2] for part in code.split(" "))


def kind_of(identity: Identity, varying: Iterable[str], across_machines: bool) -> tuple[str, ...]:
    """What results have in common that may be put into one number, over several configurations.

    `varying` are the axes in which these differ: their code, and versions, may differ with them.
    """
    names = {name.partition(".")[0] for name in varying}
    roles = roles_of(identity.code)
    code = [f"{one}={roles[one]}" for one in sorted(roles.keys() - names - {_OF_ITS_OWN})]
    return (
        " ".join(code) or identity.code,
        "" if "environment" in names else identity.versions,
        "" if across_machines else identity.machine,
    )


def pieces_apart(texts: Iterable[str]) -> dict[str, str]:
    """Of each text, the pieces between commas that not all have; all of it where none is left."""
    pieces = {text: text.split(", ") for text in sorted(texts)}
    common = set.intersection(*map(set, pieces.values())) if len(pieces) > 1 else set()
    return {
        text: ", ".join(one for one in parts if one not in common) or text
        for text, parts in pieces.items()
    }


def latest(frame: pd.DataFrame) -> pd.DataFrame:
    """The trials of each configuration's last result, on each class of machines."""
    keys = ["config_hash", "machine_class"]
    last = frame.groupby([*keys, "variant"], as_index=False).started.max()
    last = last.sort_values("started", kind="stable").drop_duplicates(keys, keep="last")
    return frame[
        frame.set_index([*keys, "variant"]).index.isin(last.set_index([*keys, "variant"]).index)
    ]


def cautions(frame: pd.DataFrame) -> list[str]:
    """What must be said of a frame whose classes of machines were put together, a line."""
    classes = frame.attrs.get("joined_machines", ())
    return [f"{JOINED}: {' | '.join(classes)}"] if classes else []


def _of_configurations(kinds: pd.DataFrame, across_machines: bool) -> Iterator[list[Known]]:
    """The results of each configuration that has several, in the order of `kinds`."""
    several = kinds[kinds.config_hash.duplicated(keep=False)]
    for _, group in several.groupby("config_hash", sort=False):
        yield [
            Known(
                int(row.number),
                Identity(row.code, row.versions, NOTHING if across_machines else row.machine_class),
            )
            for row in group.itertuples()
        ]


def _completed(results: Sequence[Known]) -> Mapping[int, int]:
    """The result that each incomplete one is a part of, where only one can be meant."""
    whole = [one for one in results if NOTHING not in one.identity[:2]]
    found = {}
    for one in results:
        if NOTHING not in one.identity:
            continue
        fitting = {
            other.number
            for other in whole
            if other is not one
            and other.identity.count(NOTHING) < one.identity.count(NOTHING)
            and all(a in (b, NOTHING) for a, b in zip(one.identity, other.identity))
        }
        if len(fitting) == 1:
            found[one.number] = fitting.pop()
    return found


def _codes(identities: Sequence[Identity]) -> list[str]:
    """`loss 3fa4b2`, `code unknown`, `nothing ran`: of each, where codes differ."""
    codes = [one.code for one in identities]
    if len(set(codes)) == 1:
        return [""] * len(codes)
    fixed = {UNKNOWN: "code unknown", NOTHING: "nothing ran"}
    roles = {code: roles_of(code) for code in codes if code not in fixed}
    differing = _differing(list(roles.values()))
    return [fixed[one] if one in fixed else _code_text(roles, one, differing) for one in codes]


def _code_text(roles: Mapping[str, Mapping[str, str]], code: str, differing: list[str]) -> str:
    if not differing:
        return "code known"
    if len(differing) > _FEW:
        digest = hashlib.sha256(code.encode()).hexdigest()[:_DIGITS]
        return f"code {digest} ({', '.join(differing)})"
    texts = []
    for role in differing:
        digests = {one.get(role, "") for one in roles.values()}
        texts.append(f"{role} {_shortest(roles[code].get(role, ''), digests) or 'none'}")
    return ", ".join(texts)


def _shortest(digest: str, digests: Iterable[str]) -> str:
    """As many of a digest's first digits as tell it from the others, at least a few."""
    others = [one for one in digests if one != digest]
    length = _DIGITS
    while length < len(digest) and any(one.startswith(digest[:length]) for one in others):
        length += 1
    return digest[:length]


def _differing(roles: Sequence[Mapping[str, str]]) -> list[str]:
    """Roles whose code is not the same in all."""
    names = sorted({name for one in roles for name in one})
    return [name for name in names if len({one.get(name) for one in roles}) > 1]


def _versions(identities: Sequence[Identity]) -> list[str]:
    """`torch 2.4.1`: of each what not all have, where versions differ."""
    known = {one.versions for one in identities} - {NOTHING}
    apart = pieces_apart(known) if len(known) > 1 else {}
    return [apart.get(one.versions, "") for one in identities]


def _unique(kinds: pd.DataFrame, texts: Mapping[int, str]) -> dict[int, str]:
    """The texts, numbered where two results of a configuration would be called the same."""
    found: dict[int, str] = {}
    taken: set[tuple[str, str]] = set()
    for row in kinds[kinds.number.isin(list(texts))].itertuples():
        text, count = texts[row.number], 1
        while (row.config_hash, text) in taken:
            count += 1
            text = f"{texts[row.number] or 'result'} #{count}"
        taken.add((row.config_hash, text))
        found[row.number] = text
    return found


def _differ(left: str, right: str) -> bool:
    """Whether two known parts are not the same."""
    return NOTHING not in (left, right) and left != right


def _code_apart(left: str, right: str, compared: set[str]) -> str:
    if NOTHING in (left, right) or left == right:
        return ""
    if UNKNOWN in (left, right):
        return "the code is unknown on one side"
    roles = roles_of(left), roles_of(right)
    differing = [
        name
        for name in sorted((roles[0].keys() & roles[1].keys()) - compared - {_OF_ITS_OWN})
        if roles[0][name] != roles[1][name]
    ]
    return f"the code differs ({', '.join(differing)})" if differing else ""
