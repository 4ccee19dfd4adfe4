"""The report: what the page says of a folder, whatever is in the folder."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from analysis.frame import AnalysisError, load
from analysis.report import content_of, method
from analysis.report import write as report
from bench.record import Record, Status
from tests.factories import environment, error, failed, machine, ok, worker, write
from tests.synthetic import sweep

OLD = environment("torch-2.2", "2.2.2")
ATTACK = "<script>alert(1)</script>"


def both_sides(rounds: int = 3) -> list[Record]:
    return [
        record
        for r in range(rounds)
        for record in (
            ok(
                round=r,
                step_s=0.5,
                environment=OLD,
                loss="weighted_all_reduce",
                worker=worker("2.2.2"),
            ),
            ok(round=r, step_s=0.4, loss="all_gather"),
        )
    ]


def section(page: str, name: str) -> str:
    """The text of a section, tags removed."""
    [body] = re.findall(rf'<section[^>]* id="{name}".*?</section>', page, re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


class Tags(HTMLParser):
    """What a browser would load, run or show."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.seen if name == tag]


@pytest.fixture(scope="module")
def messy(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a folder with everything that can go wrong."""
    folder = tmp_path_factory.mktemp("messy <b>folder")
    raised = error(2).model_copy(update={"traceback": f"Traceback\n{ATTACK} & more"})
    hung = {
        "ranks": [
            {"rank": r, "outcome": "interrupted", "phase": "aggregate", "stack": "File wait.py"}
            for r in (0, 1)
        ]
    }
    path = write(
        folder,
        *both_sides(),
        failed(loss="local", errors=[raised], reason=ATTACK),
        failed(loss="local", errors=[raised], reason=ATTACK, round=1),
        failed(loss="local", zero=2, errors=[raised], reason=ATTACK),
        failed(Status.HANG, loss="local_mean", **hung),
        failed(Status.UNSUPPORTED, seq_len=511, reason="seq_len=511 is not divisible by sp=2"),
        ok(loss="functional_all_reduce", noisy=[f"load {ATTACK}"]),
        ok(loss="functional_all_reduce"),  # by another sweep
        ok(machine=machine().model_copy(update={"hostname": ATTACK}), round=9),
    )
    with path.open("ab") as file:
        file.write(b'{"schema_version": 99, "trial_id": "x"}\n')
        file.write(b'"<script>"\n')
        file.write(ok(round=7).model_dump_json().encode()[:300])
    return report(folder).path.read_text(encoding="utf-8")


def test_the_page_is_made_in_the_folder_and_needs_nothing_else(messy: str) -> None:
    tags = Tags(messy)
    assert tags.all("script") == []
    sources = [attributes["src"] for attributes in tags.all("img")]
    assert len(sources) >= 6
    assert all(str(source).startswith("data:image/") for source in sources)
    assert [a["href"] for a in tags.all("link")] == ["data:,"]
    assert not re.search(r"url\(|@import|http-equiv=\"refresh\"", messy)
    assert all(str(a["href"]).startswith("#") for a in tags.all("a"))


def test_what_comes_from_records_stays_text(messy: str) -> None:
    assert "<script" not in messy
    assert "<b>folder" not in messy
    assert f"{html.escape(ATTACK)} &amp; more" in messy
    assert ATTACK in section(messy, "noisy")
    assert ATTACK in section(messy, "machine")


def test_the_answer_comes_first(messy: str) -> None:
    assert messy.index('id="answer"') < messy.index("<nav") < messy.index("<figure")
    said = section(messy, "answer")
    assert "torch-2.13 all_gather against torch-2.2 weighted_all_reduce" in said
    assert "1.25" in said
    assert "Emulated" in said


def test_the_answer_does_not_propose_the_report_that_it_stands_in(tmp_path: Path) -> None:
    write(tmp_path, ok())
    assert [line.kind for line in content_of(tmp_path, load(tmp_path))["headline"]] == [
        "right",
        "cost",
    ]


def test_every_heading_of_the_contents_leads_somewhere(messy: str) -> None:
    tags = Tags(messy)
    targets = [str(a["href"])[1:] for a in tags.all("a")]
    ids = {attributes.get("id") for _, attributes in tags.seen}
    assert len(targets) >= 10 and set(targets) <= ids


def test_every_figure_has_words(messy: str) -> None:
    words = [str(attributes["alt"]) for attributes in Tags(messy).all("img")]
    assert all(len(text) > 40 for text in words)
    assert any("The highest throughput is" in text for text in words)


def test_equal_failures_are_told_once_with_all_their_trials(messy: str) -> None:
    said = section(messy, "failures")
    assert "error IndexError in backward, rank 2 3 trials" in said
    assert said.count(f"{ATTACK} & more") == 1
    assert said.count("zero=2") == 1
    assert said.count("hang hang in aggregate, ranks 0,1 1 trial") == 1
    assert said.count("File wait.py") == 1 and "ranks 0, 1 interrupted in aggregate" in said
    assert "seq_len=511 is not divisible by sp=2" in said
    assert len(Tags(messy).all("details")) >= 4


def test_what_was_passed_over_is_named(messy: str) -> None:
    said = section(messy, "skipped")
    assert "schema version 99; this spbench reads 1" in said
    assert said.count("truncated or not a record") == 2
    assert "1 record does not count" in said


def test_machine_and_versions_are_those_that_were_seen(messy: str) -> None:
    said = section(messy, "machine")
    for fact in ("name bench", "cores 2", "memory 24.0 GiB", "torch-2.2 Python 3.11.9"):
        assert fact in said


def test_a_folder_in_which_all_failed_has_a_report(tmp_path: Path) -> None:
    write(tmp_path, *(failed(round=r, environment=OLD) for r in range(2)), failed())
    output = tmp_path / "elsewhere.html"
    assert report(tmp_path, output).path == output
    page = output.read_text(encoding="utf-8")
    assert "error IndexError in backward, ranks 2,3 3 trials" in section(page, "failures")
    assert "could not be made" not in page


def test_unusable_folders_and_outputs_are_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(AnalysisError, match="is not a folder"):
        report(tmp_path / "nowhere")
    write(tmp_path, ok())
    with pytest.raises(AnalysisError, match=r"output=.* cannot be written"):
        report(tmp_path, tmp_path / "no" / "such" / "folder.html")


def test_the_notebooks_run_in_this_interpreter_whatever_the_user_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = tmp_path / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text('{"argv": ["/nowhere/python"], "language": "python"}')
    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "first.py").write_text("raise SystemExit('the profile of the user ran')")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "results", ok())
    page = report(Path("results")).path.read_text(encoding="utf-8")
    assert "could not be made" not in page
    assert page.count("<figure") == 7


@pytest.mark.slow
def test_thousands_of_records_make_a_small_page(tmp_path: Path) -> None:
    write(tmp_path, *sweep(2000))
    assert report(tmp_path).path.stat().st_size < 10e6


def test_the_method_says_what_verdicts_rest_on(tmp_path: Path) -> None:
    exact, directional = "in float64 with dense attention", "by how the loss changes along"

    def said(*modes: str) -> tuple[bool, bool]:
        folder = tmp_path / "-".join(modes)
        folder.mkdir()
        write(folder, *(ok(gradient_mode=mode, loss=mode) for mode in modes))
        text = " ".join(method(load(folder)))
        return exact in text, directional in text

    assert said("exact") == (True, False)
    assert said("directional") == (False, True)
    assert said("directional", "exact") == (True, True)


def test_rounds_that_are_not_independent_stand_in_the_answer(tmp_path: Path) -> None:
    sides = both_sides(10)
    # Each round the candidate is 1 % faster: neighbours correlate by 57.75 / 82.5.
    slow = [
        ok(round=record.round, step_s=0.4 * 0.99**record.round, loss="all_gather")
        if record.config.loss == "all_gather"
        else record
        for record in sides
    ]
    write(tmp_path, *slow)
    [answer] = content_of(tmp_path, load(tmp_path))["answers"]
    assert any(
        "rounds are not independent: neighbours correlate by 0.70" in one
        for one in answer.sentences
    )
