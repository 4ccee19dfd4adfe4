"""Which code a trial runs, by role: the fingerprint in its record.

The modules are those that its ranks can reach from `bench.worker.process`: by import statements,
at any depth of a file, and by `plugins.load`, where the configuration says which file. A file that
another choice would load (another loss aggregation's, say) is not among them.

    scenario   the scenario's file and what it takes from others of its package
    loss, attention, checking   the chosen file, and what nothing but it brings in; `checking` by
               the mode in which the gradient is compared, none where it is not
    model      the decoder, and the batch that it is given
    reference  what `bench.worker.reference` brings in: initial weights, exact gradient
    worker     all else that ranks run: trainer, mesh, clocks, counters, emulation

Left out is what stands in a record by itself: the configuration (its hash), the record's form
(its schema version), and theory, which says what is expected and not what was measured. The
server, which forks the ranks and measures nothing, is left out too.
"""

from __future__ import annotations

from collections import Counter
from typing import Callable, Collection, Dict, Iterable, List, Mapping, Optional, Set

from bench import theory
from bench.fingerprint import Facts, Import, digest
from bench.trial import Configuration

FactsOf = Callable[[str], Optional[Facts]]
"""Facts of the module of a name; None where there is no such file."""

RANKS = "bench.worker.process"
REFERENCE = "bench.worker.reference"
MAKING = "bench.worker.reference.making"
MODEL = ("bench.worker.model", "bench.worker.batch")
WEIGHTS = ("bench.worker.model", "bench.worker.reference.initial")
"""What decides the initial weights beside model and seed: shapes, and how they are drawn."""

_STANDS_BY_ITSELF = (
    "bench.trial",
    "bench.specs",
    "bench.record",
    "bench.plain",
    "bench.identity",
    "bench.theory",
    "bench.fingerprint",
    "bench.code_roles",
    "bench.worker.code",
)


def code_of(configuration: Configuration, facts: FactsOf) -> Dict[str, str]:
    """The fingerprint of a configuration whose ranks are launched as it says: role to 16 hex."""
    chosen = _choices(configuration)
    scenario = _plugin("scenarios", configuration.scenario)
    shared = reachable([RANKS, scenario], facts)
    roles: Dict[str, Set[str]] = {}
    for package in sorted({name for one in shared for name in _plugins_of(one, facts)}):
        if package == "scenarios":
            continue
        name = _chosen(package, chosen)
        if name is not None:
            root = _plugin(package, name)
            roles[package] = {root} | (reachable([root], facts) - shared)
    of_package = scenario.rpartition(".")[0] + "."
    roles["scenario"] = {one for one in shared if one.startswith(of_package)} | {scenario}
    roles["model"] = shared & set(MODEL)
    without = reachable([RANKS, scenario], facts, cut=(REFERENCE,))
    roles["reference"] = shared - without - roles["model"]
    named = roles["scenario"] | roles["model"] | roles["reference"]
    roles["worker"] = shared - named
    every = set().union(*roles.values())
    return {role: combined(names, facts, every) for role, names in roles.items() if names}


def reference_code(facts: FactsOf) -> str:
    """Digest of all that makes a reference: model, batch, initial weights, exact gradient."""
    every = reachable([MAKING], facts)
    return combined(every, facts, every)


def weights_code(facts: FactsOf) -> str:
    """Digest of what draws the initial weights."""
    return digest(sorted(_facts(name, facts).own for name in WEIGHTS))


def reachable(roots: Iterable[str], facts: FactsOf, cut: Collection[str] = frozenset()) -> Set[str]:
    """`roots` and all modules of ours that importing them brings in, their packages included.

    Nothing in `cut` is entered, nor what stands in a record by itself.
    """
    found: Set[str] = set()
    left = list(roots)
    while left:
        name = left.pop()
        if not name or name in found or name in cut or _stands_by_itself(name):
            continue
        found.add(name)
        left.append(name.rpartition(".")[0])
        known = facts(name)
        if known is not None:
            left += [_target(name, one, facts) for one in known.imports]
    return found


def combined(names: Iterable[str], facts: FactsOf, every: Collection[str]) -> str:
    """One digest of several modules out of `every`, the same whatever they are called."""
    twins = Counter(kind for name in every for kind in set(_kinds(name, facts)))
    parts = (_whole(name, facts, twins) for name in names)
    return digest(sorted(part for part in parts if part))


def _whole(name: str, facts: FactsOf, twins: Mapping[str, int]) -> str:
    """Digest of a module and of what its imports mean; empty where it says nothing at all."""
    known = _facts(name, facts)
    if not known.own and not known.imports:
        return ""
    taken = {_meaning(name, one, facts, twins) for one in known.imports}
    return digest([known.own, *sorted(taken)])


def _meaning(name: str, one: Import, facts: FactsOf, twins: Mapping[str, int]) -> str:
    """What an import takes and what it calls it: by kind, and not by the place where it lies.

    Where several modules have something of that kind, by the whole module that is meant.
    """
    target = _target(name, one, facts)
    attribute = one.name if target == _absolute(name, one, facts) else ""
    if _stands_by_itself(target):
        return f"{attribute} {one.bound}"
    known = _facts(target, facts)
    kind = _kind(attribute, known)
    if kind is None or twins.get(kind, 0) > 1:
        kind = known.own
    return f"{kind} {attribute} {one.bound}"


def _kinds(name: str, facts: FactsOf) -> List[str]:
    """All that a module offers to imports, itself included."""
    known = _facts(name, facts)
    kinds = [_kind(attribute, known) for attribute in ["", *known.defines]]
    return [kind for kind in kinds if kind is not None]


def _kind(attribute: str, known: Facts) -> Optional[str]:
    """What `attribute` of a module is, or, where that is empty, the module; None: not told."""
    if not attribute:
        return "module of " + " ".join(sorted(n for n in known.defines if n[0] != "_"))
    signature = known.defines.get(attribute)
    return None if signature is None else f"{attribute}({signature})"


def _target(name: str, one: Import, facts: FactsOf) -> str:
    """The module that an import of the module `name` means."""
    module = _absolute(name, one, facts)
    inner = f"{module}.{one.name}"
    return inner if one.name and facts(inner) is not None else module


def _absolute(name: str, one: Import, facts: FactsOf) -> str:
    """The module that stands in an import of the module `name`, without leading dots."""
    if not one.level:
        return one.module
    up = one.level - 1 if _is_package(name, facts) else one.level
    base = name.split(".")[: len(name.split(".")) - up]
    return ".".join([*base, one.module] if one.module else base)


def _is_package(name: str, facts: FactsOf) -> bool:
    return facts(f"{name}.__init__") is not None  # the file of a module has another place


def _facts(name: str, facts: FactsOf) -> Facts:
    known = facts(name)
    return Facts(digest([]), [], [], {}) if known is None else known


def _plugins_of(name: str, facts: FactsOf) -> List[str]:
    known = facts(name)
    return [] if known is None else known.plugins


def _plugin(package: str, name: str) -> str:
    return f"bench.worker.{package}.{name}"


def _choices(configuration: Configuration) -> Mapping[str, Optional[str]]:
    """By package, the name of the file that a trial takes from it; None: none."""
    c = configuration
    mode = theory.gradient_mode(c)
    if mode == "proxy":  # another trial is compared in its stead
        mode = theory.gradient_mode(theory.proxy_of(c))
    checking = None if mode == "off" else mode
    return {"loss": c.loss, "attention": c.attention, "checking": checking}


def _chosen(package: str, chosen: Mapping[str, Optional[str]]) -> Optional[str]:
    if package not in chosen:
        raise KeyError(
            f"plugins.load({package!r}, …): bench.code_roles does not know which key of a "
            "configuration chooses there; name it in _choices"
        )
    return chosen[package]


def _stands_by_itself(name: str) -> bool:
    return name == "bench" or any(
        name == one or name.startswith((f"{one}.", f"{one}_")) for one in _STANDS_BY_ITSELF
    )
