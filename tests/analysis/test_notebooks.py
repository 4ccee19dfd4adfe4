"""The notebooks: without outputs in git, and at home in papermill and in a live Jupyter."""

from __future__ import annotations

from pathlib import Path

import nbformat
import papermill
import psutil
import pytest

from analysis.execution import execute
from analysis.report import HERE
from analysis.sections import all_notebooks
from tests.factories import ok, write

NOTEBOOKS = all_notebooks()
PATHS = [HERE / "notebooks" / f"{name}.ipynb" for name in NOTEBOOKS]


def test_the_report_holds_every_notebook() -> None:
    assert sorted(PATHS) == sorted((HERE / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", PATHS, ids=NOTEBOOKS)
def test_no_outputs_in_git(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert notebook.metadata.keys() == {"kernelspec", "language_info"}


@pytest.mark.parametrize("path", PATHS, ids=NOTEBOOKS)
def test_papermill_knows_the_parameter(path: Path) -> None:
    assert list(papermill.inspect_notebook(str(path))) == ["results", "across_machines"]


def test_paths_are_absolute_or_relative_to_the_repository(tmp_path: Path) -> None:
    write(tmp_path, ok())
    relative = Path(*[".."] * (len(HERE.parts) - 2)) / tmp_path.relative_to("/")
    for results in (tmp_path, relative):
        for notebook in execute(PATHS, {"results": str(results)}):
            kinds = [out.output_type for cell in notebook.cells for out in cell.get("outputs", [])]
            assert kinds and set(kinds) == {"display_data"}


def test_a_cell_that_fails_keeps_its_error_and_the_others_run(tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell("results = 1", metadata={"tags": ["parameters"]}),
            nbformat.v4.new_code_cell("1 / 0"),
            nbformat.v4.new_code_cell("print(results)"),
        ]
    )
    path = tmp_path / "failing.ipynb"
    nbformat.write(notebook, path)
    [done] = execute([path], {"results": 42})
    *_, failing, printing = done.cells
    assert failing.outputs[0].ename == "ZeroDivisionError"
    assert printing.outputs[0].text == "42\n"


def test_an_interrupt_passes_through_and_ends_the_kernels(tmp_path: Path) -> None:
    cells = [
        nbformat.v4.new_code_cell("path = ''", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(
            "import os, pathlib, signal, time\n"
            "pathlib.Path(path).write_text(str(os.getpid()))\n"
            "os.kill(os.getppid(), signal.SIGINT)\n"
            "time.sleep(60)"
        ),
    ]
    notebook = tmp_path / "endless.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), notebook)
    started = tmp_path / "kernel"
    with pytest.raises(KeyboardInterrupt):
        execute([notebook], {"path": str(started)})
    assert not psutil.pid_exists(int(started.read_text()))
