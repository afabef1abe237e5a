"""What a run asks Slurm for: nodes, GPUs, cores, memory and time, from its config and the site's profile."""

from dataclasses import dataclass
from typing import Any

from pipeline.config.run import RunConfig
from pipeline.config.science import sampling
from pipeline.errors import UserError

OF_A_NODE = 8  # GPUs, unless the profile says otherwise
# Options that a profile may not set.
RESERVED = ("array", "job-name", "output", "error", "open-mode", "dependency", "wrap", "chdir", "test-only")
SIGNAL = "USR1"  # some time before the end


@dataclass(frozen=True)
class Allocation:
    nodes: int
    tasks: int  # of a node; one a GPU
    cpus: int  # of a task

    @property
    def world(self) -> int:
        return self.nodes * self.tasks


def allocation(config: RunConfig) -> Allocation:
    """What the profile says. Where it says nothing: one node, a GPU for each micro-batch of the global batch
    but at most the paper's eight, and a core for each process of a rank."""
    site = config.cluster
    nodes = site.nodes or 1
    fitting = config.recipe.global_batch // config.engine.micro_batch // nodes
    most = min(fitting, OF_A_NODE) if _on_gpus(config) else 1
    found = Allocation(
        nodes, site.gpus or _dividing(config, nodes, most), site.cpus or config.data.loading.workers + 1
    )
    sampling(config.data, config.recipe, config.seed).check_world(found.world)
    return found


def _on_gpus(config: RunConfig) -> bool:
    return config.engine.device != "cpu" and config.cluster.gpu_request != "none"


def _dividing(config: RunConfig, nodes: int, most: int) -> int:
    """The most tasks a node, up to `most`, whose ranks hold equal parts of the global batch."""
    order = sampling(config.data, config.recipe, config.seed)
    for tasks in range(most, 1, -1):
        try:
            order.check_world(nodes * tasks)
        except UserError:
            continue
        return tasks
    return 1


def parameters(config: RunConfig) -> dict[str, Any]:
    """Options of sbatch by name; a config holds no value whose characters could mean anything else."""
    site, needed = config.cluster, allocation(config)
    gpus = {site.gpu_request: needed.tasks} if _on_gpus(config) else {}
    chosen = {
        "nodes": needed.nodes,
        "ntasks-per-node": needed.tasks,
        "cpus-per-task": needed.cpus,
        "partition": site.partition,
        "account": site.account,
        "qos": site.qos,
        "constraint": site.constraint,
        "mem": site.mem,
        "time": site.time,
        "signal": f"{SIGNAL}@{site.lead}",
        "requeue": True,
        "gres": f"gpu:{gpus['gres']}" if "gres" in gpus else "",
        "gpus-per-node": gpus.get("gpus-per-node", ""),
    }
    for option in site.extra:
        name, equals, value = option.removeprefix("--").partition("=")
        if name in RESERVED:
            raise UserError(f"cluster.extra: --{name} is launch.py's own: by it jobs are found again")
        chosen[name] = value if equals else True
    return {name: value for name, value in chosen.items() if value != ""}


def steps(config: RunConfig) -> list[str]:
    """Options of srun: a rank that fails ends all, and each rank gets the cores that sbatch was asked for."""
    cpus = parameters(config)["cpus-per-task"]
    return ["--kill-on-bad-exit=1", "--open-mode=append", f"--cpus-per-task={cpus}"]
