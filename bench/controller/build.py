"""Builds an environment beside its place and moves it there when it is whole."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.controller import uv
from bench.controller.interpreter import EnvironmentProblem, probe
from bench.trial import EnvironmentSpec

SPEC_FILE = "spec.json"
PACKAGES_FILE = "packages.txt"

CPU_BYTES = 1_500_000_000
"""Room that a CPU build of torch and its packages need, uv's cache included."""
CUDA_BYTES = 8_000_000_000
"""The same with NVIDIA's libraries, which torch's default builds on Linux bring."""


def requirements(spec: EnvironmentSpec) -> list[str]:
    """All that is installed into the environment, in pip's syntax."""
    return [f"torch=={spec.torch}", f"deepspeed=={spec.deepspeed}", *spec.requirements]


def build(spec: EnvironmentSpec, place: Path, report: uv.Report) -> None:
    """Make the environment `spec` at `place`; the caller holds its lock.

    Nothing is at `place` before everything is: uv works in a folder beside it, which is renamed
    at the end, and removed on a failure or an interrupt. What an earlier process that was
    killed left half-made is removed first. Raises `EnvironmentProblem`.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    for leftover in place.parent.glob(f"{place.name}.partial-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    require_disk(spec, place.parent)
    with _beside(place) as folder:
        _install(spec, folder, report)
        report(f"environment '{spec.name}': checking")
        described = _describe(spec, folder)
        (folder / SPEC_FILE).write_text(json.dumps(described, indent=2) + "\n")
        if place.exists():  # complete once, but its base interpreter is gone
            discard(place)
        folder.rename(place)


def discard(place: Path) -> None:
    """Remove an environment so that at no moment a part of it looks like the whole."""
    doomed = Path(tempfile.mkdtemp(prefix=f"{place.name}.partial-", dir=place.parent))
    place.rename(doomed / place.name)
    shutil.rmtree(doomed)


def require_disk(spec: EnvironmentSpec, folder: Path) -> None:
    """Raise `EnvironmentProblem` unless the disk of `folder` has room for the environment."""
    needed = CPU_BYTES if _is_cpu_build(spec) else CUDA_BYTES
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise EnvironmentProblem(
            f"environment '{spec.name}' needs about {needed / 1e9:.1f} GB, but the disk of "
            f"{folder} has {free / 1e9:.1f} GB free; free some space (`spbench env list` shows "
            "what environments take), set SPBENCH_CACHE to a folder on a larger disk, or choose "
            "environment.torch_backend=cpu (about 1.5 GB)",
            "machine",
        )


def _is_cpu_build(spec: EnvironmentSpec) -> bool:
    """Whether torch will come without NVIDIA's libraries, as far as one can tell beforehand."""
    if spec.torch_backend == "cpu":
        return True
    links = uv.find_links(dict(os.environ)) or ""
    wheels = f"torch-{spec.torch}+cpu-*.whl"
    return any(next(Path(link).glob(wheels), None) for link in links.split(",") if link)


@contextlib.contextmanager
def _beside(place: Path) -> Iterator[Path]:
    """A folder beside `place`, removed at the end unless it was renamed."""
    folder = Path(tempfile.mkdtemp(prefix=f"{place.name}.partial-", dir=place.parent))
    try:
        folder.chmod(0o755)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _install(spec: EnvironmentSpec, folder: Path, report: uv.Report) -> None:
    """Make a virtual environment of `folder` and install everything."""
    # uv's relocatable environments have scripts and a pyvenv.cfg that survive the rename.
    venv = ["venv", "--relocatable", "--no-project", "--allow-existing", "--prompt", spec.name]
    if spec.python_version is not None:
        venv += ["--python", spec.python_version]
    uv.run([*venv, str(folder)], folder, spec.name)
    # DeepSpeed imports for 5 s with bytecode, for 20 s without.
    install = ["pip", "install", "--compile-bytecode", "--python", str(folder / "bin" / "python")]
    if spec.torch_backend is not None:
        install += ["--torch-backend", spec.torch_backend]
    uv.run([*install, "--", *requirements(spec)], folder, spec.name, report)
    freeze = ["pip", "freeze", "--python", str(folder / "bin" / "python")]
    uv.run(freeze, folder, spec.name, output=folder / PACKAGES_FILE)


def _describe(spec: EnvironmentSpec, folder: Path) -> dict[str, object]:
    """What `spec.json` holds: the request and what came of it."""
    versions = probe(folder / "bin" / "python")
    sizes = (entry.lstat().st_size for entry in folder.rglob("*") if not entry.is_dir())
    return {
        "spec": spec.model_dump(mode="json"),
        "python": ".".join(map(str, versions.python)),
        "torch": versions.torch,
        "deepspeed": versions.deepspeed,
        "size_bytes": sum(sizes),
    }
