"""Looks in seconds at the node of each rank, before a run starts there: its GPU, disk, network and clock.

    srun … python -m pipeline.processes.node_check <device> <a folder that all share>

Each rank prints a line of JSON about its node, and another once it has met the others.
"""

import json
import os
import socket
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import command
from pipeline.processes.device import find_device
from pipeline.processes.place import find_place
from pipeline.processes.ranks import joined

MEETING = 60.0  # seconds in which the ranks meet, and exchange a number
CLOCKS = 5.0  # seconds that the clocks of nodes may differ
SIZE = 1024  # of the matrices that are multiplied, and of what is written, in kB


def main(argv: Sequence[str]) -> int:
    name, folder = argv
    place, found = find_place(), []
    node = os.environ.get("SLURMD_NODENAME", socket.gethostname())
    for where in dict.fromkeys((folder, os.environ.get("TMPDIR", "/tmp"))):
        found += disk(Path(where))
    try:
        device = find_device(name, place)
        found += arithmetic(device)
    except Exception as error:
        device, found = find_device("cpu", place), [*found, f"its GPU: {' '.join(str(error).split())[:200]}"]
    print(json.dumps({"node": node, "problems": found}), flush=True)
    if not found:
        import torch

        with joined(place, device, MEETING) as ranks:
            total = ranks.sum_later(torch.ones(1, device=device))()
            assert total == [ranks.world], "a sum over all ranks is wrong"
            ranks.gather(node)  # nobody's clock is read before all are here
            print(json.dumps({"node": node, "met": time.time()}), flush=True)
    return 0


def disk(folder: Path) -> list[str]:
    data = os.urandom(SIZE << 10)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            return [] if file.read() == data else [f"{folder} gives back other bytes"]
    except OSError as error:
        return [f"{folder} cannot be written ({error.strerror})"]


def arithmetic(device: Any) -> list[str]:
    """Twos times ones: each sum is exact in bf16's products and fp32's sums."""
    import torch

    product = torch.full((SIZE, SIZE), 2.0, device=device) @ torch.ones(SIZE, SIZE, device=device)
    return [] if bool((product == 2.0 * SIZE).all()) else [f"{device} multiplies wrongly"]


def verdict(lines: Iterable[dict[str, Any]], nodes: Sequence[str]) -> dict[str, str]:
    """Of what all ranks printed: each node that is not sound, and why."""
    said = list(lines)
    bad = {one["node"]: "; ".join(one["problems"]) for one in said if one.get("problems")}
    silent = set(nodes) - {one["node"] for one in said}
    bad |= dict.fromkeys(sorted(silent), "it did not answer")
    met = {one["node"]: one["met"] for one in said if "met" in one}
    if not bad:
        bad |= {node: "it did not meet the others" for node in nodes if node not in met}
        middle = sorted(met.values())[len(met) // 2] if met else 0.0
        off = {node: clock - middle for node, clock in met.items() if abs(clock - middle) > CLOCKS}
        bad |= {node: f"its clock is {seconds:+.0f} s off" for node, seconds in off.items()}
    return bad


if __name__ == "__main__":
    command(main)
