"""Checks runs before they are submitted, and lists all problems at once, each with its cure.

It asks the scheduler and looks at files; with `cluster.probe=true` a small job looks at a node too.
"""

import contextlib
import math
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.config.identity import is_run_id
from pipeline.config.run import RunConfig
from pipeline.data import dataset
from pipeline.errors import UserError, WorkFailed, unknown_name
from pipeline.launching.plan import PlannedRun
from pipeline.launching.slurm import commands, resources
from pipeline.processes import scheduler
from pipeline.runs import records
from tnt.untrusted.reading import MOST_OPTION, whole_number

NODE_ANSWERS = 300  # seconds until a node must have answered
# What sbatch says, and what helps.
CURES = {
    "account": "cluster.account=NAME; `sacctmgr show associations user=$USER` lists yours",
    "partition": "cluster.partition=NAME; `sinfo -s` lists them",
    "qos": "cluster.qos=NAME; `sacctmgr show qos` lists them",
    "node configuration": "less of cluster.gpus, cpus or mem, or more nodes; see `sinfo -o '%n %G %c %m'`",
    "time limit": "a shorter cluster.time; a run goes on after it",
    "feature": "another cluster.constraint; `sinfo -o '%n %f'` lists them",
    "gres": "cluster.gpu_request=gpus-per-node, or none where nodes have no GPUs that Slurm knows",
}


def check(runs: Sequence[PlannedRun]) -> dict[str, str]:
    """Refuse runs that would fail; returns the cluster's settings."""
    settings, partitions = commands.site()
    problems = []
    if settings.get("MaxArraySize") == "0":
        problems.append(
            "this cluster takes no arrays of jobs (MaxArraySize=0) → slurm/pretrain_tnt_s.sh for each run"
        )
    kinds: dict[str, RunConfig] = {}
    for run in runs:
        try:
            kinds.setdefault(repr(resources.parameters(run.config)), run.config)
        except UserError as error:  # a world size that does not divide
            problems.append(str(error))
    for config in kinds.values():
        problems += beyond(config, partitions) + beyond_qos(config, settings)
    problems += [said for run in runs for said in without_origin(run)]
    datas = [run.config.data for run in runs]
    for root, split in sorted(
        {(data.root, name) for data in datas for name in (data.train, data.validation)}
    ):
        problems += incomplete(root, split)
    paths = [run.config.paths for run in runs]
    for path in sorted({Path(path).absolute() for one in paths for path in (one.runs, one.records)}):
        problems += unwritable(path)
    if problems or len(kinds) > 1:  # else the submission itself shows what sbatch says
        problems += [said for config in kinds.values() for said in refused(config)]
    for config in kinds.values() if not problems else ():
        problems += lacking(config) if config.cluster.probe else []
    if problems:
        lines = "".join(f"\n  - {problem}" for problem in dict.fromkeys(problems))
        raise UserError(f"nothing was submitted, as it would fail:{lines}")
    return settings


def remarks(settings: dict[str, str]) -> list[str]:
    """How preemption ends runs on this cluster, and what of the environment has no part in them."""
    unused = [name for name in scheduler.options_set() if name.startswith("SBATCH_")]
    said = (
        [f"{', '.join(unused)}: not used; a profile says such things, see slurm/README.md"] if unused else []
    )
    mode = settings.get("PreemptMode", "OFF")
    if mode == "OFF":
        return [*said, "preemption: none on this cluster"]
    theirs = "preempt_send_user_signal" in settings.get("SlurmctldParameters", "")
    get = f"{resources.SIGNAL} and time" if theirs else "SIGTERM and the partition's GraceTime"
    return [*said, f"preemption: {mode}; runs get {get} for a checkpoint"]


def refused(config: RunConfig) -> list[str]:
    """What sbatch says to the same options without submitting anything."""
    try:
        commands.ask("sbatch", "--test-only", *options_of(config), "--wrap", "true")
    except WorkFailed as error:
        said = with_cure(str(error))
        if "not available" not in said or not (away := absent_nodes()):
            return [said]
        print(
            f"warning: {said}; {away} of the cluster's nodes are away now, jobs wait for them",
            file=sys.stderr,
        )
    return []


def options_of(config: RunConfig, partition: str = "") -> list[str]:
    chosen = resources.parameters(config) | ({"partition": partition} if partition else {})
    return [f"--{name}" if value is True else f"--{name}={value}" for name, value in chosen.items()]


def with_cure(said: str) -> str:
    """A refusal of sbatch's, and what helps."""
    cure = next((f" → {cure}" for word, cure in CURES.items() if word in said.lower()), "")
    return f"sbatch refuses: {said.removeprefix('sbatch: ')}{cure}"


def absent_nodes() -> int:
    """How many are down or drained: --test-only refuses what has to wait for them, which sbatch takes."""
    states = commands.ask("sinfo", "--noheader", "--Node", "--format=%N %T").splitlines()
    return len({line.split()[0] for line in states if re.search(r" (down|drain|fail|maint)", line)})


def beyond(config: RunConfig, partitions: Sequence[dict[str, str]]) -> list[str]:
    """What no partition allows. sbatch accepts a time that is too long, but such a job never starts."""
    site = config.cluster
    wanted, nodes = minutes(site.time) or 0, resources.allocation(config).nodes + site.spare
    problems = []
    if wanted and site.lead >= 60 * wanted:
        problems.append(f"cluster.lead={site.lead} seconds leaves nothing of cluster.time={site.time}")
    known = {one["PartitionName"]: one for one in partitions}
    names = site.partition.strip("[]").split(",") if site.partition else []
    if wrong := [name for name in names if name not in known]:
        return [*problems, str(unknown_name("cluster.partition", wrong[0], known))]
    ours = [one for name, one in known.items() if name in names or (not names and one["Default"] == "YES")]
    longest = max(ours, key=lambda one: minutes(one["MaxTime"]) or math.inf, default=None)
    if longest and wanted > (minutes(longest["MaxTime"]) or math.inf):
        problems.append(
            f"cluster.time={site.time} is longer than partition {longest['PartitionName']} allows "
            f"({longest['MaxTime']}) → cluster.time={longest['MaxTime']}; a run goes on after it"
        )
    named = [one["MaxNodes"] for one in ours if one["MaxNodes"] != "UNLIMITED"]
    most = [whole_number(each, 0, MOST_OPTION, "MaxNodes") for each in named]
    if most and len(most) == len(ours) and nodes > max(most):
        problems.append(f"cluster.nodes={nodes} is more than a job may have → cluster.nodes={max(most)}")
    return problems


def beyond_qos(config: RunConfig, settings: Mapping[str, str]) -> list[str]:
    """A time that its quality of service does not allow; such a job would wait for ever."""
    site, wanted = config.cluster, minutes(config.cluster.time) or 0
    if not wanted or "limits" not in settings.get("AccountingStorageEnforce", ""):
        return []
    said = commands.ask("sacctmgr", "--noheader", "--parsable2", "show", "qos", "format=Name,MaxWall")
    limits = dict(line.split("|")[:2] for line in said.splitlines())
    name = site.qos or "normal"
    if wanted <= (minutes(limits.get(name, "")) or math.inf):
        return []
    return [
        f"cluster.time={site.time} is longer than qos {name} allows → cluster.time={limits[name]}; "
        "a run goes on after it"
    ]


def expected_start(config: RunConfig, partition: str = "") -> str:
    """When Slurm would start such a job now, as 2026-01-31T23:59:59; "" where it does not say."""
    try:
        words = ("sbatch", "--test-only", *options_of(config, partition), "--wrap", "true")
        said = commands.ask(*words, complaints=True)
    except WorkFailed:  # it is refused; the submission says why
        return ""
    found = re.search(r" to start at (\S+)", said)
    return found[1] if found else ""


def outlook(config: RunConfig) -> list[tuple[str, str, str]]:
    """Of each partition that its job may be in: its name, its kind of GPU if it has one, and the start."""
    names = list(filter(None, config.cluster.partition.strip("[]").split(",")))
    where = [f"--partition={','.join(names)}"] if names else []
    rows = commands.ask("sinfo", "--noheader", *where, "--format=%R %G").splitlines()
    found = []
    for name in names or [""]:
        kinds = [re.search(r"gpu:([A-Za-z]\w*)", row) for row in rows if row.split()[0] == name or not name]
        kind = next((kind[1].upper() for kind in kinds if kind), "")
        found.append((name, kind, expected_start(config, name)))
    return found


def minutes(time: str) -> float | None:
    """As Slurm reads a time: minutes[:seconds], hours:minutes:seconds, days-hours[:minutes[:seconds]]."""
    days, dash, clock = time.rpartition("-")
    parts = clock.split(":")
    if not all(part.isdigit() for part in [*parts, days or "0"]):
        return None  # "", or UNLIMITED
    if not dash and len(parts) < 3:
        parts = ["0", *parts]
    hours, least, seconds = (*map(float, parts), 0.0, 0.0)[:3]
    return 1440 * float(days or 0) + 60 * hours + least + seconds / 60  # type: ignore[text-number]


def without_origin(run: PlannedRun) -> list[str]:
    """A run to start from that is neither among these nor here: its job would wait and fail."""
    origin, paths = run.config.recipe.init, run.config.paths
    here = records.exists(paths.records, origin) or (Path(paths.runs) / origin).exists()
    if run.after or here or not is_run_id(origin):
        return []
    return [f"init={origin}: there is no such run in {paths.runs} → its weights' file, or paths.runs"]


def incomplete(root: str, split: str) -> list[str]:
    try:
        missing = dataset.missing_shards(root, split)
    except UserError as error:
        return [str(error)]
    if not missing:
        return []
    more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
    return [f"the {split} shards at {root}: {missing[0]}{more} → `python pipeline/shards.py verify {root}`"]


def unwritable(directory: Path) -> list[str]:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            return []
    except OSError as error:
        return [
            f"{directory} cannot be written ({error.strerror}) → paths.runs and paths.records say where else"
        ]


def lacking(config: RunConfig) -> list[str]:
    """What a node lacks for a run, seen by a small job there."""
    runs, python = Path(config.paths.runs).absolute(), sys.executable
    works = f"{shlex.quote(python)} -c 'import torch' 2>/dev/null"
    options = resources.parameters(config)
    place = [f"--{name}={options[name]}" for name in resources.NODE if name in options]
    job = ("--nodes=1", "--ntasks=1", "--time=5", f"--immediate={NODE_ANSWERS}", "--export=ALL")
    with contextlib.ExitStack() as stack:
        seen = str(runs)
        if runs.exists():  # that a node has a folder of this name is not enough
            seen = stack.enter_context(tempfile.NamedTemporaryFile(dir=runs)).name
        tests = {
            f"test -w {shlex.quote(seen)}": f"{runs} cannot be written → paths.runs on a shared file system",
            "command -v scontrol >/dev/null": "there is no scontrol: no run can requeue itself",
            works: f"{python} has no torch → an environment on a shared file system",
        }
        script = "; ".join(f"({test}) || echo lacks {number}" for number, test in enumerate(tests))
        try:
            done = scheduler.run("srun", *place, *job, "sh", "-c", script, timeout=2 * NODE_ANSWERS)
        except subprocess.TimeoutExpired:
            return [
                f"no node has answered within {2 * NODE_ANSWERS} s → cluster.probe=false submits all the same"
            ]
    if done.returncode:
        return [f"a job on a node failed: {scheduler.last_line(done.stderr)}"]
    said = done.stdout.splitlines()
    return [f"on a node, {test}" for number, test in enumerate(tests.values()) if f"lacks {number}" in said]
