"""Where and how fast a run happens. Nothing here changes its numbers, so nothing here is in its id."""

import re
from dataclasses import dataclass

from pipeline.errors import Range, UserError, check_ranges, unknown_name

DEVICES = ("auto", "cpu", "cuda")
KERNELS = ("auto", "fused", "torch")
CLUSTERS = ("auto", "local", "slurm")
GPU_REQUESTS = ("gres", "gpus-per-node", "none")
# What the scheduler is told: a form, and an example for whoever misses it.
NAME = re.compile(r"(?:[A-Za-z0-9_.,:@+=/][A-Za-z0-9_.,:@+=/-]*)?")
TEXT = r"A-Za-z0-9_.,:@+=/&|*()\[\]"
FORMS = {
    "partition": (re.compile(rf"{NAME.pattern}|\[{NAME.pattern}\]"), "gpu or [gpu,long]"),
    "account": (NAME, "my_project"),
    "qos": (NAME, "normal"),
    "constraint": (re.compile(rf"([{TEXT}][{TEXT}-]*)?"), "a100, a100&nvlink or [rack1|rack2]"),
    "mem": (re.compile(r"(\d+[KMGT]?)?"), "64G"),
    "time": (
        re.compile(r"(\d{1,9}(:\d\d){0,2}|\d{1,9}-\d{1,9}(:\d\d){0,2})?"),
        "12:00:00 or 1-12:00:00",
    ),
    "container": (
        re.compile(r"((docker://)?[A-Za-z0-9_./][A-Za-z0-9_.,:@+=/-]*)?"),
        "image.sif, image.sqsh or docker://user/image",
    ),
    "modules": (re.compile(NAME.pattern.removesuffix("?")), "cuda/12.4"),
    "extra": (re.compile(rf"--[a-z][a-z-]*(=[{TEXT}% -]+)?"), "--exclude=node[7-9]"),
}

NUMBERS, COUNTS = Range(0, 1_000_000), Range(1, 1_000_000)
ENGINE_RANGES = {
    "threads": Range(0, 10_000),
    "micro_batch": Range(1, 1 << 16),
    "evaluation_batch": Range(1, 1 << 16),
    "checkpoint_every": COUNTS,
    "checkpoint_minutes": NUMBERS,
    "failed_saves": COUNTS,
    "keep_for_audit": NUMBERS,
}
CLUSTER_RANGES = {
    **dict.fromkeys(("jobs", "nodes", "gpus", "cpus", "lead", "max_parallel"), NUMBERS),
    "spare": Range(0, 1000),
    "pack": Range(1, 64),
    "per_gpu_hour": NUMBERS,
    **dict.fromkeys(("start_timeout", "timeout"), COUNTS),  # seconds
}


@dataclass(frozen=True)
class EngineConfig:
    device: str = "auto"  # auto, cpu or cuda
    threads: int = 0  # of a process's arithmetic on the CPU; 0 = as many as torch takes
    zero_stage: int = 0  # what DeepSpeed spreads over ranks: 1 optimizer, 2 and gradients, 3 and weights
    micro_batch: int = 128  # the most views that a rank holds at once; fewer where its share is smaller
    evaluation_batch: int = 250  # images a rank holds at once
    compile: bool = False  # torch.compile
    deterministic: bool = False  # only kernels that give the same bits again, at a price in speed
    kernels: str = "auto"  # of the inner blocks: auto takes the faster, see pipeline/training/kernels.py
    grad_checkpointing: bool = False  # trade another forward pass for the blocks' activations
    checkpoint_every: int = 1  # epochs, see checkpoint_minutes
    checkpoint_minutes: float = 15.0  # and this often within an epoch; 0 = only at ends of epochs
    keep: int = 2  # newest checkpoints kept, beside the best
    keep_for_audit: int = 0  # and the oldest of each of so many equal parts of the run, see audit.py
    failed_saves: int = 4  # so many checkpoints in a row that cannot be stored end the run
    profile: str = ""  # steps of a start to be traced, as 10-20

    def __post_init__(self) -> None:
        if self.device not in DEVICES:
            raise unknown_name("engine.device", self.device, DEVICES)
        if self.kernels not in KERNELS:
            raise unknown_name("engine.kernels", self.kernels, KERNELS)
        if self.zero_stage not in (0, 1, 2, 3):
            raise UserError(f"engine.zero_stage is {self.zero_stage}; valid: 0, 1, 2, 3")
        check_ranges(self, ENGINE_RANGES, "engine")
        steps = re.fullmatch(r"([1-9]\d{0,8})-(\d{1,9})", self.profile)
        if self.profile and not (steps and int(steps[1]) <= int(steps[2])):  # type: ignore[text-number]
            raise UserError(f"engine.profile is {self.profile!r}; it must look like 10-20")
        if self.keep < 2:
            raise UserError(
                f"engine.keep is {self.keep}; at least 2, so that a damaged one has another behind"
            )


@dataclass(frozen=True)
class Paths:
    runs: str = "runs"  # a directory for each run
    records: str = "results/records"  # one small file for each finished run
    data: str = "data"  # sets of shards, one directory each


@dataclass(frozen=True)
class LoggingConfig:
    every: int = 50  # steps between lines of metrics.jsonl and points of TensorBoard
    seconds: float = 30.0  # between plain lines where nobody watches
    tensorboard: bool = True  # write its files into the run's directory
    wandb: str = ""  # a Weights & Biases project; "" here and below = not used
    mlflow: str = ""  # an experiment of MLflow's, at MLFLOW_TRACKING_URI, else in the run's directory
    trackio: str = ""  # a project of trackio's, on this machine, in TRACKIO_DIR

    def __post_init__(self) -> None:
        check_ranges(self, {"every": COUNTS, "seconds": NUMBERS}, "logging")


@dataclass(frozen=True)
class ClusterConfig:
    """Where runs are started. A site's own values go in a file beside conf/cluster/slurm.yaml.

    What reaches the scheduler is held to the characters that its names need: nothing here can be a command.
    """

    name: str = "auto"  # local, slurm, or auto: Slurm where it is
    start_timeout: float = 1800.0  # seconds that processes wait for each other, to the end of the first step
    timeout: float = 300.0  # seconds later on; above data.loading.timeout, and the longest that one is busy
    jobs: int = 0  # runs at a time on this machine; 0 = as many as it has room for
    partition: str = ""  # "" here and below: the scheduler's default
    account: str = ""  # who pays
    qos: str = ""  # the quality of service
    constraint: str = ""  # features of nodes, as a100&nvlink
    gpu_request: str = "gres"  # how GPUs are asked for, gres or gpus-per-node; none = processes without one
    nodes: int = 0  # of a run; 0 = as the model needs
    gpus: int = 0  # of a node, one process each; 0 = as the model needs
    cpus: int = 0  # of a process, which data.loading.workers follow; 0 = one more than these, or 5
    mem: str = ""  # of a node, as 64G
    time: str = ""  # at a stretch, as 1-12:00:00; a run longer than this is requeued and goes on
    lead: int = 120  # seconds from the signal to the end of the time: the step and its checkpoint fit in them
    modules: tuple[str, ...] = ()  # loaded before a run starts
    extra: tuple[str, ...] = ()  # further options of sbatch, as --exclude=node[7-9]
    container: str = ""  # image.sif or docker://… for Apptainer, image.sqsh for Pyxis; "" = none
    spare: int = 0  # nodes that a run's job has beside those that it needs, to go on when one is lost
    check: bool = False  # look at GPU, network, disk and clock of each node before a run starts on it
    pack: int = 1  # runs that one job trains side by side, on the same GPUs and on cores of their own
    mixed: bool = False  # whether the runs of a table may be on several of the partitions, so on several GPUs
    per_gpu_hour: float = 0.0  # what an hour of a GPU, or of a process without one, costs; 0 = not known
    probe: bool = False  # before anything is submitted, see in a small job what a node lacks
    max_parallel: int = 0  # runs of an array at a time; 0 = no bound but the scheduler's

    def __post_init__(self) -> None:
        if self.name not in CLUSTERS:
            raise unknown_name("cluster", self.name, CLUSTERS)
        if self.gpu_request not in GPU_REQUESTS:
            raise unknown_name("cluster.gpu_request", self.gpu_request, GPU_REQUESTS)
        check_ranges(self, CLUSTER_RANGES, "cluster")
        if self.pack > 1 and max(self.nodes, 1) + self.spare > 1:
            raise UserError(
                f"cluster.pack={self.pack} runs of one job are trained on one node; leave out others"
            )
        for name, (form, example) in FORMS.items():
            value = getattr(self, name)
            for text in (value,) if isinstance(value, str) else value:
                if not form.fullmatch(text):
                    raise UserError(f"cluster.{name} is {text!r}; it must look like {example}")


@dataclass(frozen=True)
class About:
    """For which table a run was asked for: a remark, since several tables may share a run."""

    ablation: str = ""  # its name
    cell: str = ""  # its row
    until_decided: bool = False  # it was added after a look at the results of others
