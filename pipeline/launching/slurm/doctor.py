"""Looks at a cluster before anything is launched there: what runs would meet, and a profile to begin with."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.config.composition import FOLDER
from pipeline.config.run import RunConfig
from pipeline.errors import WorkFailed
from pipeline.files import publish_bytes
from pipeline.launching.arguments import LaunchRequest, again
from pipeline.launching.plan import PlannedRun
from pipeline.launching.slurm import commands, launches, preflight, resources
from pipeline.terminal import show_table

DAY = 24 * 60  # minutes; a run goes on after it
# Of a partition: nodes in all, cores, memory in MB, GPUs and their like, longest time.
NODES = "%R|%D|%c|%m|%G|%l"
Finding = tuple[str, str]  # about what, and what was found


def doctor(request: LaunchRequest, runs: Sequence[PlannedRun]) -> int:
    """Say all that, and write the profile unless there is one."""
    found, problems = examine(runs[0].config)
    path, text = profile()
    new = not path.exists()  # else somebody may have corrected it
    if new:
        publish_bytes(path, text.encode())
    if request.json:
        print(json.dumps({"found": found, "problems": problems, "profile": str(path), "text": text}))
        return 1 if problems else 0
    show_table(("", "found"), found)
    print("".join(f"\nproblem: {problem}" for problem in problems))
    print(f"{path} {'is written' if new else 'is there and stays as it is; it would be'}:\n\n{text}")
    print(f"with it: {again(request, 'plan')} cluster={path.stem}")
    return 1 if problems else 0


def examine(config: RunConfig) -> tuple[list[Finding], list[str]]:
    """What was found, and what would keep runs from working."""
    settings, partitions = commands.site()
    found = [("Slurm", f"{settings.get('SLURM_VERSION', '?')}, cluster {settings['ClusterName']}")]
    for partition, count, cores, memory, gres, longest in _nodes():
        default = " (default)" if partition == _default(partitions) else ""
        gpus = gres.replace("(null)", "no GPU")
        what = f"{count} nodes, {cores} cores, {memory} MB, {gpus}, time {longest}"
        found.append((f"partition {partition}{default}", what))
    found.append(("arrays", f"of {settings.get('MaxArraySize', '?')} runs at most"))
    found.append(("accounting", _accounting(settings)))
    found.append(("requeue", f"JobRequeue={settings.get('JobRequeue', '?')}; runs ask for it themselves"))
    for remark in preflight.remarks(settings):
        what, _, said = remark.partition(": ")
        found.append((what, said))
    runs = Path(config.paths.runs).absolute()
    problems = preflight.unwritable(runs)
    if not problems:
        with launches.submitting(runs):  # refused, with the cure, where the file system has no locks
            found.append(("locks", f"work in {runs}"))
        problems = preflight.lacking(config)
        found += [] if problems else [("a node", f"sees {runs}, this Python with torch, and scontrol")]
    return found, problems


def profile() -> tuple[Path, str]:
    """Where a profile of this cluster goes, and a text to begin with, which its users correct."""
    settings, partitions = commands.site()
    name = re.sub(r"\W+", "_", settings["ClusterName"]).lower()
    nodes, default = _nodes(), _default(partitions)
    with_gpus = [row for row in nodes if "gpu" in row[4]]
    chosen = next((row for row in with_gpus if row[0] == default), (with_gpus or nodes)[0])
    lines = [f"# What action=doctor found on cluster {settings['ClusterName']}; see slurm/README.md."]
    lines += ["name: slurm", f"partition: {chosen[0]}"]
    gpus = [int(count) for count in re.findall(r"gpu(?::[^:,()]+)?:(\d+)", chosen[4])]
    lines.append(f"gpu_request: {'gres' if gpus else 'none'}")
    lines += [f"gpus: {sum(gpus)}  # of a node"] if 0 < sum(gpus) < resources.OF_A_NODE else []
    longest = preflight.minutes(chosen[5])
    lines.append(f"time: '{min(DAY, int(longest or DAY))}'  # minutes at a stretch; a run goes on after it")
    return FOLDER / "cluster" / f"{name}.yaml", "\n".join(lines) + "\n"


def _nodes() -> list[list[str]]:
    said = commands.ask("sinfo", "--noheader", f"--format={NODES}")
    rows = [line.strip().split("|") for line in said.splitlines() if line.count("|") == 5]
    if not rows:
        raise WorkFailed("sinfo shows no partition that this user may use")
    return rows


def _default(partitions: Sequence[Mapping[str, str]]) -> str:
    return next((one["PartitionName"] for one in partitions if one.get("Default") == "YES"), "")


def _accounting(settings: Mapping[str, str]) -> str:
    if "slurmdbd" not in settings.get("AccountingStorageType", ""):
        return f"none; ended jobs are forgotten after {settings.get('MinJobAge', '?')}"
    form = "format=Account,Partition,QOS,MaxSubmitJobs"
    who = ("show", "associations", f"user={os.environ.get('USER', os.getuid())}", form)
    lines = commands.ask("sacctmgr", "--noheader", "--parsable2", *who).splitlines()
    return "; ".join(line.replace("|", " ").strip() for line in lines) or "of this user: nothing is known"
