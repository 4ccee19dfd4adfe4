"""One file a thing: loss aggregations, attention methods and scenarios are found by name."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType
from typing import List


class UnknownPlugin(Exception):
    """No file of that name."""


def names(package: str) -> List[str]:
    """What `bench.worker.<package>` offers: the names of its modules."""
    parent = importlib.import_module(f"bench.worker.{package}")
    return sorted(module.name for module in pkgutil.iter_modules(parent.__path__))


def load(package: str, name: str) -> ModuleType:
    """The module `bench.worker.<package>.<name>`; raises `UnknownPlugin` when there is none."""
    if name not in names(package):
        raise UnknownPlugin(
            f"{package}={name} has no file bench/worker/{package}/{name}.py; "
            f"there are: {', '.join(names(package))}"
        )
    return importlib.import_module(f"bench.worker.{package}.{name}")
