"""A network of one's own with the weights that a run left."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from tnt.own.network import make
from tnt.untrusted.reading import read_json
from tnt.weights.tensors import read_tensors

WEIGHTS, DESCRIPTION = "model.safetensors", "config.json"  # in a run's directory


def open_own(name: str, weights: str | None, ema: bool, changes: Mapping[str, Any]) -> nn.Module:
    """The file's settings are those of `config.json` beside it; without weights, the settings' defaults."""
    if weights is None:
        return make(name, changes)
    path = Path(weights)
    path = path / WEIGHTS if path.is_dir() else path
    try:
        described = read_json(path.with_name(DESCRIPTION), {"architecture": str, "network": dict})
    except FileNotFoundError:
        raise ValueError(f"{path.with_name(DESCRIPTION)}, which says its settings, is not there") from None
    if described["architecture"] != name:
        raise ValueError(f"{path} holds {described['architecture']}, not {name}")
    network = make(name, described["network"] | changes)
    state, _ = read_tensors(path, ema)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:3]]
        raise ValueError(f"{path} does not fit {name}: {' '.join(lines)}") from error
    return network
