"""Tensors in files: opened without running code that a file brings, written whole or not at all."""

from __future__ import annotations

import argparse
import json
import os
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

State = dict[str, Tensor]


def read_tensors(path: Path, ema: bool) -> tuple[State, dict[str, str]]:
    """A file's tensors under its own names, and what it says of itself (safetensors only)."""
    if not path.is_file():
        raise ValueError(f"no weights at {path}")
    if path.suffix == ".safetensors":
        return _open_safetensors(path)
    try:
        # Training scripts keep their argparse.Namespace beside the weights; making one runs no code.
        with torch.serialization.safe_globals([argparse.Namespace]):
            stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # an unpickler that is fed garbage may raise anything
        code = re.search(r"GLOBAL (\S+)", str(error))
        if code:
            raise ValueError(
                f"{path} is refused: it asks for {code[1]}, and opening it could run code; "
                "save its state_dict alone and load that"
            ) from error
        raise ValueError(f"{path} is damaged or no weights file ({type(error).__name__})") from error
    return _unwrap(stored, path, ema), {}


def _open_safetensors(path: Path) -> tuple[State, dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors file: {error}") from error
    return state, metadata


def _unwrap(stored: Any, path: Path, ema: bool) -> State:
    """The tensors of a bare state dict or of a training checkpoint around one."""
    wrappers = ("state_dict_ema", "model_ema", "state_dict", "model") if ema else ("state_dict", "model")
    while isinstance(stored, dict) and not any(isinstance(value, Tensor) for value in stored.values()):
        inner = next((stored[key] for key in wrappers if stored.get(key)), None)
        if inner is None:
            raise ValueError(
                f"{path} holds no weights under {', '.join(wrappers)}; its keys: {', '.join(stored)}"
            )
        stored = inner
    if not isinstance(stored, dict):
        raise ValueError(f"{path} holds a {type(stored).__name__}, not named tensors")
    return {name.removeprefix("module."): tensor for name, tensor in stored.items()}


def write_tensors(tensors: State, metadata: dict[str, str], path: Path) -> None:
    """Whole or not at all; safetensors, or a pickle if the name ends in .pth, .pt or .tar."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        if path.suffix in (".pth", ".pt", ".tar"):
            torch.save(tensors, temporary)
        else:
            try:
                save_file(tensors, temporary, metadata=metadata)
            except SafetensorError as error:  # a full disk
                raise OSError(f"{path}: {error}") from error
            _sort_metadata(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _sort_metadata(path: Path) -> None:
    """safetensors writes metadata in any order; equal weights must be equal files."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        if "__metadata__" in header:
            header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        assert len(text) <= size, "the same entries take no more room in another order"
        file.seek(8)
        file.write(text.ljust(size))
