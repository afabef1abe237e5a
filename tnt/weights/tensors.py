"""Tensors in files: opened without running code that a file brings, written whole or not at all."""

from __future__ import annotations

import argparse
import errno
import io
import json
import os
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tnt.untrusted.reading import json_of, memory, open_regular, unpacked_size
from tnt.untrusted.writing import storing

State = dict[str, Tensor]
COUNTER = "num_batches_tracked"  # of BatchNorm: the one whole number among the weights
WRAPPERS = 4  # training scripts put a state dict into a dict, seldom into two


def read_tensors(path: Path, ema: bool) -> tuple[State, dict[str, str]]:
    """A file's tensors under its own names, and what it says of itself (safetensors only)."""
    _check_size(path)
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


def _check_size(path: Path) -> None:
    """Before it is opened: what it claims must be there, and fit into memory."""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            packed = path.suffix != ".safetensors" and zipfile.is_zipfile(file)
            claimed = unpacked_size(file, str(path)) if packed else size
    except FileNotFoundError:
        raise ValueError(f"no weights at {path}") from None
    if claimed > size:
        raise ValueError(f"{path} is refused: its {size:,} bytes would unpack to {claimed:,}")
    if size > memory():
        raise ValueError(
            f"{path} is refused: it has {size / 1e9:,.0f} GB, this machine {memory() / 1e9:,.0f}"
        )


def _open_safetensors(path: Path) -> tuple[State, dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors file: {error}") from error
    return _checked(state, path), metadata


def _unwrap(stored: Any, path: Path, ema: bool) -> State:
    """The tensors of a bare state dict or of a training checkpoint around one."""
    wrappers = ("state_dict_ema", "model_ema", "state_dict", "model") if ema else ("state_dict", "model")
    for _ in range(WRAPPERS):
        if not isinstance(stored, dict) or any(isinstance(value, Tensor) for value in stored.values()):
            break
        inner = next((stored[key] for key in wrappers if stored.get(key)), None)
        if inner is None:
            keys = ", ".join(map(str, list(stored)[:10]))
            raise ValueError(f"{path} holds no weights under {', '.join(wrappers)}; its keys: {keys}")
        stored = inner
    else:
        raise ValueError(f"{path} holds no weights: dicts lie in each other more than {WRAPPERS} deep")
    if not isinstance(stored, dict):
        raise ValueError(f"{path} holds a {type(stored).__name__}, not named tensors")
    named = {str(name).removeprefix("module."): tensor for name, tensor in stored.items()}
    return _checked(named, path)


def _checked(named: dict[str, Any], path: Path) -> State:
    """Plain tensors of numbers that are there; a view can claim more elements than its file holds."""
    for name, tensor in named.items():
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{path}: {name} is a {type(tensor).__name__}, no tensor")
        if name.rpartition(".")[2] == COUNTER and not tensor.ndim and tensor.dtype == torch.int64:
            continue
        plain = tensor.layout is torch.strided and tensor.device.type == "cpu" and tensor.is_floating_point()
        if not plain:
            what = f"{tensor.dtype}, {tensor.layout}, on {tensor.device}".replace("torch.", "")
            raise ValueError(f"{path}: {name} is no plain tensor of numbers with a point ({what})")
        if not tensor.ndim or not tensor.numel():
            raise ValueError(f"{path}: {name} has shape {tuple(tensor.shape)}, which no part of a TNT has")
        if tensor.numel() * tensor.itemsize > tensor.untyped_storage().nbytes():
            raise ValueError(f"{path}: {name} claims shape {tuple(tensor.shape)}, more than the file holds")
    return named


def write_tensors(tensors: State, metadata: dict[str, str], path: Path) -> None:
    """Whole or not at all; safetensors, or a pickle if the name ends in .pth, .pt or .tar."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    size = sum(tensor.nbytes for tensor in tensors.values())
    with storing(path, size):
        try:
            if path.suffix in (".pth", ".pt", ".tar"):
                content = io.BytesIO()
                torch.save(tensors, content)  # into a file, it hides a full disk behind an error of its own
                temporary.write_bytes(content.getbuffer())
            else:
                temporary.touch()
                mode = temporary.stat().st_mode  # by the umask, which the library ignores
                free = shutil.disk_usage(path.absolute().parent).free
                try:
                    save_file(tensors, temporary, metadata=metadata)
                except SafetensorError as error:  # it tells what the system said in words alone
                    if size > free:
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
                    raise OSError(errno.EIO, str(error), str(path)) from error
                temporary.chmod(mode)
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
        header = json_of(file.read(size), str(path), dict)
        if "__metadata__" in header:
            header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        assert len(text) <= size, "the same entries take no more room in another order"
        file.seek(8)
        file.write(text.ljust(size))
