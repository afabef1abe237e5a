"""Measure a network on a split: top-1, top-5, loss, images/s.

    python pipeline/evaluate.py run=<id>                              what a finished run left
    python pipeline/evaluate.py weights=<file> model=tnt_s            official, timm's, mmpretrain's or ours
    python pipeline/evaluate.py weights=timm:tnt_s_patch16_224 model=tnt_s    or weights=demo, of `make demo`
    python pipeline/evaluate.py weights=<file> model=timm:deit_small_patch16_224

data=imagenet_v2 or data=imagenet_real measure on other images or labels, data.image_size=384 at another size
(position embeddings are interpolated). per_class=true lists the classes; confusion=<file.png> draws which
class is taken for which; anchor=<name in timm> notes whose published weights they are, for the report.
Starts as training does, on any number of ranks.
A timm network is fed as its own config says (mean, std, crop, interpolation), others as in the paper.
"""

import dataclasses
import hashlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

try:
    import pipeline  # noqa: F401
except ModuleNotFoundError:
    sys.exit("error: not installed for this Python; `make demo` installs into .venv: activate that")

from pipeline.config import run as configs
from pipeline.config.identity import is_run_id, science
from pipeline.config.overrides import from_command_line
from pipeline.config.run import RunConfig
from pipeline.config.typed import listed
from pipeline.data import dataset
from pipeline.data.augmentation.settings import Augmentation
from pipeline.errors import UserError, command
from pipeline.files import publish_bytes, sha256
from pipeline.processes.device import find_device
from pipeline.processes.place import find_place
from pipeline.processes.ranks import Ranks, joined
from pipeline.runs import answers, evaluations
from pipeline.runs.directory import CONFIG, WEIGHTS, run_directory
from pipeline.runs.provenance import code, versions
from tnt.untrusted.showing import shown

if TYPE_CHECKING:
    import torch

    from pipeline.training.evaluation import Measured

PICTURES = (".png", ".svg")
OWN = ("run", "weights", "anchor", "per_class", "confusion")
MACHINE = ("engine", "paths", "logging", "cluster")


@dataclass(frozen=True)
class EvaluationRequest:
    config: RunConfig
    weights: Path
    as_timm_says: bool  # nobody said how images are to be fed
    per_class: bool = False
    confusion: Path | None = None
    anchor: str = ""  # whose published weights they are, as timm calls them


def main(argv: Sequence[str]) -> int:
    argv = as_settings(argv)
    own = dict(text.split("=", 1) for text in argv if text.split("=", 1)[0] in OWN and "=" in text)
    others = [text for text in argv if text.split("=", 1)[0] not in OWN or "=" not in text]
    config = from_command_line(others, __doc__ or "")
    if config is None:
        return 0
    request = understood(own, others, config)
    place, engine = find_place(), config.engine
    device = find_device(engine.device, place, engine.threads, engine.deterministic)
    with joined(place, device, config.cluster.start_timeout) as ranks:
        run(request, ranks, device)
    return 0


def as_settings(argv: Sequence[str]) -> list[str]:
    """`--weights FILE` as `weights=FILE`, as the commands of `tnt` write it."""
    text = "\n".join(argv)
    return re.sub(r"^--(weights|run)[=\n]", r"\1=", text, flags=re.M).splitlines()


def understood(own: dict[str, str], others: Sequence[str], config: RunConfig) -> EvaluationRequest:
    """What is asked for, refused before anything slow happens."""
    if ("run" in own) == ("weights" in own):
        raise UserError("say what to measure: either run=<id> or weights=<file>")
    if own.get("per_class", "false") not in ("true", "false"):
        raise UserError(f"per_class={own['per_class']}; valid: true, false")
    picture = Path(own["confusion"]) if "confusion" in own else None
    if picture and (picture.suffix not in PICTURES or not picture.absolute().parent.is_dir()):
        raise UserError(f"confusion={picture}: give a file in a folder that exists, as .png or .svg")
    if "run" in own:
        config, weights = _of_run(own["run"], others, config)
    else:
        from tnt.weights.named import located

        weights = located(own["weights"])
        if not weights.is_file():
            raise UserError(f"there are no weights at {weights}")
    said = any(text.startswith("data.augmentation.") for text in others)
    return EvaluationRequest(
        config,
        weights,
        as_timm_says=config.model.timm_name is not None and "run" not in own and not said,
        per_class=own.get("per_class") == "true",
        confusion=picture,
        anchor=own.get("anchor", ""),
    )


def run(request: EvaluationRequest, ranks: Ranks, device: "torch.device") -> None:
    from pipeline.training import kernels, models
    from pipeline.training.evaluation import confusion_of, draw_confusion, measure, per_class

    config = request.config
    if ranks.rank == 0:
        dataset.prepare(config.data)
    ranks.gather(None)  # nobody reads before the digits are there
    model = models.create(config.model)
    said = models.load(model, request.weights, new_head=False)
    aug = config.data.augmentation
    if request.as_timm_says:
        aug = models.timm_preprocessing(model, aug)
    data = dataclasses.replace(config.data, augmentation=aug)
    batch = config.engine.evaluation_batch
    loader, labels = dataset.evaluation_batches(data, batch=batch, rank=ranks.rank, world=ranks.world)
    with loader:
        network = model.eval().to(device)
        load = kernels.Load(batch, config.precision, training=False)
        _, why = kernels.choose([network], config.engine.kernels, device, load, ranks)
        ranks.wait_at_most(config.cluster.timeout)
        networks = {"weights": network}
        found, speed = measure(networks, loader, labels, aug, ranks, device, config.precision)
    if ranks.rank != 0:
        return
    print(*filter(None, (said, why)), sep="\n")
    measured, manifest = found["weights"], loader.manifest
    about = {"images_per_second": round(speed, 2), "params": models.count_parameters(model)}
    path = _record(request, aug, manifest.fingerprint, measured, about)
    m, confusion = measured.measures, confusion_of(measured.answers, labels)
    print(
        f"top-1 {m.top1:.3f} %, top-5 {m.top5:.3f} %, loss {m.loss:.4f}: "
        f"{m.images:,} images of {data.name}, {speed:,.0f} images/s"
    )
    if request.per_class:
        shares = zip(manifest.classes, per_class(confusion), strict=True)
        for name, value in sorted(shares, key=lambda row: row[1]):
            print(f"  {value:6.2f} %  {shown(name)}")
    if request.confusion:
        draw_confusion(confusion, manifest.classes, request.confusion)
        print(f"confusion: {request.confusion}")
    print(f"recorded in {path}")


def _of_run(id: str, others: Sequence[str], asked: RunConfig) -> tuple[RunConfig, Path]:
    """A run's own config, with the data settings and the machine that the command line asks for."""
    directory = run_directory(asked, id)
    if not is_run_id(id) or not directory.is_dir():
        raise UserError(
            f"run={id}: there is no such run in {asked.paths.runs} (paths.runs says where to look)"
        )
    if not (directory / WEIGHTS).is_file():
        raise UserError(f"run={id} has not finished: {directory / WEIGHTS} is not there")
    names = [text.partition("=")[0] for text in others]
    if fixed := {name.split(".")[0] for name in names} & {"model", "recipe", "seed", "scale"}:
        raise UserError(f"run={id} has its own {', '.join(sorted(fixed))}; leave that out")
    values, chosen = configs.plain(configs.read(directory / CONFIG)), configs.plain(asked)
    size = values["data"]["image_size"]
    configs.take(values, chosen, MACHINE)
    configs.take(values, chosen, (name for name in names if name.split(".")[0] in ("data", "precision")))
    if "data.image_size" in names:
        size = asked.data.image_size
    for part in (values["model"], values["data"], values["data"]["augmentation"]):
        part["image_size"] = size
    return configs.from_plain(values), directory / WEIGHTS


def _record(
    request: EvaluationRequest,
    aug: Augmentation,
    fingerprint: str,
    measured: "Measured",
    about: Mapping[str, float],
) -> Path:
    """What was measured, beside the records of runs; measured again, it is written again."""
    chosen = science(
        dataclasses.replace(request.config, recipe=dataclasses.replace(request.config.recipe, init=""))
    )
    what = {
        "model": chosen["model"],
        "data": chosen["data"] | {"augmentation": listed(dataclasses.asdict(aug))},
        "precision": chosen["precision"],
        "weights_sha256": sha256(request.weights),
        "fingerprint": fingerprint,
    }
    name = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]
    answers_path = answers.path_of(request.config.paths.records, name)
    answers.publish({"weights": measured.answers}, answers_path)
    content = {
        "schema": 1,
        "weights": request.weights.name,
        "anchor": request.anchor,
        **what,
        **dataclasses.asdict(measured.measures),
        **about,
        "answers_sha256": sha256(answers_path),
        "right": answers.as_text(answers.right(measured.answers)),
        "commit": code().commit,
        "versions": versions(),
    }
    path = evaluations.folder_of(request.config.paths.records) / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    publish_bytes(path, (json.dumps(content, indent=1) + "\n").encode())
    return path


if __name__ == "__main__":
    command(main)
