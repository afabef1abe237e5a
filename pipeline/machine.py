"""Where and how fast a run happens. Nothing here changes its numbers, so nothing here is in its id."""

from dataclasses import dataclass

from pipeline.errors import UserError, unknown_name

DEVICES = ("auto", "cpu", "cuda")
KERNELS = ("auto", "fused", "torch")
CLUSTERS = ("auto", "local", "slurm")


@dataclass(frozen=True)
class EngineConfig:
    device: str = "auto"
    threads: int = 0  # of a process's arithmetic on the CPU; 0 = as many as torch takes
    zero_stage: int = 0  # what DeepSpeed spreads over ranks: 1 optimizer, 2 and gradients, 3 and weights
    micro_batch: int = 128  # the most views that a rank holds at once; fewer where its share is smaller
    evaluation_batch: int = 250  # images a rank holds at once
    compile: bool = False  # torch.compile
    kernels: str = "auto"  # of the inner blocks: auto takes the faster, see pipeline/kernels.py
    grad_checkpointing: bool = False  # trade another forward pass for the blocks' activations
    checkpoint_every: int = 1  # epochs, see checkpoint_minutes
    checkpoint_minutes: float = 15.0  # and this often within an epoch; 0 = only at ends of epochs
    keep: int = 2  # newest checkpoints kept, beside the best

    def __post_init__(self) -> None:
        if self.device not in DEVICES:
            raise unknown_name("engine.device", self.device, DEVICES)
        if self.kernels not in KERNELS:
            raise unknown_name("engine.kernels", self.kernels, KERNELS)
        if self.zero_stage not in (0, 1, 2, 3):
            raise UserError(f"engine.zero_stage is {self.zero_stage}; valid: 0, 1, 2, 3")
        if self.threads < 0:
            raise UserError(f"engine.threads is {self.threads}; it must not be negative")
        for name in ("micro_batch", "evaluation_batch", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise UserError(f"engine.{name} is {getattr(self, name)}; it must be at least 1")
        if self.checkpoint_minutes < 0:
            raise UserError(
                f"engine.checkpoint_minutes is {self.checkpoint_minutes}; it must not be negative"
            )
        if self.keep < 2:
            raise UserError(
                f"engine.keep is {self.keep}; at least 2, so that a damaged one has another behind"
            )


@dataclass(frozen=True)
class Paths:
    runs: str = "runs"
    records: str = "results/records"
    data: str = "data"  # sets of shards, one directory each


@dataclass(frozen=True)
class LoggingConfig:
    every: int = 50  # steps between lines of metrics.jsonl and points of TensorBoard
    seconds: float = 30.0  # between plain lines where nobody watches
    tensorboard: bool = True
    wandb: str = ""  # a Weights & Biases project; "" = not used

    def __post_init__(self) -> None:
        if self.every < 1:
            raise UserError(f"logging.every is {self.every}; it must be at least 1")


@dataclass(frozen=True)
class ClusterConfig:
    name: str = "auto"
    timeout: float = 50.0  # seconds without a sign of life before a peer counts as frozen

    def __post_init__(self) -> None:
        if self.name not in CLUSTERS:
            raise unknown_name("cluster", self.name, CLUSTERS)
        if not self.timeout > 0:
            raise UserError(f"cluster.timeout is {self.timeout}; it must be above 0")


@dataclass(frozen=True)
class About:
    """For which table a run was asked for: a remark, since several tables may share a run."""

    ablation: str = ""
    cell: str = ""
