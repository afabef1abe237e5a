"""A rank of tiny training runs for test_engine: engine_run.py '[{"stage": 2, …}, …]'; prints what came out.

Runs of one process follow each other, each with an engine of its own. The global batch of a step follows from
the step; each rank takes its part of it.
"""

import functools
import hashlib
import json
import math
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

import tnt
from pipeline.config.machine import EngineConfig
from pipeline.errors import UserError
from pipeline.processes.device import find_device
from pipeline.processes.place import find_place
from pipeline.processes.ranks import joined
from pipeline.runs.checkpoints import Checkpoints, write_files
from pipeline.training.parallel import exchange
from pipeline.training.parallel.engine import Engine

GLOBAL_BATCH = 8


def forbidden(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """A loss by a kernel that is not deterministic on any device."""
    return logits.clone().put_(labels, logits[0, labels]).sum()


def build(options: dict, ranks, device: torch.device) -> Engine:
    torch.manual_seed(0)
    exchange.BUCKET = options.get("bucket", 25 << 20)
    model = tnt.create_model(
        "tnt_ti",
        image_size=32,
        depth=1,
        patch_dim=64,
        outer_heads=2,
        word_dim=4,
        inner_heads=2,
        classes=4,
        drop_path=0.2,
    )
    model.set_kernels(options.get("kernels", "torch"))
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, fused=options.get("fused"))
    share = GLOBAL_BATCH // ranks.world
    size = options.get("micro_batch", share)
    return Engine(
        model,
        optimizer,
        EngineConfig(
            device=device.type,
            zero_stage=options["stage"],
            compile=options.get("compile", False),
            kernels=options.get("kernels", "torch"),
            grad_checkpointing=options.get("grad_checkpointing", False),
        ),
        ranks,
        device,
        micro_batch=size,
        accumulation=share // size,
        precision=options.get("precision", "bf16"),
        clip=options.get("clip", 0.0),
    )


def train_step(engine: Engine, step: int, options: dict) -> dict:
    generator = torch.Generator().manual_seed(step)
    images = torch.randn(GLOBAL_BATCH, 3, 32, 32, generator=generator)
    labels = torch.randint(0, 4, (GLOBAL_BATCH,), generator=generator)
    keys = torch.randint(2**63 - 1, (GLOBAL_BATCH,), generator=generator)
    if step in options.get("poisoned", []):
        images[-1, 0, 0, 0] = torch.nan  # the last rank's last micro-batch
    share = GLOBAL_BATCH // engine.ranks.world
    size, first = share // engine.accumulation, engine.ranks.rank * share
    for group in engine.optimizer.param_groups:
        group["lr"] = 1e-3 / (1 + step)
    loss = 0.0
    for micro in range(engine.accumulation):
        part = slice(first + micro * size, first + (micro + 1) * size)
        criterion = forbidden if options.get("forbidden") else F.cross_entropy
        here = images[part].to(engine.device), labels[part].to(engine.device)
        loss += float(engine.accumulate(*here, criterion, keys[part].numpy()))
    early = len(engine._exchange._sent) if engine._exchange else 0  # buckets that the backward pass sent
    norm = float(engine.step())
    mean = engine.ranks.sum([loss])[0] / engine.ranks.world / engine.accumulation
    return {"loss": mean, "applied": math.isfinite(norm), "norm": norm, "early": early}


def digest(engine: Engine) -> str:
    total = hashlib.sha256()
    with engine.weights() as weights:
        for name, tensor in sorted(weights.items()):
            total.update(name.encode())
            total.update(tensor.contiguous().cpu().numpy().tobytes())
    return total.hexdigest()


def run(options: dict, ranks, device: torch.device) -> dict:
    engine = build(options, ranks, device)
    said: dict = {"steps": [], "dtypes": sorted({str(p.dtype) for p in engine.module.parameters()})}
    first = 0
    checkpoints = Checkpoints(Path(options["root"]), ranks) if "root" in options else None
    try:
        if checkpoints and (found := checkpoints.resume()):
            engine.load(found.path, found.state["layout"])
            first = found.step
            said["resumed"] = {"step": first, "weights": digest(engine)}
        for step in range(first, options["steps"]):
            said["steps"].append(train_step(engine, step, options))
            if checkpoints and step + 1 in options.get("save", []):
                if options.get("spoilt"):
                    spoil(engine)
                write = functools.partial(write_files, engine.copy())
                path = checkpoints.publish(step + 1, write, {"layout": engine.layout()})
                said["saved"] = {"weights": digest(engine), "files": (path / "MANIFEST.json").read_text()}
    except UserError as error:
        said["error"] = str(error)
    said["weights"] = digest(engine)
    return said


@torch.no_grad()
def spoil(engine: Engine) -> None:
    for p in engine.module.parameters():
        getattr(p, "ds_tensor", p).view(-1)[0] = torch.nan


def main(runs: list[dict]) -> None:
    torch.set_num_threads(1)
    place = find_place()
    device = find_device(
        runs[0].get("device", "cpu"), place, deterministic=runs[0].get("deterministic", False)
    )
    with joined(place, device, timeout=60) as ranks:
        print(json.dumps([run(options, ranks, device) for options in runs]))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
