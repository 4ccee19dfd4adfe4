"""Options that DeepSpeed never asks for: it passes over a misspelt one at the top level silently.

Below the top level (`zero_optimization`, …) its own models refuse what they do not know.
"""

from __future__ import annotations

import difflib
from typing import Any, Dict, Mapping, Set

import deepspeed


class UnaskedOption(ValueError):
    """An option that DeepSpeed did not ask for; the doctor knows it by this name."""


class Watched(Dict[str, Any]):
    """A DeepSpeed configuration that notes the keys it is asked for.

    DeepSpeed reads a shallow copy; `copy.copy` shares the notes.
    """

    def __init__(self, content: Mapping[str, Any]) -> None:
        super().__init__(content)
        self.asked: Set[Any] = set()

    def __getitem__(self, key: Any) -> Any:
        self.asked.add(key)
        return super().__getitem__(key)

    def __contains__(self, key: Any) -> bool:
        self.asked.add(key)
        return super().__contains__(key)

    def get(self, key: Any, default: Any = None) -> Any:
        """The value, as `dict.get` does."""
        self.asked.add(key)
        return super().get(key, default)

    def refuse_unasked(self, options: Mapping[str, Any]) -> None:
        """Raise UnaskedOption when DeepSpeed did not ask for one of the user's `options`."""
        for name in options:
            if name not in self.asked:
                near = difflib.get_close_matches(name, [str(one) for one in self.asked], 1)
                hint = f"; did you mean '{near[0]}'?" if near else ""
                raise UnaskedOption(
                    f"deepspeed.{name}: DeepSpeed {deepspeed.__version__} does not look at this "
                    f"option, so it would change nothing{hint}"
                )
