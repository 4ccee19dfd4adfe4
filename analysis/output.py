"""Files that people asked for: whole, or not there and said why."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from analysis.reading import AnalysisError
from bench.whole_file import OF_THE_NAME, whole_file


@contextmanager
def output_file(path: Path, option: str = "output=") -> Iterator[Path]:
    """Where to write what becomes `path`, which `option` named: see `bench.whole_file`.

    Raises AnalysisError where there can be no such file, and OSError for what is no fault of its
    name, such as a full disk.
    """
    try:
        with whole_file(path) as partial:
            yield partial
    except OSError as error:
        if error.errno not in OF_THE_NAME:
            raise
        raise AnalysisError(
            f"{option}{path} cannot be written ({error.strerror}); choose another"
        ) from error
