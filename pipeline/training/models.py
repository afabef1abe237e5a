"""The network that a config names, ours, timm's or the user's, behind one interface; its weights in files.

Every network made here takes images, and in training keys that decide which paths each of them drops; it
gives logits, and has `set_grad_checkpointing(enable)`.
"""

import dataclasses
import difflib
import inspect
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

import tnt.weights
from pipeline.config.identity import is_run_id
from pipeline.config.overrides import compose
from pipeline.config.run import RunConfig, read
from pipeline.config.science import ModelConfig, OwnConfig, TimmConfig
from pipeline.data.augmentation.settings import Augmentation
from pipeline.errors import UserError, WorkFailed
from pipeline.files import publish_bytes
from pipeline.runs.directory import CONFIG, WEIGHTS, WEIGHTS_CONFIG
from pipeline.training.drop_path import key_drop_paths
from tnt.block import TNTBlock
from tnt.complexity.count import count_macs
from tnt.complexity.formulas import model_macs
from tnt.config import PyramidConfig, TNTConfig
from tnt.model import TNT
from tnt.own import network as own
from tnt.pyramid.model import PyramidTNT
from tnt.weights.tensors import read_tensors, write_tensors


def create(model: ModelConfig) -> nn.Module:
    """The network with random weights, from torch's global generator."""
    if isinstance(model.network, TNTConfig | PyramidConfig):
        return tnt.weights.network(model.network)
    if isinstance(model.network, TimmConfig):
        return key_drop_paths(_create_timm(model))
    network = own.make(model.name, dataclasses.asdict(model.network))
    takes_keys = "path_keys" in inspect.signature(network.forward).parameters
    return network if takes_keys else key_drop_paths(network)


def initialise(model: nn.Module, config: RunConfig) -> str:
    """As the recipe has it, from `recipe.init`; says in one line what came from where, or "" for nothing."""
    recipe = config.recipe
    if recipe.drop_path_rates == "uniform":
        if not isinstance(model, TNT):
            raise UserError(f"recipe.drop_path_rates=uniform is for a TNT; {config.model.name} is none")
        for block in cast("list[TNTBlock]", model.blocks):
            block.inner.drop_path = block.outer.drop_path = recipe.drop_path
    if recipe.teacher and hasattr(model, "set_distilled_training"):
        cast(Any, model).set_distilled_training(True)
    return load(model, _weights_of("recipe.init", recipe.init, config)) if recipe.init else ""


def teacher(config: RunConfig, device: torch.device) -> nn.Module | None:
    """The network whose answers are half of the targets, ready to answer; None where there is none."""
    said, name = config.recipe.teacher, config.recipe.teacher_network
    if not said:
        return None
    path = _weights_of("recipe.teacher", said, config)
    if is_run_id(said):
        model = read(path.with_name(CONFIG)).model
    elif name:
        data = config.data
        sizes = f"data.image_size={data.image_size}", f"data.classes={data.classes}", "recipe.drop_path=0"
        model = compose([f"scale={config.scale}", f"model={name}", *sizes]).model
    else:
        raise UserError(f"recipe.teacher={said}: say which network that is by recipe.teacher_network=")
    if model.network.classes != config.data.classes:
        raise UserError(f"recipe.teacher={said} tells {model.network.classes} classes from each other")
    network = create(model)
    load(network, path, new_head=False)
    return network.requires_grad_(False).eval().to(device)


def _weights_of(setting: str, said: str, config: RunConfig) -> Path:
    """A file, or what the run of that id left."""
    path = Path(config.paths.runs) / said / WEIGHTS if is_run_id(said) else Path(said)
    if is_run_id(said) and not path.exists():
        raise UserError(f"{setting}={said}: that run has no {WEIGHTS} in {path.parent}; finish it first")
    return path


def load(model: nn.Module, path: Path, *, new_head: bool = True) -> str:
    """Weights of any known format; positions are resized. A head for other classes is left as it was made, or
    refused with `new_head=False`.
    """
    try:
        if isinstance(model, TNT | PyramidTNT):
            notes = _load_ours(model, path, new_head)
        else:
            notes = _load_by_name(model, path, new_head)
    except UserError:
        raise
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error
    return f"weights of {path}: {', '.join(filter(None, notes))}"


def export(
    config: RunConfig, state: Mapping[str, Tensor], directory: Path, facts: Mapping[str, Any] | None = None
) -> Path:
    """`model.safetensors` and `config.json`: a TNT for `tnt.create_model`, timm's in timm's own form."""
    path = directory / WEIGHTS
    settings, aug = config.model.network, config.data.augmentation
    described: dict[str, Any] = {"network": dataclasses.asdict(settings)}
    if isinstance(settings, TNTConfig | PyramidConfig):
        network = tnt.weights.network(settings)
        network.load_state_dict(state)
        tnt.weights.save(network, path)
    else:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        write_tensors(tensors, {"format": "pt"}, path)
    if isinstance(settings, TimmConfig):
        described = {"num_classes": settings.classes}
    elif isinstance(settings, OwnConfig):
        described["source"] = settings.source
    content = {
        "architecture": config.model.timm_name or config.model.name,
        **described,
        "pretrained_cfg": {
            "input_size": [3, aug.image_size, aug.image_size],
            "interpolation": aug.evaluation_interpolation,
            "crop_pct": aug.crop_fraction,
            "mean": list(aug.mean),
            "std": list(aug.std),
            "num_classes": settings.classes,
        },
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


def _load_ours(model: TNT | PyramidTNT, path: Path, new_head: bool) -> tuple[str, ...]:
    held = tnt.weights.read(path).config
    new_head = new_head and held.classes != model.config.classes
    weights = tnt.weights.load(model, path, new_head=new_head)
    resized = held.image_size != model.config.image_size and getattr(model.config, "patch_position", True)
    positions = f"positions {held.image_size} → {model.config.image_size}" if resized else ""
    return f"{weights.format} format", positions, "a new head" if new_head else ""


def _create_timm(model: ModelConfig) -> nn.Module:
    import timm

    name, network = model.timm_name, model.network
    assert name is not None
    if name.partition(".")[0] not in (known := timm.list_models()):  # a tag may follow
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


def _load_by_name(model: nn.Module, path: Path, new_head: bool) -> tuple[str, ...]:
    """Into a network of timm's, or the user's own, whose last layer is `head` if it is to have new ones."""
    state, _ = read_tensors(path, ema=True)
    adapt = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if adapt is not None:
        state = cast("Callable[..., dict[str, Tensor]]", adapt)(state, model)
    own = model.state_dict()
    classifier = cast("dict[str, Any]", getattr(model, "default_cfg", {})).get("classifier", "head")
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    fresh = {
        name
        for name in own
        if name.startswith(tuple(f"{head}." for head in heads))
        and name in state
        and state[name].shape != own[name].shape
    }
    if fresh and new_head:
        state = state | {name: own[name] for name in fresh}
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:3]]
        raise UserError(f"{path} does not fit {type(model).__name__}: {' '.join(lines)}") from error
    return "its own names", "a new head" if fresh else ""


def count(model: ModelConfig) -> tuple[int, int, tuple[str, ...]]:
    """Its parameters, the multiply-adds of an image, and the operators whose cost nobody counted."""
    if isinstance(model.network, TNTConfig | PyramidConfig):
        with torch.device("meta"):
            return count_parameters(create(model)), model_macs(model.network), ()
    # A network of one's own may compute with its weights while it is made.
    with torch.device("cpu" if isinstance(model.network, OwnConfig) else "meta"):
        network = create(model)
    found = count_macs(network, 3, model.network.image_size)
    return count_parameters(network), found.matrix, found.uncounted


def count_parameters(model: nn.Module) -> int:
    """Trainable ones."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def macs(model: ModelConfig) -> int | None:
    """Multiply-adds of an image; None where not all of a network's could be counted."""
    _, found, uncounted = count(model)
    return None if uncounted else found


def check_finite(state: Mapping[str, Tensor]) -> None:
    """Refuse weights that hold NaN or infinity."""
    for name, tensor in state.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise WorkFailed(f"{name} holds NaN or infinity; nothing was written")
