"""Records files: what is written is read again, what is damaged is passed over."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from bench.record import SCHEMA_VERSION, Record, Status
from bench.record_files import RecordsError, RecordWriter, read_records, refuse_newer_schema
from bench.trial import CommSpec, Trial
from tests import factories


def test_what_is_appended_is_read_again(tmp_path):
    written = [factories.ok(), factories.failed(round=1)]
    path = factories.write(tmp_path, *written)
    assert path.name.startswith("records-") and path.name.endswith(f"-{os.getpid()}.jsonl")
    raw = list(read_records(tmp_path))
    assert [Record.model_validate(each.content) for each in raw] == written
    assert {each.path for each in raw} == {path}


def test_a_record_is_one_line(tmp_path):
    path = factories.write(tmp_path, factories.failed(reason="line\nbreak"))
    assert path.read_bytes().count(b"\n") == 1


def test_nothing_is_created_before_the_first_record(tmp_path):
    RecordWriter(tmp_path).close()
    assert list(tmp_path.iterdir()) == []


def test_a_truncated_last_line_is_passed_over_and_named(tmp_path):
    path = factories.write(tmp_path, factories.ok(), factories.ok(round=1))
    path.write_bytes(path.read_bytes()[:-200])
    skipped = []
    assert [raw.content["round"] for raw in read_records(tmp_path, skipped)] == [0]
    assert [(s.path, s.line, s.reason) for s in skipped] == [(path, 2, "truncated or not a record")]


def test_a_foreign_schema_is_passed_over(tmp_path):
    path = factories.write(tmp_path, factories.ok())
    path.write_text(path.read_text() + '{"schema_version": 99}\n')
    skipped = []
    assert len(list(read_records(tmp_path, skipped))) == 1
    assert skipped[0].line == 2
    assert skipped[0].reason == f"schema version 99; this spbench reads 1 to {SCHEMA_VERSION}"


def test_records_of_the_first_schema_are_read_and_keep_their_hashes():
    """`results/reference` was written by the first version of the format."""
    folder = Path(__file__).resolve().parents[2] / "results" / "reference"
    found = [raw.content for raw in read_records(folder)]
    assert found and {content["schema_version"] for content in found} == {1}
    for content in found:
        record = Record.model_validate(content)
        assert record.config.hash == record.config_hash
        assert (record.config.gradient_check, record.gradient_mode) == ("auto", None)


def test_a_newer_schema_is_refused_and_an_older_or_damaged_line_is_not(tmp_path):
    path = tmp_path / "records-a-1.jsonl"
    path.write_text('{"schema_version": 0}\n{"sche')
    refuse_newer_schema(tmp_path, skipped_in(tmp_path))
    path.write_text(f'{{"schema_version": {SCHEMA_VERSION + 1}}}\n')
    with pytest.raises(
        RecordsError, match=rf"schema version {SCHEMA_VERSION + 1} \(records-a-1.jsonl, line 1\)"
    ):
        refuse_newer_schema(tmp_path, skipped_in(tmp_path))


def skipped_in(folder):
    skipped = []
    list(read_records(folder, skipped))
    return skipped


def test_two_writers_have_a_file_each(tmp_path, monkeypatch):
    first = RecordWriter(tmp_path)
    monkeypatch.setattr("bench.record_files.os.getpid", lambda: 1)
    second = RecordWriter(tmp_path)
    for round_, writer in enumerate((first, second, first, second)):
        writer.append(factories.ok(round=round_))
    first.close()
    second.close()
    assert first.path != second.path
    assert sorted(raw.content["round"] for raw in read_records(tmp_path)) == [0, 1, 2, 3]


def test_what_follows_from_the_configuration_is_filled_in():
    record = factories.ok(round=2, comm=CommSpec(name="nccl", oversubscribe=True))
    assert record.key == (record.config.hash, 2)
    assert record.trial_id == f"{record.config.hash}-r2-a0"
    assert (record.emulated, record.timings_valid) == (False, False)
    assert (factories.ok().emulated, factories.ok().timings_valid) == (True, True)


def test_whether_timings_are_valid_is_what_ranks_saw():
    shared = CommSpec(name="nccl", oversubscribe=True)
    assert factories.ok(comm=shared).timings_valid is False
    trial = Trial(configuration=factories.configuration(comm=shared), round=0)
    record = Record.of(trial, Status.OK, factories.ok().started, 1.0, timings_valid=True)
    assert record.timings_valid is True


def test_unknown_fields_and_statuses_are_refused():
    content = json.loads(factories.ok().model_dump_json())
    with pytest.raises(ValueError, match="surprise"):
        Record.model_validate({**content, "surprise": 1})
    with pytest.raises(ValueError, match="status"):
        Record.model_validate({**content, "status": "fine"})


@pytest.mark.parametrize("status", list(Status), ids=lambda s: s.value)
def test_every_status_can_be_recorded(tmp_path, status):
    factories.write(tmp_path, factories.failed(status))
    (raw,) = read_records(tmp_path)
    assert Record.model_validate(raw.content).status is status


@given(st.lists(st.binary().map(lambda text: text.replace(b"\n", b"")), max_size=5))
def test_arbitrary_lines_never_raise(tmp_path_factory, lines):
    folder = tmp_path_factory.mktemp("records")
    (folder / "records-a-1.jsonl").write_bytes(b"\n".join([*lines, b""]))
    skipped = []
    read = list(read_records(folder, skipped))
    assert len(read) + len(skipped) == len(lines)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(JSON)
def test_json_that_is_no_record_never_raises(tmp_path_factory, value):
    folder = tmp_path_factory.mktemp("records")
    (folder / "records-a-1.jsonl").write_text(json.dumps(value) + "\n")
    skipped = []
    assert list(read_records(folder, skipped)) == [] and len(skipped) == 1


def test_endless_nesting_is_passed_over(tmp_path):
    (tmp_path / "records-a-1.jsonl").write_text("[" * 100_000 + "\n")
    skipped = []
    assert list(read_records(tmp_path, skipped)) == [] and len(skipped) == 1


def test_every_field_of_a_record_is_documented():
    text = (Path(__file__).parents[2] / "results" / "README.md").read_text()
    missing = [
        f"{model.__name__}.{name}"
        for model in _models(Record)
        for name in model.model_fields
        if f"| `{name}` |" not in _section(text, model.__name__)
    ]
    assert not missing
    assert all(f"| `{status.value}` |" in text for status in Status)


def _models(model: type[BaseModel]) -> list[type[BaseModel]]:
    """`model` and all models that its fields hold."""
    inner = [
        nested
        for field in model.model_fields.values()
        for kind in (field.annotation, *get_args(field.annotation))
        if isinstance(kind, type) and issubclass(kind, BaseModel)
        for nested in _models(kind)
    ]
    return [model, *inner]


def _section(text: str, name: str) -> str:
    """The part of a Markdown text under the heading that ends with (`name`)."""
    _, _, after = text.partition(f"(`{name}`)\n")
    return after.partition("\n#")[0]
