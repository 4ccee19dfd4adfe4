"""Notebooks executed by the interpreter that runs this module, whatever kernels are installed."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from analysis.reading import AnalysisError

Result = TypeVar("Result")

CELL_TIMEOUT_S = 300
MOST_IPC_PATH = 90
"""Characters of a socket's path, its own ending aside; Linux allows 107."""


class ThisInterpreter(AsyncKernelManager):
    """A kernel of `sys.executable`: a kernel named python3 may be anything the user installed."""

    @property
    def kernel_spec(self) -> KernelSpec:
        """What jupyter_client starts; nothing is looked up."""
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=command, display_name="spbench", language="python")


def execute(paths: Sequence[Path], parameters: Mapping[str, object]) -> list[NotebookNode]:
    """The notebooks with `parameters` put in, executed side by side, each in its own folder.

    A cell that raises keeps its error as output, and the cells after it run. Raises
    AnalysisError when a kernel dies or takes too long.
    """
    with tempfile.TemporaryDirectory(prefix="spbench-report-") as private:
        try:
            return _in_thread([_execute(path, parameters, Path(private)) for path in paths])
        except (RuntimeError, TimeoutError) as error:
            raise AnalysisError(
                f"the notebooks did not come to their end ({_first_line(error)}); "
                "run `spbench report` again, with more free memory if a kernel was killed"
            ) from error


def _in_thread(tasks: Sequence[Coroutine[None, None, Result]]) -> list[Result]:
    """The results of `tasks`, run together by an event loop in a thread of its own.

    The caller may have a loop already (Jupyter does), and in the main thread nbclient would
    take over Ctrl-C, which here cancels the tasks and passes through.
    """
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Future[list[Result]]]] = Future()

    async def together() -> list[Result]:
        everything = asyncio.gather(*tasks)
        started.set_result((asyncio.get_running_loop(), everything))
        return await everything

    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(asyncio.run, together())
        try:
            return done.result()
        except KeyboardInterrupt:
            loop, everything = started.result()
            loop.call_soon_threadsafe(everything.cancel)
            raise


async def _execute(path: Path, parameters: Mapping[str, object], private: Path) -> NotebookNode:
    notebook = load_notebook_node(str(path))
    notebook = parameterize_notebook(
        notebook, dict(parameters), kernel_name="python3", language="python"
    )
    connection = str(private / f"{path.stem}.json")
    # Sockets in a private folder: no port can be taken, and no other user can listen.
    transport = "ipc" if len(connection) < MOST_IPC_PATH else "tcp"
    manager = ThisInterpreter(connection_file=connection, transport=transport)
    client = NotebookClient(
        notebook,
        km=manager,
        timeout=CELL_TIMEOUT_S,
        allow_errors=True,
        shutdown_kernel="immediate",
        resources={"metadata": {"path": str(path.parent)}},
    )
    # The user's IPython profile must not run in it, and an Agg figure needs no display.
    environment = {**os.environ, "IPYTHONDIR": str(private / "ipython"), "MPLBACKEND": "agg"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    # The client leaves a given manager's kernel running unless told otherwise.
    await client.async_execute(env=environment, cleanup_kc=True)
    return notebook


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
