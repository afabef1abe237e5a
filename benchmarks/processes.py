"""What /proc says of the processes below this one."""

import os
from collections.abc import Sequence
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def descendants() -> list[int]:
    parent: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            parent[int(entry)] = _stat(int(entry))[1]
    found, frontier = [], [os.getpid()]
    while frontier:
        above = frontier.pop()
        below = [pid for pid, of in parent.items() if of == above]
        found += below
        frontier += below
    return found


def processor_time(pids: Sequence[int]) -> float:
    """Seconds, of all threads."""
    total = 0.0
    for pid in pids:
        for task in os.listdir(f"/proc/{pid}/task"):
            # Nanoseconds on a processor: ten times finer than the ticks of stat.
            total += int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0]) / 1e9
    return total


def memory(pid: int) -> dict[str, float]:
    """Megabytes, and how busy the process has been."""
    found: dict[str, float] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value, _ = line.split()
        found[name.rstrip(":")] = int(value) / 1024
    found["Private"] = found["Private_Clean"] + found["Private_Dirty"]
    found["busy"] = processor_time([pid])
    return found


def _stat(pid: int) -> tuple[str, int]:
    """State and parent; a process that has just ended has none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "X", 0
    return fields[0], int(fields[1])
