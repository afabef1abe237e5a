"""The DeepSpeed engine: one optimizer step on a global batch, for every ZeRO stage, on CPU and GPU.

Weights, optimizer state and the exchange of gradients are fp32; the arithmetic is bf16 under autocast, or
fp32. DeepSpeed partitions (ZeRO 0–3), accumulates, and writes and reads its parts of a checkpoint. Not taken
from it: its launcher, its compiled operators (torch's AdamW is as fast here and needs no compiler on the
node), its `latest` file, and its way to open pickles: here only tensors and plain values are read from them.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.config.machine import EngineConfig
from pipeline.errors import UserError, WorkFailed
from pipeline.processes.ranks import Ranks
from pipeline.training.parallel import deepspeed_adapter as adapter
from pipeline.training.parallel.exchange import BUCKET, GradientExchange
from tnt.block import TNTBlock
from tnt.own.network import told

FOLDER = "engine"  # in a checkpoint
# Gradients travel while the backward pass goes on; DeepSpeed's own bucket holds those of a whole network.
DURING_BACKWARD = {"overlap_comm": True, "reduce_bucket_size": BUCKET // 4}
Criterion = Callable[[Any, Tensor], Tensor]


def micro_batch(share: int, most: int, block: int) -> int:
    """The largest number of views up to `most` that cuts a rank's share into equal parts of whole blocks."""
    fitting = [size for size in range(block, min(share, most) + 1, block) if share % size == 0]
    if not fitting:
        raise UserError(
            f"engine.micro_batch is {most}; views come in blocks of {block}: take at least {block}"
        )
    return fitting[-1]


class Engine:
    """Every method is called by all ranks alike."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        config: EngineConfig,
        ranks: Ranks,
        device: torch.device,
        *,
        micro_batch: int,
        accumulation: int,
        precision: str = "bf16",
        clip: float = 0.0,
    ) -> None:
        self.ranks, self.device, self.stage, self.clip = ranks, device, config.zero_stage, clip
        self.accumulation = accumulation
        if config.grad_checkpointing:
            if not hasattr(model, "set_grad_checkpointing"):
                raise UserError(f"engine.grad_checkpointing: {type(model).__name__} cannot do that")
            model.set_grad_checkpointing()  # type: ignore[operator]
        settings: dict[str, Any] = {
            "train_micro_batch_size_per_gpu": micro_batch,
            "gradient_accumulation_steps": accumulation,
            "zero_allow_untested_optimizer": True,
            "zero_optimization": {"stage": self.stage, **(DURING_BACKWARD if self.stage == 1 else {})},
            # Without ZeRO the gradients are clipped, and looked at, by `step` below.
            "gradient_clipping": clip if self.stage else 0.0,
            "checkpoint": {"tag_validation": "Fail"},
            "steps_per_print": None,
            "timers": {"throughput": {"enabled": False}},  # it waits for the device, twice a step
        }
        if precision == "bf16":
            # Modules named here would also exchange their gradients in bf16.
            settings["torch_autocast"] = {
                "enabled": True,
                "dtype": "bfloat16",
                "lower_precision_safe_modules": [],
            }
        deepspeed = adapter.start(device)
        if self.stage == 3 and config.kernels != "torch":
            # Fused kernels take a block's weights without calling the modules that hold them.
            deepspeed.utils.set_z3_leaf_modules(model, [TNTBlock], raise_if_not_found=False)
        self._engine = deepspeed.initialize(model=model.to(device), optimizer=optimizer, config=settings)[0]
        self._files = adapter.CheckpointFiles()
        adapter.write_by(self._engine, self._files)
        self._gathered = deepspeed.zero.GatheredParameters
        self._engine.train()
        self._parameters = list(self.module.parameters())
        self._buffers = dict(self.module.named_buffers())
        self._named: dict[str, Tensor] = dict(self.module.named_parameters()) | self._buffers
        if not self.stage:  # otherwise DeepSpeed lets a parameter's memory lie elsewhere later on
            self._named = {name: tensor.detach() for name, tensor in self._named.items()}
        # DeepSpeed would exchange gradients after the backward pass, and copy all of them twice.
        self._alone = nullcontext if self.stage else self._engine.no_sync
        self._exchange = None if self.stage or ranks.world == 1 else GradientExchange(self._parameters)
        if config.compile:
            self._engine.compile()

    @property
    def module(self) -> nn.Module:
        return self._engine.module

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Its `param_groups` are those that count: the learning rate is set there."""
        return self._engine.optimizer

    def accumulate(self, images: Tensor, targets: Tensor, criterion: Criterion, keys: np.ndarray) -> Tensor:
        """Forward and backward of one micro-batch: its mean loss. `keys` (int64, B) decide which paths an
        image drops; what else a network of timm's draws follows from the first of them.
        """
        torch.default_generator.manual_seed(int(keys[0]))
        if self.device.type == "cuda":
            torch.cuda.manual_seed(int(keys[0]))
        path_keys = torch.from_numpy(keys).to(self.device, non_blocking=True)
        last = self._engine.is_gradient_accumulation_boundary()
        if self._exchange and last:
            self._exchange.begin()
        with told(), _kernels_named(), self._alone():
            outputs = self._engine(images, path_keys)
            both = isinstance(outputs, tuple)  # with those of a token for distillation
            loss = criterion(tuple(map(Tensor.float, outputs)) if both else outputs.float(), targets)
            # A loss that is not finite makes every gradient so, on all ranks once they are summed: then all
            # see the same norm, and all skip the step. Multiplying by 1 changes no bit.
            finite = torch.where(loss.detach().isfinite(), 1.0, math.nan)
            self._engine.backward(loss * finite)
        if not last:
            self._engine.step()
        return loss.detach()

    def step(self) -> Tensor:
        """The update, after as many micro-batches as make the global batch, and the norm of its gradients.

        Where that is not finite, the weights and the optimizer's state stay as they were: on a GPU its kernel
        sees to that, so that nobody waits for the norm. ZeRO's stages above 0 wait for it.
        """
        if self.stage:
            self._engine.step()
            applied = self._engine.was_step_applied()
            return torch.as_tensor(self._engine.get_global_grad_norm() if applied else math.inf)
        if self._exchange:
            self._exchange.finish()
        norm = nn.utils.get_total_norm([g for p in self._parameters if (g := p.grad) is not None])
        fused = self.optimizer.param_groups[0].get("fused")
        if fused:
            # As torch.amp.GradScaler says it.
            self.optimizer.found_inf = 1 - norm.isfinite().float()  # type: ignore[attr-defined]
        applied = bool(fused or norm.isfinite())
        if applied:
            if self.clip:
                nn.utils.clip_grads_with_norm_(self._parameters, self.clip, norm)
            self.optimizer.step()
        for parameter in self._parameters:
            parameter.grad = None
        adapter.count_step(self._engine, applied)
        return norm

    @contextmanager
    def weights(self) -> Iterator[dict[str, Tensor]]:
        """The whole fp32 weights by name, and buffers, for as long as the block lasts."""
        with self._gathered(self._parameters) if self.stage == 3 else nullcontext():
            yield (
                {name: tensor.detach() for name, tensor in self._named.items()} if self.stage else self._named
            )

    def buffers(self) -> dict[str, Tensor]:
        """Copies of what the next forward pass changes (BatchNorm's statistics); a TNT has none.

        They become the mean over the ranks, so that all ranks measure, store and go on with the same network.
        """
        self.ranks.average([tensor for tensor in self._buffers.values() if tensor.is_floating_point()])
        return {name: tensor.clone() for name, tensor in self._buffers.items()}

    def copy(self) -> dict[str, memoryview]:
        """This rank's files of a checkpoint by their names: everything as it is now."""
        # Before DeepSpeed, whose barriers would keep the other ranks.
        if problems := [error for error in self.ranks.gather(self._unfit()) if error]:
            raise WorkFailed(problems[0])
        self._engine.save_checkpoint(".", tag=FOLDER, save_latest=False)
        return self._files.take()

    def load(self, checkpoint: Path, source: dict[str, int]) -> None:
        """Go on exactly where `copy` was called. `source` tells the layout it was written in (`layout`)."""
        if self.layout() == source or not (self.stage or source["zero_stage"]):
            with adapter.plain_pickles():
                self._load(checkpoint, universal=False)
            return
        if not (self.stage and source["zero_stage"]):
            raise UserError(
                f"the checkpoint {checkpoint} was written with engine.zero_stage={source['zero_stage']}, and "
                f"ZeRO {self.stage} cannot read it: go on with engine.zero_stage={source['zero_stage']}"
            )
        with adapter.plain_pickles(), adapter.universal(checkpoint / FOLDER, self.ranks) as folder:
            self._load(folder, universal=True)

    def layout(self) -> dict[str, int]:
        """What decides how a checkpoint is cut into files; the trainer keeps it beside them."""
        return {"world": self.ranks.world, "zero_stage": self.stage}

    def _load(self, checkpoint: Path, universal: bool) -> None:
        adapter.choose_form(self._engine, universal)
        path, _ = self._engine.load_checkpoint(str(checkpoint), tag=FOLDER, load_lr_scheduler_states=False)
        if path is None:
            raise WorkFailed(f"DeepSpeed found nothing to load in {checkpoint / FOLDER}")

    def _unfit(self) -> str:
        # Under ZeRO 3 this rank's part of each.
        parts = {name: getattr(p, "ds_tensor", p) for name, p in self.module.named_parameters()}
        finite = torch.stack([torch.isfinite(part).all() for part in parts.values()]).tolist()
        bad = next((name for name, sound in zip(parts, finite, strict=True) if not sound), "")
        return f"rank {self.ranks.rank}: the weights {bad} are not finite" if bad else ""


@contextmanager
def _kernels_named() -> Iterator[None]:
    """A kernel that engine.deterministic forbids is said in a line."""
    try:
        yield
    except RuntimeError as error:
        name, found, _ = str(error).partition(" does not have a deterministic implementation")
        if not found:
            raise
        raise UserError(
            f"engine.deterministic=true: this network needs {name.split()[-1]}, which cannot be "
            "deterministic on this device; take engine.deterministic=false"
        ) from error
