"""In which order a sweep runs its trials."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import TypeVar

from bench.trial import Configuration, Trial

Item = TypeVar("Item")


def interleave(configurations: Sequence[Configuration], rounds: int, seed: int) -> Iterator[Trial]:
    """Every configuration once a round, each round in an order of its own (see `round_of`).

    A drift of the machine then hits all configurations alike. One that cannot run comes
    once, first: its record says why, and repeating it would say nothing new.
    """
    able = []
    for configuration in configurations:
        if configuration.unsupported_reasons():
            yield Trial(configuration=configuration, round=0)
        else:
            able.append(configuration)
    for round_ in range(rounds):
        yield from round_of(able, round_, seed)


def round_of(configurations: Sequence[Configuration], round_: int, seed: int) -> Iterator[Trial]:
    """Shuffled, but what is likely to be compared stays close in time.

    A machine drifts within a round too: neighbouring trials differ less than distant ones. So
    the problems come in random order, within each its splits, and within those the rest
    (environments, aggregations, options).
    """
    order = list(configurations)
    random.Random(f"{seed}/{round_}").shuffle(order)
    for key in (_split, _problem):  # the inner grouping first: the outer one leaves it whole
        order = _together(order, key)
    for configuration in order:
        yield Trial(configuration=configuration, round=round_)


def _together(items: Iterable[Item], key: Callable[[Item], Hashable]) -> list[Item]:
    """Those with the same `key` next to each other, in the order in which each key comes first."""
    groups: dict[Hashable, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(itertools.chain.from_iterable(groups.values()))


def _problem(c: Configuration) -> Hashable:
    """What is to be computed."""
    return c.scenario, c.model, c.dtype, c.seq_len, c.micro_batch, c.mask


def _split(c: Configuration) -> Hashable:
    """What is to be computed, and over which ranks it is spread."""
    return _problem(c), c.world, c.sp, c.zero


def by_environment(trials: Iterable[Trial]) -> list[Trial]:
    """`trials` with all rounds of an environment together: then it is made once, not every round.

    The price is that a drift of the machine no longer hits all environments alike.
    """
    return _together(trials, lambda trial: trial.configuration.environment)
