"""The network that a config names, ours or timm's, behind one interface, and its weights in files.

Every network made here takes images, and in training keys that decide which paths each of them drops; it
gives logits, and has `set_grad_checkpointing(enable)`.
"""

import dataclasses
import difflib
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

import tnt.weights
from pipeline.config.identity import is_run_id
from pipeline.config.run import RunConfig
from pipeline.config.science import ModelConfig
from pipeline.data.augmentation.settings import Augmentation
from pipeline.errors import UserError, WorkFailed
from pipeline.files import publish_bytes
from pipeline.runs.directory import WEIGHTS, WEIGHTS_CONFIG
from pipeline.training.drop_path import key_drop_paths
from tnt.complexity.count import count_macs
from tnt.complexity.formulas import model_macs
from tnt.config import TNTConfig
from tnt.model import TNT
from tnt.weights.tensors import read_tensors, write_tensors


def create(model: ModelConfig) -> nn.Module:
    """The network with random weights, from torch's global generator."""
    if isinstance(model.network, TNTConfig):
        return TNT(model.network)
    return key_drop_paths(_create_timm(model))


def initialise(model: nn.Module, config: RunConfig) -> str:
    """Fill a network from `recipe.init`; says in one line what came from where, "" where it asks for none."""
    init = config.recipe.init
    if not init:
        return ""
    path = Path(config.paths.runs) / init / WEIGHTS if is_run_id(init) else Path(init)
    if is_run_id(init) and not path.exists():
        raise UserError(f"recipe.init={init}: that run has no {WEIGHTS} in {path.parent}; finish it first")
    return load(model, path)


def load(model: nn.Module, path: Path, *, new_head: bool = True) -> str:
    """Weights of any known format; positions are resized. A head for other classes is left as it was made, or
    refused with `new_head=False`.
    """
    try:
        if isinstance(model, TNT):
            return _load_tnt(model, path, new_head)
        return _load_timm(model, path, new_head)
    except UserError:
        raise
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error


def export(
    config: RunConfig, state: Mapping[str, Tensor], directory: Path, facts: Mapping[str, Any] | None = None
) -> Path:
    """`model.safetensors` and `config.json`: a TNT for `tnt.create_model`, timm's in timm's own form."""
    path = directory / WEIGHTS
    timm_name = config.model.timm_name
    if isinstance(config.model.network, TNTConfig):
        network = TNT(config.model.network)
        network.load_state_dict(state)
        tnt.weights.save(network, path)
        described: dict[str, Any] = {"network": dataclasses.asdict(config.model.network)}
    else:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        write_tensors(tensors, {"format": "pt"}, path)
        described = {"num_classes": config.model.network.classes}
    content = {
        "architecture": timm_name or config.model.name,
        **described,
        "pretrained_cfg": _preprocessing(config.data.augmentation, config.model.network.classes),
        "run": dict(facts or {}),
    }
    publish_bytes(directory / WEIGHTS_CONFIG, (json.dumps(content, indent=1) + "\n").encode())
    return path


def timm_preprocessing(model: nn.Module, aug: Augmentation) -> Augmentation:
    """How timm's config of a network wants evaluation images: what it was trained with."""
    own = cast("dict[str, Any]", model.default_cfg)
    return dataclasses.replace(
        aug,
        mean=tuple(own["mean"]),
        std=tuple(own["std"]),
        crop_fraction=float(own["crop_pct"]),
        interpolation=own["interpolation"],
    )


def _preprocessing(aug: Augmentation, classes: int) -> dict[str, Any]:
    return {
        "input_size": [3, aug.image_size, aug.image_size],
        "interpolation": aug.evaluation_interpolation,
        "crop_pct": aug.crop_fraction,
        "mean": list(aug.mean),
        "std": list(aug.std),
        "num_classes": classes,
    }


def _load_tnt(model: TNT, path: Path, new_head: bool) -> str:
    held = tnt.weights.read(path).config
    new_head = new_head and held.classes != model.config.classes
    weights = tnt.weights.load(model, path, new_head=new_head)
    resized = held.image_size != model.config.image_size and model.config.patch_position
    return _said(
        path, f"{weights.format} format", new_head, f"positions {held.image_size} → {model.config.image_size}"
        if resized else "",
    )  # fmt: skip


def _said(path: Path, what: str, new_head: bool, resized: str) -> str:
    notes = [what, *([resized] if resized else []), *(["a new head"] if new_head else [])]
    return f"weights of {path}: {', '.join(notes)}"


def _create_timm(model: ModelConfig) -> nn.Module:
    import timm

    name, network = model.timm_name, model.network
    assert name is not None
    if name not in (known := timm.list_models()):
        near = difflib.get_close_matches(name, known, n=5, cutoff=0.4)
        raise UserError(
            f"timm {timm.__version__} has no model {name!r}; nearest: {', '.join(near) or 'none'}"
        )
    options: dict[str, Any] = {"num_classes": network.classes, "drop_path_rate": network.drop_path}
    try:
        return timm.create_model(name, img_size=network.image_size, **options)
    except TypeError:  # convolutions take any size and no argument for it
        pass
    try:
        return timm.create_model(name, **options)
    except TypeError as error:
        raise UserError(
            f"timm's {name} has no drop path ({error}); train it with recipe.drop_path=0"
        ) from error


def _load_timm(model: nn.Module, path: Path, new_head: bool) -> str:
    state, _ = read_tensors(path, ema=True)
    adapt = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if adapt is not None:
        state = cast("Callable[..., dict[str, Tensor]]", adapt)(state, model)
    own = model.state_dict()
    classifier = cast("dict[str, Any]", model.default_cfg).get("classifier", ())
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    fresh = {
        name
        for name in own
        if name.startswith(tuple(f"{head}." for head in heads))
        and name in state
        and state[name].shape != own[name].shape
    }
    if fresh and new_head:
        state = {name: tensor for name, tensor in state.items() if name not in fresh}
        state |= {name: own[name] for name in fresh}
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:3]]
        raise UserError(f"{path} does not fit {type(model).__name__}: {' '.join(lines)}") from error
    return _said(path, "timm format", bool(fresh), "")


def count_parameters(model: nn.Module) -> int:
    """Trainable ones."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def macs(model: ModelConfig) -> int | None:
    """Multiply-adds of an image; None where not all of a network's could be counted."""
    if isinstance(model.network, TNTConfig):
        return model_macs(model.network)
    with torch.device("meta"):
        network = create(model)
    count = count_macs(network, 3, model.network.image_size)
    return None if count.uncounted else count.matrix


def check_finite(state: Mapping[str, Tensor]) -> None:
    """Refuse weights that hold NaN or infinity."""
    for name, tensor in state.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise WorkFailed(f"{name} holds NaN or infinity; nothing was written")
