"""The parts of one training run, and a step of it on one global batch.

No state of a random generator is kept: what happens in a step is a function of the seed, the epoch, the step
and a view's place in the global batch. So a run continues exactly from weights, optimizer state and step.
"""

import copy
import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.config.run import RunConfig
from pipeline.config.science import sampling
from pipeline.data import dataset
from pipeline.data.labels import Answers
from pipeline.data.loading.batch import MicroBatch
from pipeline.data.loading.loader import EvaluationLoader
from pipeline.data.loading.ready import ReadyBatch, ready
from pipeline.data.randomness import Purpose, philox
from pipeline.errors import WorkFailed
from pipeline.processes.device import device_name
from pipeline.processes.interrupt import Interrupt
from pipeline.processes.pace import Pace, known_gpu, limits
from pipeline.processes.ranks import Ranks
from pipeline.runs.checkpoints import Checkpoint, write_files
from pipeline.runs.records import Measures
from pipeline.training import models
from pipeline.training.ema import Ema
from pipeline.training.evaluation import measure
from pipeline.training.kernels import Load, choose
from pipeline.training.logger import RunSize
from pipeline.training.optim import Objective, Schedule, optimizer
from pipeline.training.outcome import Sent, StepOutcome, StepResult, TrainingState, send
from pipeline.training.parallel.engine import Engine, micro_batch
from tnt.model import TNT
from tnt.weights.tensors import read_tensors, write_tensors

EMA = "ema.safetensors"  # in a checkpoint
PATIENCE = 3  # steps in a row that may come out not finite


class Trainer(ExitStack):
    """Every method is called by all ranks alike."""

    def __init__(self, config: RunConfig, ranks: Ranks, device: torch.device) -> None:
        super().__init__()
        self.config, self.ranks, self.device = config, ranks, device
        self.state = TrainingState()
        self.measured: dict[str, Measures] = {}  # by the last evaluation, as a record names them
        self.answers: dict[str, np.ndarray] = {}  # by the same: those of raw and ema
        self.failed_saves = 0  # in a row
        data, recipe, machine = config.data, config.recipe, config.engine
        order = sampling(data, recipe, config.seed)
        order.check_world(ranks.world)
        share = recipe.global_batch // ranks.world
        size = micro_batch(share, machine.micro_batch, order.pairing_block)
        self.micro_batch, self.kernels = size, "torch"
        # Imports of the workers and of the engine take seconds; the workers' go on beside ours.
        self.loader = dataset.training_batches(
            data, order, micro_batch=size, rank=ranks.rank, world=ranks.world
        )
        self.state.events += self.loader.remarks
        self.enter_context(self.loader)
        self.steps = recipe.epochs * self.loader.steps_per_epoch
        torch.manual_seed(int(philox(config.seed, Purpose.WEIGHTS, 0).random_raw() >> 1))
        model = models.create(config.model)
        self.origin = models.initialise(model, config)
        self.network = models.create(config.model).eval().to(device)  # for measuring; holds no own weights
        self.objective = Objective(recipe, models.teacher(config, device), config.precision)
        self.schedule = Schedule(recipe, self.loader.steps_per_epoch)
        self.engine = Engine(
            model,
            optimizer(model, recipe, fused=device.type == "cuda" or None),
            machine,
            ranks,
            device,
            micro_batch=size,
            accumulation=share // size,
            precision=config.precision,
            clip=recipe.clip,
        )
        ranks.wait_at_most(config.cluster.start_timeout)  # also in the groups that DeepSpeed has made by now
        self._first_step, self.pace = True, Pace(device)
        self._sent: Sent | None = None
        self._evaluation: tuple[EvaluationLoader, Answers] | None = None
        self.ema: Ema | None = None
        if recipe.ema:
            with self.engine.weights() as weights:
                self.ema = Ema(weights, recipe.ema, recipe.ema_share, self.steps)
        self.saved_now()

    def choose_kernels(self, before: str = "") -> str:
        """After `engine.kernels`, but a run keeps those that it began with; says in a line why these."""
        load = Load(self.micro_batch, self.config.precision, training=True)
        networks, wanted = (self.engine.module, self.network), self.config.engine.kernels
        self.kernels, why = choose(networks, wanted, self.device, load, self.ranks, before)
        return why

    def size(self) -> RunSize:
        config, world, device = self.config, self.ranks.world, device_name(self.device)
        macs = models.macs(config.model) if known_gpu(device) else None
        most = limits(config.model.network, config.precision, macs, device, world)
        return RunSize(self.steps, self.loader.steps_per_epoch, config.recipe.global_batch, world, most)

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return self.loader.epoch

    def at_end_of_epoch(self) -> bool:
        return self.state.step % self.loader.steps_per_epoch == 0

    def evaluation_is_due(self) -> bool:
        return self._ends_epoch_of(self.config.recipe.evaluate_every)

    def checkpoint_is_due(self) -> bool:
        """By the step alone; minutes are `StepResult.due`'s."""
        return self.evaluation_is_due() or self._ends_epoch_of(self.config.engine.checkpoint_every)

    def _ends_epoch_of(self, every: int) -> bool:
        """Whether the step is the last of every `every`th epoch, or of the run."""
        step = self.state.step
        return step == self.steps or (step > 0 and self.at_end_of_epoch() and self.epoch % every == 0)

    def saved_now(self) -> None:
        self._saved = time.monotonic()

    def asked_to_end(self, interrupt: Interrupt) -> bool:
        return bool(self.ranks.sum([bool(interrupt)])[0])

    def steps_of_epoch(self, interrupt: Interrupt) -> Iterator[StepResult]:
        """To the end of the epoch, step by step."""
        data, seed = self.config.data, self.config.seed
        batches = ready(self.loader, data.augmentation, data.classes, seed, self.device)
        while done := self.train_step(batches, interrupt):
            yield done

    def train_step(self, batches: Iterator[ReadyBatch], interrupt: Interrupt) -> StepResult | None:
        """Batch → loss → gradients → update → average; None when the epoch has ended.

        The device computes while this process is ahead of it: what a step came to is read in the next one,
        just before the update. It is read at once where a line is written, where an epoch ends, and where the
        run is to be saved.
        """
        parts: list[MicroBatch] = []
        losses, wait = [], 0.0
        with self.pace.working():
            while not (parts and parts[-1].last):
                batch = next(batches, None)
                if batch is None:
                    return None
                loss = self.objective.of(batch.images)
                losses.append(self.engine.accumulate(batch.images, batch.targets, loss, batch.keys))
                parts.append(batch.loaded)
                wait += batch.wait
        before = self._outcome()

        step = self.state.step
        lr = self.schedule.apply(self.engine.optimizer, step)
        norm = self.engine.step()
        self.state.step += 1
        if self._first_step:
            self.ranks.wait_at_most(self.config.cluster.timeout)
            self._first_step = False
        may_pause = self.loader.resumes_within_epoch or self.at_end_of_epoch()
        flags = may_pause and bool(interrupt), may_pause and self._minutes_are_over(), self.loader.fresh > 0
        numbers = send(self.ranks, losses, norm, *flags)
        self._sent = Sent(step, parts, losses, self.engine.buffers(), numbers)

        saves = before.asked_to_end or before.due
        line = (step + 1) % self.config.logging.every == 0 or step + 1 in (1, self.steps)
        now = self._outcome() if line or saves or self.at_end_of_epoch() else StepOutcome()
        return StepResult(
            {"loss": now.loss, "lr": lr, "grad_norm": now.grad_norm} if line else None,
            wait,
            asked_to_end=before.asked_to_end or now.asked_to_end,
            due=before.due or now.due,
            slowest=self.pace.slowest(self.ranks) if line else None,
        )

    def measure(self, interrupt: Interrupt) -> None:
        """The weights as they are, and their moving average, on the validation split; at the end in fp32 too.

        EvaluationStopped at the next batch where some rank is asked to end.
        """
        config, ranks = self.config, self.ranks
        if not self._evaluation:  # its workers wait for the next one
            loader, answers = dataset.evaluation_batches(
                config.data, batch=config.engine.evaluation_batch, rank=ranks.rank, world=ranks.world
            )
            self._evaluation = self.enter_context(loader), answers
        loader, answers = self._evaluation
        networks = {"raw": self.network}
        with self.engine.weights() as weights:
            self.network.load_state_dict(weights)
        if self.ema:
            networks["ema"] = copy.deepcopy(self.network)
            networks["ema"].load_state_dict(self.ema.state_dict())
        precisions = {"": config.precision}
        if self.state.step == self.steps and config.precision != "fp32":
            precisions["_fp32"] = "fp32"
        for suffix, precision in precisions.items():
            for network in networks.values():
                if suffix and isinstance(network, TNT):
                    network.set_kernels("torch")  # the fused ones were tried in the run's precision only
            found, _ = measure(
                networks,
                loader,
                answers,
                config.data.augmentation,
                ranks,
                self.device,
                precision,
                lambda: self.asked_to_end(interrupt),
            )
            self.measured |= {f"{name}{suffix}": each.measures for name, each in found.items()}
            if not suffix:
                self.answers = {name: each.answers for name, each in found.items()}
        top1 = self.measured["ema" if self.ema else "raw"].top1
        if top1 >= self.state.best_top1:
            self.state.best, self.state.best_top1 = self.state.step, top1

    def copy(self) -> Callable[[Path], list[str]]:
        """This rank's part of a checkpoint, as everything is now; the function that comes back writes it."""
        files, average = self.engine.copy(), {}
        if self.ema and self.ranks.rank == 0:
            average = {name: tensor.to("cpu", copy=True) for name, tensor in self.ema.state_dict().items()}

        def write(directory: Path) -> list[str]:
            if average:
                write_tensors(average, {}, directory / EMA)
            return [*write_files(files, directory), *([EMA] if average else [])]

        return write

    def checkpoint_state(self) -> dict[str, Any]:
        return {
            "trainer": dataclasses.asdict(self.state),
            "data": self.loader.state(),
            "layout": self.engine.layout(),
            "kernels": self.kernels,
        }

    def load(self, checkpoint: Checkpoint) -> None:
        self.loader.load_state(checkpoint.state["data"])
        self.engine.load(checkpoint.path, checkpoint.state["layout"])
        if self.ema:
            self.ema.load_state_dict(read_tensors(checkpoint.path / EMA, ema=True)[0])
        self.state = TrainingState(**checkpoint.state["trainer"])
        assert self.state.step == checkpoint.step, "the step of another checkpoint"
        self.state.events += checkpoint.passed_over

    def final_weights(self) -> dict[str, Tensor]:
        with self.engine.weights() as weights:
            return {name: tensor.cpu().clone() for name, tensor in weights.items()}

    def _outcome(self) -> StepOutcome:
        """Of the last step, unless it was read before: waited for, and acted upon."""
        sent, self._sent = self._sent, None
        if sent is None:
            return StepOutcome()
        outcome = sent.read()
        if outcome.damaged:
            self.loader.agree(self.ranks)
        if not math.isfinite(outcome.grad_norm):
            self._skipped(sent)
            return outcome
        self.state.in_a_row = 0
        if self.ema:
            with self.engine.weights() as weights:
                self.ema.update(weights | sent.buffers, sent.step)
        return outcome

    def _skipped(self, sent: Sent) -> None:
        state, step = self.state, sent.step + 1
        state.skipped += 1
        state.in_a_row += 1
        parts = zip(sent.batches, sent.losses, strict=True)
        bad = [name for batch, loss in parts if not loss.isfinite() for name in self.loader.names(batch)]
        names = [name for part in self.ranks.gather(bad) for name in part]
        shown = f"{', '.join(names[:10])}{', …' if len(names) > 10 else ''}" or "gradients only"
        if state.in_a_row == PATIENCE:
            raise WorkFailed(
                f"{PATIENCE} steps in a row up to step {step} were not finite (the last: {shown}). "
                "The newest checkpoint is sound; a lower recipe.lr, or recipe.clip, may help"
            )
        state.events.append(f"step {step} was not finite and is skipped ({shown})")

    def _minutes_are_over(self) -> bool:
        minutes = (time.monotonic() - self._saved) / 60
        return self.ranks.rank == 0 and 0 < self.config.engine.checkpoint_minutes <= minutes
