"""What a run asks Slurm for: nodes, GPUs, cores, memory and time, from its config and the site's profile."""

from dataclasses import dataclass
from typing import Any

from pipeline.config import RunConfig
from pipeline.errors import UserError
from pipeline.science import sampling

OF_A_NODE = 8  # GPUs, unless the profile says otherwise
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
    """As the profile says. Where it does not: one node, as many GPUs as hold a micro-batch each, no more than
    the paper's eight, and a core for each of a rank's processes."""
    site, engine = config.cluster, config.engine
    nodes = site.nodes or 1
    fitting = max(1, config.recipe.global_batch // engine.micro_batch // nodes)
    tasks = site.gpus or _dividing(config, nodes, min(fitting, OF_A_NODE))
    found = Allocation(nodes, tasks, site.cpus or config.data.loading.workers + 1)
    sampling(config.data, config.recipe, config.seed).check_world(found.world)
    return found


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
    site, asked = config.cluster, allocation(config)
    chosen = {
        "nodes": asked.nodes,
        "ntasks-per-node": asked.tasks,
        "cpus-per-task": asked.cpus,
        "partition": site.partition,
        "account": site.account,
        "qos": site.qos,
        "constraint": site.constraint,
        "mem": site.mem,
        "time": site.time,
        "signal": f"{SIGNAL}@{site.lead}",
        "requeue": True,
        "gres": f"gpu:{asked.tasks}" if site.gpu_request == "gres" else "",
        "gpus-per-node": asked.tasks if site.gpu_request == "gpus-per-node" else "",
    }
    for option in site.extra:
        name, equals, value = option.removeprefix("--").partition("=")
        chosen[name] = value if equals else True
    return {name: value for name, value in chosen.items() if value != ""}


def steps(config: RunConfig) -> list[str]:
    """Options of srun, which takes over neither of these from sbatch."""
    cpus = parameters(config)["cpus-per-task"]
    return ["--kill-on-bad-exit=1", "--open-mode=append", f"--cpus-per-task={cpus}"]
