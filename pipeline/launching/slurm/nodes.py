"""Nodes that fail: which those are, and on which of a job's nodes its ranks are started.

runs/.launches/nodes.jsonl   a line for each failure
"""

import contextlib
import os
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipeline.config.run import RunConfig
from pipeline.errors import WorkFailed, command
from pipeline.files import append_row, rows
from pipeline.launching.slurm import commands, launches, resources
from pipeline.processes.place import find_place, requeue
from tnt.untrusted.reading import MOST_OPTION, other_than, whole_number

NODES = "nodes.jsonl"  # among the launches
TWICE = 2
ASK_EVERY = 30.0  # seconds between two questions about a job's first node
DAYS = 14  # what was longer ago does not count


def note(runs: Path, node: str, why: str, times: int = 1) -> None:
    (runs / launches.FOLDER).mkdir(parents=True, exist_ok=True)
    row = {"node": node, "time": round(time.time()), "why": why}
    for _ in range(times):  # a check that fails counts as often as it takes
        append_row(runs / launches.FOLDER / NODES, row)


def failing(runs: Path) -> dict[str, list[str]]:
    """The nodes that have failed twice or more of late, and why."""
    found = defaultdict(list)
    for row in rows(runs / launches.FOLDER / NODES):
        sound = not other_than(row, {"node": str, "time": int, "why": str})
        if sound and row["time"] > time.time() - DAYS * 86400:
            found[row["node"]].append(row["why"])
    return {node: why for node, why in found.items() if len(why) >= TWICE}


def said(runs: Path) -> list[str]:
    path = runs / launches.FOLDER / NODES
    return [
        f"{node} has failed {len(why)} times ({why[-1]}) and is left out; {path} lists it"
        for node, why in failing(runs).items()
    ]


def can_go_on(config: RunConfig, node: str) -> bool:
    """Whether a job, one of whose nodes may have failed, has enough sound ones left."""
    if not config.cluster.spare:
        return node not in failing(Path(config.paths.runs))
    return len(_sound(config)) >= _needed(config)


def options(config: RunConfig) -> list[str]:
    """Of srun, where the job has nodes to spare: on which of them the ranks are started."""
    if not config.cluster.spare:
        return []
    nodes = used(config)
    tasks = len(nodes) * _number("SLURM_NTASKS_PER_NODE")
    return [f"--nodes={len(nodes)}", f"--nodelist={','.join(nodes)}", f"--ntasks={tasks}"]


def used(config: RunConfig) -> list[str]:
    """On which the ranks are started."""
    return _sound(config)[: _needed(config)] if config.cluster.spare else commands.hosts()[1]


@contextmanager
def keeper(config: RunConfig) -> Iterator[None]:
    """A job that goes on without a lost node goes on without its first one too, and nobody is at work there:
    its ranks' watcher. A process on the last node sees that, and has the job queued again."""
    if not config.cluster.spare:
        yield
        return
    last = commands.hosts()[1][-1]
    where = ("--overlap", "--nodes=1", "--ntasks=1", f"--nodelist={last}", "--gres=none", "--export=ALL")
    program = ("sh", resources.RANK, "-m", "pipeline.launching.slurm.nodes")
    # srun would take the job's GPUs from there, and refuses them beside --gres=none.
    env = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_GPUS")}
    process = subprocess.Popen(["srun", *where, *program], stdin=subprocess.DEVNULL, env=env)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def main(argv: Sequence[str]) -> int:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # rank.sh has it ignored
    while True:
        time.sleep(ASK_EVERY)
        with contextlib.suppress(WorkFailed):  # a controller that is away: later
            first, left = commands.hosts()
            if left and first not in left:
                requeue(find_place())
                return 0


def _number(name: str) -> int:
    return whole_number(os.environ[name], 0, MOST_OPTION, name)


def _needed(config: RunConfig) -> int:
    return _number("SLURM_JOB_NUM_NODES") - config.cluster.spare


def _sound(config: RunConfig) -> list[str]:
    """The nodes that the job still has, without those that fail."""
    out = failing(Path(config.paths.runs))
    return [node for node in commands.hosts()[1] if node not in out]


if __name__ == "__main__":
    command(main)
