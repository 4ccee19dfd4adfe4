"""Judges a trial's gradient by its proxy: the same trial with two layers, whose reference is cheap.

What a gradient comes out as depends on split, ZeRO stage, aggregation, widths and versions; of the
depth it depends only through the layers' own backward, which two of them run as well as thirty.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench import theory
from bench.controller.code import DISK
from bench.identity import code_text
from bench.record import Record, Status
from bench.trial import Trial


class Proxies:
    """What the proxies of a sweep came to; each runs once, whatever the number of rounds.

    And once more when the code that it runs was edited meanwhile.
    """

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], dict[str, Any]] = {}

    def judge(self, trial: Trial, launch: Callable[[Trial], Record]) -> dict[str, Any]:
        """The fields `gradient` and `gradient_reason` of the record of `trial`.

        Runs its proxy with `launch` unless it ran before. Empty where `trial` has no proxy.
        """
        if theory.gradient_mode(trial.configuration) != "proxy":
            return {}
        configuration = theory.proxy_of(trial.configuration)
        key = (configuration.hash, code_text(DISK.code_of(configuration)))
        if key not in self._found:
            proxy = trial.model_copy(update={"configuration": configuration})
            self._found[key] = _fields(launch(proxy))
        return self._found[key]


def _fields(proxy: Record) -> dict[str, Any]:
    layers = proxy.config.model.layers
    if proxy.gradient is not None:
        return {"gradient": proxy.gradient.model_copy(update={"mode": "proxy"})}
    if proxy.status is Status.OK:
        why = (proxy.gradient_reason or "it has no gradient").removeprefix("not compared: ")
        reason = f"not compared: the proxy of {layers} layers: {why}"
    else:
        reason = f"not compared: the proxy of {layers} layers ended as {proxy.status.value}"
        reason += f": {proxy.reason}" if proxy.reason else ""
        reason += f"; see {proxy.log}" if proxy.log else ""
    return {"gradient_reason": reason}
