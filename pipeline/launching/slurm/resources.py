"""What a run asks Slurm for: nodes, GPUs, cores, memory and time, from its config and the site's profile."""

from dataclasses import dataclass
from typing import Any

from pipeline.config.run import RunConfig
from pipeline.config.science import sampling
from pipeline.data.loading.sampler import Sampling
from pipeline.errors import UserError

RANK = "pipeline/launching/slurm/rank.sh"  # in the folder of the code
OF_A_NODE = 8  # GPUs, unless the profile says otherwise
CORES = 5  # of a rank: with three views of an image they feed a GPU at 3,900 images/s
# Options that a profile may not set.
RESERVED = ("array", "job-name", "output", "error", "open-mode", "dependency", "wrap", "chdir", "test-only")
NODE = ("partition", "account", "qos", "constraint")  # which nodes, and for whom
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
    site, order = config.cluster, sampling(config.data, config.recipe, config.seed)
    nodes, tasks = site.nodes or 1, site.gpus
    if not tasks:  # the most whose ranks hold equal parts of the global batch
        tasks = min(order.global_batch // config.engine.micro_batch // nodes, OF_A_NODE)
        tasks = tasks if on_gpus(config) else 1
        while tasks > 1 and not _divides(order, nodes * tasks):
            tasks -= 1
    workers = config.data.loading.workers
    found = Allocation(nodes, max(tasks, 1), site.cpus or (CORES if workers < 0 else workers + 1))
    order.check_world(found.world)
    return found


def on_gpus(config: RunConfig) -> bool:
    return config.engine.device != "cpu" and config.cluster.gpu_request != "none"


def _divides(order: Sampling, world: int) -> bool:
    try:
        order.check_world(world)
    except UserError:
        return False
    return True


def parameters(config: RunConfig) -> dict[str, Any]:
    """Options of sbatch by name; a config holds no value whose characters could mean anything else."""
    site, needed = config.cluster, allocation(config)
    packed = site.pack > 1  # the batch script's children, which Slurm does not know
    chosen = {
        "nodes": needed.nodes + site.spare,
        **({"no-kill": True} if site.spare else {}),  # a lost node ends the ranks, and not the job
        "ntasks-per-node": needed.tasks,
        "cpus-per-task": needed.cpus * site.pack,
        **{name: getattr(site, name) for name in (*NODE, "mem", "time")},
        "partition": site.partition.strip("[]"),
        "signal": f"{'B:' if packed else ''}{SIGNAL}@{site.lead}",
        "requeue": True,
    }
    if on_gpus(config):
        chosen[site.gpu_request] = f"gpu:{needed.tasks}" if site.gpu_request == "gres" else needed.tasks
    for option in site.extra:
        name, equals, value = option.removeprefix("--").partition("=")
        if name in RESERVED:
            raise UserError(f"cluster.extra: --{name} is launch.py's own: by it jobs are found again")
        chosen[name] = value if equals else True
    return {name: value for name, value in chosen.items() if value != ""}
