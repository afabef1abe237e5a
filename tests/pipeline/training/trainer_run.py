"""A rank of a short run for test_trainer: trainer_run.py '{"settings": …, "steps": …}'; prints what it saw.

Its optimizer is the one for GPUs. It counts, step by step, what would make a GPU and its host wait for each
other (a number that is read from a tensor), and exchanges between hosts.
"""

import json
import math
import sys
from collections import Counter

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.config.overrides import compose
from pipeline.processes.interrupt import Interrupt
from pipeline.processes.place import find_place
from pipeline.processes.ranks import Ranks, joined
from pipeline.training import trainer as module
from pipeline.training.optim import optimizer
from pipeline.training.trainer import Trainer
from tests.pipeline.small_runs import SMALL

READING = {
    Tensor.item, Tensor.tolist, Tensor.cpu, Tensor.numpy, Tensor.nonzero,
    Tensor.__float__, Tensor.__int__, Tensor.__bool__, Tensor.__index__,
}  # fmt: skip
READING_INSIDE = {torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero}


class ReadsInPython(TorchFunctionMode):
    def __init__(self, seen: Counter) -> None:
        super().__init__()
        self.seen = seen

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.seen["read"] += func in READING
        return func(*args, **(kwargs or {}))


class ReadsInside(TorchDispatchMode):
    """Of operators that read a number themselves."""

    def __init__(self, seen: Counter) -> None:
        super().__init__()
        self.seen = seen

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen["read inside"] += func.overloadpacket in READING_INSIDE
        return func(*args, **(kwargs or {}))


def watch(ranks: Ranks, seen: Counter, now: list[int]) -> None:
    """Count exchanges between hosts, and when the steps' numbers are read."""

    def counting(call):
        def counted(*values):
            seen["host exchange"] += 1
            before = seen["read"], seen["read inside"]
            told = call(*values)  # what it reads is the host's
            seen["read"], seen["read inside"] = before
            return told

        return counted

    for name in ("sum", "gather", "share"):
        setattr(ranks, name, counting(getattr(ranks, name)))
    send = ranks.sum_later

    def sum_later(values):
        read, sent = send(values), now[0]

        def counted():
            seen["this step's numbers" if sent == now[0] else "numbers of the step before"] += 1
            before = seen["read"], seen["read inside"]
            numbers = read()  # on a GPU, from pinned memory
            seen["read"], seen["read inside"] = before
            return numbers

        return counted

    ranks.sum_later = sum_later


def main(options: dict) -> None:
    torch.set_num_threads(1)
    small = (
        "model.depth=1",
        "model.patch_dim=64",
        "model.outer_heads=2",
        "data.augmentation.mix_probability=1",
    )
    config = compose([*SMALL, *small, *options["settings"]])
    place, device = find_place(), torch.device("cpu")
    module.optimizer = lambda model, recipe, fused: optimizer(model, recipe, fused=True)
    seen: Counter = Counter()
    now, told = [0], []
    with (
        joined(place, device, 60) as ranks,
        Interrupt() as interrupt,
        Trainer(config, ranks, device) as trainer,
    ):
        watch(ranks, seen, now)
        accumulate = trainer.engine.accumulate

        def poisoned(images, *others):
            if now[0] == options["poisoned"] and ranks.rank == ranks.world - 1:
                images = images * math.nan
            return accumulate(images, *others)

        trainer.engine.accumulate = poisoned
        steps = trainer.steps_of_epoch(interrupt)
        with ReadsInPython(seen), ReadsInside(seen):
            for now[0] in range(1, options["steps"] + 1):
                seen.clear()
                done = next(steps)
                told.append({**{name: n for name, n in seen.items() if n}, "line": done.values is not None})
                told[-1] |= {"skipped": trainer.state.skipped, "damaged": trainer.loader.damaged()}
        print(json.dumps([told, trainer.state.events]))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
