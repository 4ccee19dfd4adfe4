"""Ranks part through a real TCPStore; prints what each could do while another was missing.

Ranks 0 and 1 are processes of their own. This one plays rank 2, in two parts.
"""

import json
import multiprocessing
import socket
import sys
from datetime import timedelta

import torch.distributed as dist

from bench.worker import leaving

WORLD = 3
A_WHILE = timedelta(seconds=60)


def store(port, fd=None):
    fields = {"host_name": "127.0.0.1", "port": port, "world_size": WORLD}
    fields.update(is_master=fd is not None, wait_for_workers=False, master_listen_fd=fd)
    try:
        return dist.TCPStore(**fields, use_libuv=False)
    except TypeError:
        return dist.TCPStore(**fields)


def rank(index, port, fd, events):
    one = store(port, fd)
    events.put([index, "done"])
    leaving.leave_together(one, index, WORLD, A_WHILE)
    events.put([index, "leaves"])


def main():
    context = multiprocessing.get_context("fork")
    events = context.Queue()
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    ranks = [
        context.Process(target=rank, args=(index, port, fd, events))
        for index, fd in enumerate((listener.fileno(), None))
    ]
    for one in ranks:
        one.start()
    seen = {"done": sorted(events.get() for _ in ranks)}
    mine = store(port)
    while mine.add(f"{leaving._ALL_DONE}: count", 0) < 2:
        pass  # both wait now
    seen["alive while rank 2 works"] = [one.is_alive() for one in ranks]
    leaving._count(mine, leaving._ALL_DONE, WORLD)
    ranks[1].join(60)
    seen["rank 1 has left"] = [events.get(), ranks[1].exitcode]
    seen["rank 0 serves rank 2"] = ranks[0].is_alive()
    leaving._count(mine, leaving._ALL_LEFT, WORLD - 1)
    ranks[0].join(60)
    seen["rank 0 goes last"] = [events.get(), ranks[0].exitcode]
    print(json.dumps(seen))


if __name__ == "__main__":
    sys.exit(main())
