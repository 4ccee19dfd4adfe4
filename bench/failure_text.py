"""The one line of an exception's message that says what is wrong.

Shared by the controller, which writes it into records, and the analysis, which reads records of
versions that did not; standard library only.
"""

from __future__ import annotations

import re

MOST_CHARACTERS = 200

_VALIDATION = re.compile(r"(\d+) validation errors? for ")
_COMPILER = re.compile(r"(?:fatal )?error: ")
_DETAILS = re.compile(r"\s*(\[type=[^\]]*\]?|\(type=[^)]*\)?)$")
_LAST_ERROR = "Last error:"
"""What NCCL says behind the name of its status."""


def useful_line(message: str, traceback: str = "") -> str:
    """What `message` says, on one line; the statement that raised where it says nothing.

    pydantic: the field and why it was refused, not how many errors there are. A compiler's
    output: its first error. A line that ends with a colon: together with the next. NCCL: its
    status and its last error. Otherwise the first line.
    """
    lines = [line.strip() for line in message.splitlines()]
    lines = [line for line in lines if re.search(r"\w", line)]
    if not lines:
        return _cut(_statement(traceback))
    match = _VALIDATION.match(lines[0])
    if match and len(lines) > 2:
        more = f" (and {int(match[1]) - 1} more)" if int(match[1]) > 1 else ""
        return _cut(f"{lines[1]}: {_DETAILS.sub('', lines[2])}") + more
    compiler = next((line for line in lines[1:] if _COMPILER.search(line)), None)
    if compiler is not None:
        return _cut(compiler)
    if _LAST_ERROR in lines[:-1]:
        return _cut(f"{lines[0]}: {lines[lines.index(_LAST_ERROR) + 1]}")
    if lines[0].endswith(":") and len(lines) > 1:
        return _cut(f"{lines[0]} {lines[1]}")
    return _cut(lines[0])


def _statement(traceback: str) -> str:
    """The last line of source in a traceback; empty where it shows none."""
    lines = traceback.splitlines()
    places = [index for index, line in enumerate(lines) if line.startswith('  File "')]
    below = lines[places[-1] + 1 : places[-1] + 2] if places else []
    return below[0].strip() if below and below[0].startswith("    ") else ""


def _cut(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 1]}…"
