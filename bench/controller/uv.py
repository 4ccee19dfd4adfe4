"""uv, which makes environments: how it is called, and what its complaints mean."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.controller.interpreter import EnvironmentProblem, bare_environment, end_group

Report = Callable[[str], None]

_KEPT_LINES = 4
"""Lines of uv's own last words that a message repeats."""
_PROGRESS = re.compile(r"^(Resolved|Downloading|Building|Prepared|Installed|Bytecode compiled) ")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")

# What uv says, what that means, and the stage that it failed at.
_CAUSES: tuple[tuple[str, str, str], ...] = (
    (
        r"No space left on device|os error 28|Disk quota exceeded",
        "the disk is full; free some space (`spbench env list` shows what environments take), or "
        "set SPBENCH_CACHE and UV_CACHE_DIR to a disk that has it",
        "machine",
    ),
    (
        r"network was disabled|dns error|tcp connect error|Connection refused|error sending request"
        r"|timed out|Network is unreachable|certificate",
        "the package index cannot be reached; check the network (uv does not read pip's "
        "configuration: set UV_DEFAULT_INDEX, UV_FIND_LINKS or SSL_CERT_FILE where pip needs them)",
        "machine",
    ),
    (
        r"No interpreter found|Python download|No download found",
        "there is no suitable Python; install one, or change environment.python_version",
        "resolve",
    ),
    (
        r"Failed to parse|no such comparison operator",
        "a requirement is not in pip's syntax; correct environment.torch, environment.deepspeed "
        "or environment.requirements",
        "resolve",
    ),
    (
        r"No solution found|no version of|was not found in the package registry",
        "no such version, or the requirements exclude one another; change environment.torch, "
        "environment.deepspeed, environment.requirements or environment.python_version",
        "resolve",
    ),
    (
        r"Failed to build|Build backend|failed to build",
        "a package failed to build from source; choose a version that has a wheel, or install "
        "what its build asks for",
        "install",
    ),
)


def binary() -> str:
    """Path of uv: the one installed beside spbench, else the one on the PATH."""
    try:
        from uv import find_uv_bin
    except ImportError:
        found = shutil.which("uv")
    else:
        with contextlib.suppress(FileNotFoundError):
            return os.fspath(find_uv_bin())
        found = shutil.which("uv")
    if found is None:
        raise EnvironmentProblem(
            "uv, which makes the environments, is not installed; run `pip install uv`, "
            "or start spbench by its own ./spbench",
            "machine",
        )
    return found


def find_links(environ: dict[str, str]) -> str | None:
    """`UV_FIND_LINKS`, or pip's setting (separated by spaces, uv's by commas) when unset."""
    if "UV_FIND_LINKS" in environ:
        return environ["UV_FIND_LINKS"]
    return ",".join(environ.get("PIP_FIND_LINKS", "").split()) or None


def run(
    arguments: Sequence[str],
    folder: Path,
    subject: str,
    report: Report | None = None,
    output: Path | None = None,
) -> None:
    """Run uv in `folder`; what it prints on stdout goes to the file `output`.

    `subject` names the environment in messages; `report` gets uv's lines about its progress.
    The whole process group is killed when this is interrupted. Raises `EnvironmentProblem`
    with the cause in words and uv's last lines.
    """
    environ = bare_environment()
    links = find_links(environ)
    if links is not None:
        environ["UV_FIND_LINKS"] = links
    with (output or Path(os.devnull)).open("w") as stdout:
        process = subprocess.Popen(
            [binary(), *arguments],
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        try:
            said = _listen(process, report)
            code = process.wait()
        finally:
            end_group(process)
    if code:
        raise EnvironmentProblem(explain(subject, said, code), stage_of(said))


def stage_of(said: Sequence[str]) -> str:
    """How far a failed uv came, as `EnvironmentProblem.stage` has it; `said` are its lines."""
    text = "\n".join(said)
    return next((stage for pattern, _, stage in _CAUSES if re.search(pattern, text)), "install")


def explain(subject: str, said: Sequence[str], code: int) -> str:
    """One message for a failed uv: the cause in words, then uv's own last lines."""
    text = "\n".join(said)
    cause = next(
        (words for pattern, words, _ in _CAUSES if re.search(pattern, text)),
        f"uv failed with exit code {code}; run the same with a newer uv, or report it",
    )
    own = [line for line in said if line.strip() and not line.startswith(("Using ", "warning"))]
    errors = [place for place, line in enumerate(own) if line.startswith("error")]
    own = own[errors[-1] :][:_KEPT_LINES] if errors else own[-_KEPT_LINES:]
    return f"environment '{subject}': {cause}\n" + "\n".join(f"  uv: {line}" for line in own)


def _listen(process: subprocess.Popen[str], report: Report | None) -> list[str]:
    """Read uv's stderr to its end, passing on the lines about its progress."""
    assert process.stderr is not None
    said = []
    for raw in process.stderr:
        line = _COLOURS.sub("", raw).rstrip()
        said.append(line)
        if report is not None and _PROGRESS.match(line.strip()):
            report(line.strip())
    return said
