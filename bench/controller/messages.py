"""One line for every way in which an override can be wrong: what Hydra, OmegaConf and
pydantic raise becomes a `ConfigurationError` that names the key, the value, what is
allowed and the nearest valid name.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

_TYPES = {
    "Integer": "a whole number",
    "Float": "a number",
    "float": "a number",
    "bool": "true or false",
    "Boolean": "true or false",
}


_MOST_SAID = 300
REQUIRED = (
    "attention",
    "comm",
    "dtype",
    "environment",
    "loss",
    "model",
    "scenario",
    "seq_len",
    "sp",
    "world",
    "zero",
)
"""Keys without which no trial is described."""


class ConfigurationError(Exception):
    """A sweep cannot be run as asked; the message names key, value and what is allowed."""


def hint(name: str, allowed: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest of `allowed`, or nothing."""
    near = difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else ""


def unknown_key(key: str, keys: Iterable[str]) -> ConfigurationError:
    """An override of a key that does not exist; `keys` are the dotted names that do."""
    keys = list(keys)
    parent, _, _ = key.rpartition(".")
    siblings = [known for known in keys if parent and known.rpartition(".")[0] == parent]
    if siblings:
        allowed = ", ".join(known.rpartition(".")[2] for known in siblings)
        return ConfigurationError(f"{key}: unknown key; allowed: {allowed}{hint(key, siblings)}")
    near = difflib.get_close_matches(key, keys, n=1, cutoff=0.6)
    if not near:  # the right word at the wrong level: `layers` for `model.layers`
        last = {known.rpartition(".")[2]: known for known in keys}
        near = [last[word] for word in difflib.get_close_matches(key.rpartition(".")[2], last, n=1)]
    advice = f"did you mean '{near[0]}'?" if near else "allowed: see `spbench sweep --cfg job`"
    return ConfigurationError(f"{key}: unknown key; {advice}")


def unknown_option(group: str, option: str, options: Iterable[str]) -> ConfigurationError:
    """A group choice that no file defines."""
    options = sorted(options)
    allowed = ", ".join(options) or f"nothing (there is no conf/{group}/)"
    return ConfigurationError(
        f"{group}={option}: unknown {group}; allowed: {allowed}{hint(option, options)}"
    )


def explain_pydantic(error: ValidationError, keys: Iterable[str]) -> ConfigurationError:
    """The first fault that pydantic found, in our words."""
    fault = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in fault["loc"])
    value = fault["input"]
    if fault["type"] == "extra_forbidden":
        return unknown_key(key, keys)
    if fault["type"] == "value_error":  # our own validators already name key and value
        return ConfigurationError(str(fault["ctx"]["error"]))
    if fault["type"] == "literal_error":
        expected = fault["ctx"]["expected"].replace("'", "").replace(" or ", ", ")
        near = hint(str(value), expected.split(", "))
        return ConfigurationError(f"{key}={value}: not allowed; allowed: {expected}{near}")
    bounds = {
        "greater_than": ("gt", "greater than"),
        "greater_than_equal": ("ge", "at least"),
        "less_than_equal": ("le", "at most"),
        "less_than": ("lt", "less than"),
    }
    if fault["type"] in bounds:
        bound, words = bounds[fault["type"]]
        limit = fault["ctx"][bound]
        return ConfigurationError(f"{key}={value}: must be {words} {limit:g}")
    if fault["type"] == "string_pattern_mismatch":  # names are all that has a pattern
        return ConfigurationError(f"{key}={value}: must be 1 to 100 of letters, digits, ._+<>=!~-")
    if fault["type"] == "dict_type":
        return ConfigurationError(f"{key}={value}: must be a mapping; write {key}.name=value")
    return ConfigurationError(f"{key}={value}: {fault['msg']}")


def explain_hydra(error: Exception, keys: Iterable[str]) -> ConfigurationError:
    """What Hydra or OmegaConf refused, in our words."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.rpartition("/")
        return unknown_option(group, option, error.options or ())
    if isinstance(error, OverrideParseException):
        reason = _sentence(error.message)
        return ConfigurationError(
            f"{error.override}: not an override ({reason}); write key=value, or key=a,b for an axis"
        )
    texts = list(_messages(error))
    text = "\n".join(texts)
    missing = re.search(r"[Kk]ey '([^']+)' (?:is )?not in", text)
    full = re.search(r"full_key: (\S+)", text)
    if missing and full:  # of the mapping that an override gives, say
        return unknown_key(full[1], keys)
    if match := re.search(r"Could not override '([^']+)'", text) or missing:
        return unknown_key(match[1], keys)
    if match := re.search(r"[Vv]alue '(.*?)'.* could not be converted to (\w+)", text):
        return _wrong_type(text, match[1], match[2])
    if match := re.search(r"Value '(.*?)' is not a valid (bool)", text):
        return _wrong_type(text, match[1], match[2])
    return ConfigurationError(_sentence(text))


def refuse_key(key: str, argument: str) -> None:
    """Refuse an override without a key, or of one that is not the caller's to set or leave out."""
    removed = key.removeprefix("~")
    if key != removed and removed in REQUIRED:
        raise ConfigurationError(f"{argument}: {removed} cannot be left out; write {removed}=VALUE")
    if removed.lstrip("+") == "hydra.mode" and argument != f"{key}=MULTIRUN":
        raise ConfigurationError(f"{argument}: spbench always runs a sweep; leave hydra.mode out")
    if argument.startswith("=") or key in ("+", "++", "~"):
        raise ConfigurationError(f"{argument}: has no key; write key=value")


def not_understood(error: Exception, given: Sequence[str]) -> ConfigurationError:
    """The overrides `given`, on which Hydra itself failed."""
    why = (_sentence(str(error)).partition(" : Override(")[0] or type(error).__name__)[:_MOST_SAID]
    these = "this override" if len(given) == 1 else "these overrides"
    return ConfigurationError(
        f"{' '.join(given)}: no configuration follows from {these} ({why}); "
        "write key=value, or key=a,b for an axis"
    )


def is_hydra_error(error: Exception) -> bool:
    """Whether `explain_hydra` can speak for `error`."""
    return isinstance(error, (HydraException, OmegaConfBaseException))


def _wrong_type(text: str, value: str, wanted: str) -> ConfigurationError:
    full = re.search(r"full_key: (\S+)", text)
    key = f"{full[1]}=" if full else ""
    return ConfigurationError(f"{key}{value}: must be {_TYPES.get(wanted, wanted)}")


def _messages(error: BaseException | None) -> Iterator[str]:
    while error is not None:
        yield str(error)
        error = error.__cause__


def _sentence(text: str) -> str:
    """The text on one line, without bookkeeping and links to the grammar."""
    noise = ("full_key", "object_type", "See http", "Error parsing override")
    lines = [line.strip() for line in text.splitlines()]
    kept = [line for line in lines if line and not line.startswith(noise)]
    return "; ".join(dict.fromkeys(kept))
