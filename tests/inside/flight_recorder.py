"""Ask for dumps of torch's flight recorder; prints what came back from each kind of rank.

listener   our thread answers, as on torch 2.2 with NCCL, whose pickling function is the real one
torch      SIMULATED: a thread reads the pipe as `DumpPipe` of ProcessGroupNCCL does
silent     a pipe that nobody reads
none       no pipe at all
"""

import json
import os
import pickle
import sys
import tempfile
import threading
import time
from pathlib import Path

from bench.record_files import flight_recorder_file
from bench.worker import flight_recorder

LISTENER, TORCH, SILENT, NONE = range(4)


def as_process_group_nccl_does(stem, rank):
    """`DumpPipe` and `DebugInfoWriter`: polls its pipe, then writes in two parts."""
    pipe, target = Path(f"{stem}{rank}.pipe"), Path(f"{stem}{rank}")
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe, 0o666)
    fd = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)

    def monitor():
        content = pickle.dumps({"entries": ["all_reduce"]}, protocol=2)
        while True:
            time.sleep(0.05)
            if os.read(fd, 128):
                with target.open("wb", buffering=0) as file:
                    file.write(content[:-1])
                    time.sleep(0.2)
                    file.write(content[-1:])

    threading.Thread(target=monitor, daemon=True).start()


def main():
    backend = sys.argv[1]
    os.environ["TORCH_FR_BUFFER_SIZE"] = "7"  # the user's
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        flight_recorder.enable(scratch, LISTENER, backend)
        flight_recorder.answer(scratch, LISTENER, backend)
        as_process_group_nccl_does(os.environ["TORCH_FR_DEBUG_INFO_PIPE_FILE"], TORCH)
        flight_recorder.answer(scratch, TORCH, backend)  # torch has its own
        os.mkfifo(flight_recorder.pipe_of(scratch, SILENT))
        began = time.monotonic()
        flight_recorder.ask(scratch, range(4), 60.0)
        took = time.monotonic() - began
        written = {}
        for rank in range(4):
            file = flight_recorder_file(scratch, rank)
            written[rank] = pickle.loads(file.read_bytes()) if file.exists() else None
        listens = threading.active_count() - 2  # besides this one and torch's
    known = [name for name in os.environ if name.startswith(("TORCH_NCCL_", "TORCH_FR_"))]
    print(
        json.dumps(
            {
                "listener": type(written[LISTENER]).__name__,
                "torch": written[TORCH],
                "others": [written[SILENT], written[NONE]],
                "listening threads": listens,
                "took": took,
                "variables": {n: os.environ[n].replace(folder, "scratch") for n in known},
            }
        )
    )


if __name__ == "__main__":
    main()
