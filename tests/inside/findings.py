"""Run scripts of docs/findings as commands; prints the exit status and output of each as JSON.

Usage: findings.py whole|broken COMMAND…; a command is a script's name and its arguments. Each runs
in a fork that has torch (and DeepSpeed where the script needs it) imported already, as `__main__`.
`broken`: what the scripts call raises a TypeError, which no finding names.
"""

import importlib
import json
import os
import runpy
import sys
import tempfile
import traceback
from pathlib import Path

import torch
import torch.distributed._functional_collectives
import torch.distributed.nn.functional as functional
import torch.multiprocessing

FINDINGS = Path(__file__).resolve().parents[2] / "docs" / "findings"


def failing():
    """A function of its own for each place, or torch takes them for one."""

    def fail(*args, **kwargs):
        raise TypeError("on purpose")

    return fail


def break_torch():
    """What the scripts go through, wherever their finding is."""
    torch.autograd.backward, torch.autograd.grad = failing(), failing()
    functional.gather = failing()
    sys.modules["deepspeed.sequence.layer"] = None  # its import raises an ImportError


def run(command, broken):
    """Never returns."""
    name, *arguments = command.split()
    code = 1
    try:
        if broken:
            break_torch()
        sys.argv = [name, *arguments]
        runpy.run_path(str(FINDINGS / name), run_name="__main__")
        code = 0
    except SystemExit as leaving:
        if isinstance(leaving.code, str):
            print(leaving.code, file=sys.stderr)
        else:
            code = leaving.code or 0
    except BaseException:  # noqa: BLE001 (what a command leaves with is what is tested)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def started(command, folder, broken):
    """The id of a process that runs `command` with its output in files."""
    child = os.fork()
    if child:
        return child
    for stream, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(output(command, folder, name), os.O_CREAT | os.O_WRONLY, 0o600), stream)
    return run(command, broken)


def output(command, folder, name):
    return Path(folder) / f"{command.replace(' ', '_')}.{name}"


def finished(children, folder):
    """What became of the processes `{command: id}`."""
    found = {}
    for command, child in children.items():
        _, status = os.waitpid(child, 0)
        text = {n: Path(output(command, folder, n)).read_text() for n in ("stdout", "stderr")}
        found[command] = {"exit": os.waitstatus_to_exitcode(status), **text}
    return found


def main():
    how, *commands = sys.argv[1:]
    needs = {c: "import deepspeed" in (FINDINGS / c.split()[0]).read_text() for c in commands}
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for deepspeed in (False, True):
            chosen = [command for command in commands if needs[command] == deepspeed]
            if chosen and deepspeed:
                importlib.import_module("deepspeed")
            found.update(finished({c: started(c, folder, how == "broken") for c in chosen}, folder))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
