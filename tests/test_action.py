"""action.yml: its steps, run in a shell as GitHub's runner does; only `gh` is a stand-in."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.record_files import record_files
from tests.conftest import ROOT

ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
STEPS = {step["name"]: step for step in ACTION["runs"]["steps"]}
GH = '#!/usr/bin/env bash\nprintf "%s\\n" "$@" "token $GH_TOKEN" >"$GH_ARGUMENTS"\n'


class Job:
    """A job with one step that uses the action."""

    def __init__(self, folder: Path, **inputs: str) -> None:
        self.folder = folder
        self.inputs = {name: str(one.get("default", "")) for name, one in ACTION["inputs"].items()}
        self.inputs |= inputs
        self.outputs: dict[str, str] = {}
        for name in ("output", "summary", "gh-arguments"):
            (folder / name).touch()
        (folder / "bin").mkdir(exist_ok=True)
        gh = folder / "bin" / "gh"
        gh.write_text(GH)
        gh.chmod(0o755)

    def run(self, name: str) -> subprocess.CompletedProcess[str]:
        """Run a step as the runner does, and take what it says are its outputs."""
        step = STEPS[name]
        assert step["shell"] == "bash"
        script = self.folder / "step.sh"
        script.write_text(step["run"])
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", script],
            cwd=self.folder,
            env={**os.environ, **self._runner(), **self._environment(step)},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        for line in (self.folder / "output").read_text().splitlines():
            key, _, value = line.partition("=")
            self.outputs[f"steps.{step.get('id')}.outputs.{key}"] = value
        (self.folder / "output").write_text("")
        return done

    def _runner(self) -> dict[str, str]:
        return {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "RUNNER_TEMP": str(self.folder),
            "GITHUB_OUTPUT": str(self.folder / "output"),
            "GITHUB_STEP_SUMMARY": str(self.folder / "summary"),
            "GH_ARGUMENTS": str(self.folder / "gh-arguments"),
            "COLUMNS": "120",
        }

    def _environment(self, step: Mapping[str, Any]) -> dict[str, str]:
        """The step's `env`, its expressions replaced."""
        known = {
            "github.action_path": str(ROOT),
            "github.token": "secret",
            "github.repository": "someone/something",
            "github.event.pull_request.number": "7",
            **{f"inputs.{name}": value for name, value in self.inputs.items()},
            **self.outputs,
        }

        def value(text: str) -> str:
            for _ in range(2):  # a default may hold an expression itself
                text = re.sub(r"\$\{\{ *([\w.]+) *\}\}", lambda found: known[found[1]], text)
            return text

        return {name: value(str(text)) for name, text in step.get("env", {}).items()}


def test_every_input_and_step_is_described() -> None:
    assert all(one["description"] for one in ACTION["inputs"].values())
    assert list(STEPS) == ["Sweep", "Compare", "Comment"]
    text = (ROOT / "action.yml").read_text()
    named = set(re.findall(r"inputs\.([\w-]+)", text))
    assert named == set(ACTION["inputs"])


def test_no_expression_stands_in_a_script() -> None:
    """What a user of the action writes reaches scripts by variables, never as their text."""
    assert not any("${{" in step["run"] for step in STEPS.values())


@pytest.mark.environment
def test_a_job_runs_compares_comments_and_fails_on_a_wrong_gradient(tmp_path: Path) -> None:
    overrides = (
        "+experiment=single environment=torch-2.13 loss=weighted_all_reduce 'seq_len=64' "
        "steps=1 warmup_steps=1 rounds=1"
    )
    first = Job(tmp_path, overrides=overrides, results="before", baseline="before")
    swept = first.run("Sweep")
    assert swept.returncode == 0, swept.stdout + swept.stderr
    shutil.copytree(tmp_path / "before", tmp_path / "now")

    job = Job(tmp_path, overrides=overrides, results="now", baseline="before")
    assert job.run("Sweep").returncode == 0  # its records are there already
    same = job.run("Compare")
    assert same.returncode == 0, same.stdout + same.stderr
    assert "::error" not in same.stdout and "::notice title=spbench%3A results=now" in same.stdout
    summary = (tmp_path / "summary").read_text()
    assert summary.startswith("## results=now against results=before")

    [path] = record_files(tmp_path / "now")
    text = path.read_text()
    assert '"verdict":"match"' in text
    path.write_text(text.replace('"verdict":"match"', '"verdict":"scaled"').replace('"×1"', '"×2"'))
    wrong = job.run("Compare")
    assert wrong.returncode == 1
    assert "::error title=spbench --fail-if-wrong::" in wrong.stdout
    assert "gradient that is ×2 in 1 of 1 trials" in wrong.stdout

    assert job.run("Comment").returncode == 0
    arguments = (tmp_path / "gh-arguments").read_text().splitlines()
    assert arguments[:5] == ["pr", "comment", "7", "--repo", "someone/something"]
    assert arguments[5] == "--body-file" and arguments[-1] == "token secret"
    assert "×2" in Path(arguments[6]).read_text()
