"""What the ranks of a run tell each other beside gradients: messages and bytes of real gloo ranks.

    python benchmarks/control.py --worlds 2 4 8

Each rank reads from the kernel (TCP_INFO) what its sockets have sent. The exchanges are those of a training:
the vector of each step, and the times of the ranks where a line is written. Rows "by rule" lie on the line
through the two largest worlds that were run. Microseconds are those of this machine; no network is in them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import socket
import statistics
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from pipeline.processes.place import Place
from pipeline.processes.ranks import Ranks, joined

STEPS, WARM = 200, 20
BYTES_ACKED, DATA_SEGS_OUT = 120, 156  # in struct tcp_info of linux/tcp.h
VALUES = 5  # of a step's vector: loss, norm, asked to end, due, damaged


def sent() -> tuple[int, int]:
    """Messages and bytes that this process's sockets have sent so far."""
    messages = amount = 0
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(number))) as one:
            info = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
            amount += struct.unpack_from("Q", info, BYTES_ACKED)[0]
            messages += struct.unpack_from("I", info, DATA_SEGS_OUT)[0]
    return messages, amount


def counted(exchange: Callable[[], object]) -> tuple[float, float, float]:
    """Of one exchange: messages, bytes and microseconds."""
    for _ in range(WARM):
        exchange()
    before, took = sent(), []
    for _ in range(STEPS):
        began = time.perf_counter()
        exchange()
        took.append(time.perf_counter() - began)
    messages, amount = (now - then for now, then in zip(sent(), before, strict=True))
    return messages / STEPS, amount / STEPS, 1e6 * statistics.median(took)


def rank(number: int, world: int, port: int, out: Path) -> None:
    torch.set_num_threads(1)
    place = Place("torchrun", number, world, number, "127.0.0.1", port)
    with joined(place, torch.device("cpu"), 120) as ranks:
        found = {name: counted(exchange) for name, exchange in exchanges(ranks).items()}
    (out / f"{number}.json").write_text(json.dumps(found))


def exchanges(ranks: Ranks) -> dict[str, Callable[[], object]]:
    return {
        "a step's vector": lambda: ranks.sum_later(torch.zeros(VALUES, dtype=torch.float64))(),
        "the times of a line": lambda: ranks.gather((1.5, socket.gethostname())),
        "a batch of an evaluation": lambda: ranks.sum([0.0]),
    }


def run(world: int) -> dict[str, list[float]]:
    """The mean over the ranks."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as name:
        ranks = [fork.Process(target=rank, args=(each, world, port, Path(name))) for each in range(world)]
        for each in ranks:
            each.start()
        for each in ranks:
            each.join()
            assert each.exitcode == 0, f"a rank of {world} ended with {each.exitcode}"
        told = [json.loads(path.read_text()) for path in sorted(Path(name).glob("*.json"))]
    return {each: [statistics.mean(one[each][k] for one in told) for k in range(3)] for each in told[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--worlds", type=int, nargs="+", default=[2, 4, 8])
    options = parser.parse_args()
    found = {world: run(world) for world in sorted(options.worlds)}
    print("| exchange | ranks | messages a rank | bytes a rank | µs |\n|---|---|---|---|---|")
    for name in found[min(found)]:
        for world, told in found.items():
            messages, amount, took = told[name]
            print(f"| {name} | {world} | {messages:.1f} | {amount:.0f} | {took:.0f} |")
        low, high = sorted(found)[-2:]
        for world in (64, 512):
            values = (
                found[high][name][k]
                + (found[high][name][k] - found[low][name][k]) * (world - high) / (high - low)
                for k in (0, 1)
            )
            print(f"| {name} | {world}, by rule | " + " | ".join(f"{value:.0f}" for value in values) + " | |")


if __name__ == "__main__":
    main()
