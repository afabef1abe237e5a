"""What a node lacks for a run, seen by a small job there: `cluster.probe=true`."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

from pipeline.config.run import RunConfig
from pipeline.launching.slurm import commands, resources

ANSWER = 300  # seconds until a node must have answered
WHERE = ("partition", "account", "qos", "constraint")


def lacking(config: RunConfig) -> list[str]:
    runs, python = Path(config.paths.runs).absolute(), sys.executable
    works = f"{shlex.quote(python)} -c 'import torch' 2>/dev/null"
    needs = {
        f"test -w {shlex.quote(str(runs))}": f"{runs} cannot be written → paths.runs on a shared file system",
        "command -v scontrol >/dev/null": "there is no scontrol: no run could requeue itself → ask the site",
        works: f"{python} has no torch → an environment on a shared file system",
    }
    script = "; ".join(f"({test}) || echo lacks {number}" for number, test in enumerate(needs))
    options = resources.parameters(config)
    place = [f"--{name}={options[name]}" for name in WHERE if name in options]
    command = [
        "srun",
        *place,
        "--nodes=1",
        "--ntasks=1",
        "--time=5",
        f"--immediate={ANSWER}",
        "sh",
        "-c",
        script,
    ]
    # Within another job it would become a step of that one.
    env = {name: value for name, value in os.environ.items() if not commands.FOREIGN.match(name)}
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=env, timeout=2 * ANSWER
        )
    except subprocess.TimeoutExpired:
        return [f"no node has answered within {2 * ANSWER} s → cluster.probe=false submits all the same"]
    if done.returncode:
        return [f"a job on a node failed: {commands.last_line(done.stderr)}"]
    missed = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("lacks ")]
    return [f"on a node, {list(needs.values())[int(number)]}" for number in missed]
