"""From axes to points: which configurations a sweep visits.

Hydra's own path composes every point from its YAML files again (some 50 ms). Points differ
mostly in plain values, so the files are composed once for each combination of group choices,
and plain values are put into a copy.
"""

from __future__ import annotations

import itertools
import math
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from hydra.core.config_loader import ConfigLoader
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType, RangeSweep
from omegaconf import DictConfig, OmegaConf, open_dict

from bench.controller.config import SWEEP_KEYS, keys, to_configuration
from bench.controller.messages import ConfigurationError, explain_hydra, is_hydra_error
from bench.trial import Configuration, EnvironmentSpec

MAX_POINTS = 10_000
"""Combinations of one sweep: composing each takes some 3 ms, and running it seconds."""


@dataclass(frozen=True)
class Point:
    """One combination of the axes' values."""

    overrides: tuple[str, ...]
    """What a launcher composes it from."""
    configuration: Configuration


class Composer:
    """Composes configurations for the points of one sweep.

    `config` is the sweep's own composed configuration. `gpus` is passed to
    `to_configuration`.
    """

    def __init__(self, loader: ConfigLoader, config: DictConfig, gpus: Optional[int]) -> None:
        self._loader = loader
        self._config = config
        self._gpus = gpus
        self._parser = OverridesParser.create(config_loader=loader)
        self._parsed: dict[str, Override] = {}
        self._is_folder: dict[str, bool] = {}
        self._bases: dict[tuple[str, ...], tuple[DictConfig, bytes]] = {}
        self._made: dict[tuple[str, ...], Configuration] = {}

    def expand(self, params: Mapping[str, Any], arguments: Sequence[str]) -> list[tuple[str, ...]]:
        """The override lists of all points: the axes of an experiment and the command line.

        The command line wins where both name a key. Raises `ConfigurationError`.
        """
        if not isinstance(params, Mapping):
            raise ConfigurationError(
                f"hydra.sweeper.params={params}: must be a mapping of keys to values; or write the "
                "axes themselves, key=a,b"
            )
        chosen: dict[str, list[str]] = {}
        for text in [f"{key}={value}" for key, value in params.items()] + list(arguments):
            override = self._parse(text)
            key = override.key_or_group
            if override.package is not None:
                key += f"@{override.package}"
            chosen[key] = self._values(override)
        combinations = math.prod(map(len, chosen.values()))
        if combinations > MAX_POINTS:
            raise ConfigurationError(
                _too_many(f"{combinations:,}", max(chosen, key=_length(chosen)))
            )
        return list(itertools.product(*chosen.values()))

    def configuration(self, overrides: Sequence[str]) -> Configuration:
        """The configuration that `overrides` make; raises `ConfigurationError`."""
        made = tuple(overrides)
        if made not in self._made:
            self._made[made] = self._make(made)
        return self._made[made]

    def _make(self, overrides: tuple[str, ...]) -> Configuration:
        parsed = [self._parse(text) for text in overrides]
        values = [one for one in parsed if not self._is_group(one)]
        groups = tuple(one.input_line or "" for one in parsed if self._is_group(one))
        base, pickled = self._base(groups)
        if all(one.type is OverrideType.CHANGE for one in values):
            cfg = pickle.loads(pickled)
            for one in values:
                self._apply(cfg, one)
        else:  # additions and deletions depend on the order; leave them to Hydra
            cfg = self._compose(overrides)
        chosen = OmegaConf.to_container(base.environment)
        assert isinstance(chosen, dict)
        return to_configuration(cfg, self._gpus, chosen)  # type: ignore[arg-type]

    def _values(self, override: Override) -> list[str]:
        line = override.input_line or ""
        if not override.is_sweep_override():
            return [line]
        if override.key_or_group.partition(".")[0] in SWEEP_KEYS:
            raise ConfigurationError(
                f"{line}: '{override.key_or_group}' is for the sweep as a whole and no axis; "
                "allowed: one value"
            )
        if not override.is_discrete_sweep():
            raise ConfigurationError(
                f"{line}: an interval has no points to visit; allowed: a,b,c or "
                "choice(a,b), range(start,stop,step), glob(pattern)"
            )
        key = override.get_key_element()
        whole = override.value()
        if isinstance(whole, RangeSweep) and _steps(whole) > MAX_POINTS:  # one to shuffle is listed
            raise ConfigurationError(_too_many(f"over {MAX_POINTS:,}", key))
        texts = itertools.islice(override.sweep_string_iterator(), MAX_POINTS + 1)
        values = [f"{key}={value}" for value in texts]
        if len(values) > MAX_POINTS:
            raise ConfigurationError(_too_many(f"over {MAX_POINTS:,}", key))
        if not values:
            raise ConfigurationError(f"{line}: this axis has no values; give at least one")
        return values

    def _parse(self, text: str) -> Override:
        if text not in self._parsed:
            try:
                [self._parsed[text]] = self._parser.parse_overrides([text])
            except Exception as error:
                raise self._explained(error) from error
        return self._parsed[text]

    def _is_group(self, override: Override) -> bool:
        if override.package is not None:
            return True
        key = override.key_or_group
        if key not in self._is_folder:
            options = self._loader.get_group_options(key, ObjectType.CONFIG)
            self._is_folder[key] = bool(options)
        return self._is_folder[key]

    def _base(self, groups: tuple[str, ...]) -> tuple[DictConfig, bytes]:
        """What `groups` choose, and its pickle: a copy by that is several times as fast."""
        if groups not in self._bases:
            base = self._compose(groups)
            self._bases[groups] = base, pickle.dumps(base)
        return self._bases[groups]

    def _compose(self, overrides: Sequence[str]) -> DictConfig:
        try:
            cfg = self._loader.load_sweep_config(self._config, list(overrides))
        except Exception as error:
            raise self._explained(error) from error
        with open_dict(cfg):
            del cfg["hydra"]
        return cfg

    def _apply(self, cfg: DictConfig, override: Override) -> None:
        try:
            OmegaConf.update(cfg, override.key_or_group, override.value(), merge=True)
        except Exception as error:
            raise self._explained(error) from error

    def _explained(self, error: Exception) -> Exception:
        return explain_hydra(error, keys()) if is_hydra_error(error) else error


def _steps(values: RangeSweep) -> float:
    """About how many values a range has; none where Hydra will refuse it."""
    start, stop = values.start or 0, values.stop
    if stop is None or not values.step:
        return 0
    return max(0.0, (stop - start) / values.step)


def _too_many(combinations: str, axis: str) -> str:
    return (
        f"{axis}: the axes have {combinations} combinations, and a sweep at most {MAX_POINTS:,}; "
        "give fewer values, or run several sweeps into one folder"
    )


def _length(chosen: Mapping[str, Sequence[str]]) -> Callable[[str], int]:
    return lambda key: len(chosen[key])


def plan(composer: Composer, params: Mapping[str, Any], arguments: Sequence[str]) -> list[Point]:
    """Every distinct configuration of a sweep, in the order of the axes.

    Points that cannot run stay in it (they leave records); a sweep of nothing else, and any
    value that is wrong in itself, raises `ConfigurationError`.
    """
    points: dict[str, Point] = {}
    for overrides in composer.expand(params, arguments):
        configuration = composer.configuration(overrides)
        points.setdefault(configuration.hash, Point(overrides, configuration))
    _refuse_equal_names(point.configuration.environment for point in points.values())
    reasons = [point.configuration.unsupported_reasons() for point in points.values()]
    if all(reasons):
        many = f" (none of the {len(reasons)} combinations can run)" if len(reasons) > 1 else ""
        raise ConfigurationError(f"{'; '.join(reasons[0])}{many}")
    return list(points.values())


def _refuse_equal_names(environments: Iterable[EnvironmentSpec]) -> None:
    named: dict[str, EnvironmentSpec] = {}
    for spec in environments:
        other = named.setdefault(spec.name, spec)
        if other != spec:
            raise ConfigurationError(
                f"environment.name={spec.name}: two different environments of this sweep have that "
                "name; choose one with environment=NAME, or run two sweeps"
            )
