"""Arrays that grow on disk row by row, so that a killed run continues, and then become one file.

While it grows, `OUT.parts/` holds an append-only file per array and `index.jsonl`, a line per batch, written
after the batch's rows; rows that no line names are cut off. Features need not fit into memory.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from tnt.untrusted.reading import MOST_BYTES, json_of, open_regular, read_bytes, read_text
from tnt.untrusted.writing import storing
from tnt.weights.tensors import write_tensors

Shapes = Mapping[str, tuple[int, ...]]
SUFFIXES = (".npz", ".safetensors")
INDEX_LINE = {"names": [str], "labels": list, "errors": list}
MOST_INDEX = 1 << 32  # bytes: a line for each image


class FeatureStore:
    """Features on their way to `out`; entering it continues what an earlier run of the same request left."""

    def __init__(self, out: Path, request: Mapping[str, Any], shapes: Shapes, dtype: str) -> None:
        if out.suffix not in SUFFIXES:
            raise ValueError(f"{out}: give a name that ends in {' or '.join(SUFFIXES)}")
        if not out.absolute().parent.is_dir():
            raise ValueError(f"no folder {out.absolute().parent} for {out.name}; make it first")
        self.out = out
        self.parts = out.with_name(out.name + ".parts")
        self.shapes = shapes
        self.dtype = dtype
        arrays = {name: list(shape) for name, shape in shapes.items()}
        self.request = json.dumps({**request, "arrays": arrays, "dtype": dtype}, sort_keys=True)
        self.finished = False
        self.names: list[str] = []
        self.labels: list[int] = []  # -1 where there is none
        self.errors: list[str] = []
        self.seen = 0  # items tried, those that could not be read among them

    @property
    def rows(self) -> int:
        return len(self.names)

    def __enter__(self) -> FeatureStore:
        if self.out.exists():
            request, self.errors = _said_in(self.out)
            if request != self.request:
                raise ValueError(f"{self.out} is there already, from another request; choose another name")
            self.finished = True
            return self
        self.parts.mkdir(exist_ok=True)
        self.lock = (self.parts / "lock").open("w")
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.lock.close()
            if isinstance(error, BlockingIOError):
                raise ValueError(f"another process is writing {self.out}; wait for it or end it") from None
            raise ValueError(
                f"{self.parts} is on a file system without locks ({error.strerror}); choose another"
            ) from None
        self._continue()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.finished:
            self.lock.close()

    def append(
        self,
        arrays: Mapping[str, Tensor],
        names: Sequence[str],
        labels: Sequence[int | None],
        errors: Sequence[str | None],
    ) -> None:
        """A batch; the rows of arrays are those of the names without an error."""
        entry: dict[str, list[Any]] = {"names": list(names), "labels": list(labels), "errors": list(errors)}
        for name, tensor in arrays.items():
            assert tensor.shape[1:] == self.shapes[name], (name, tensor.shape)
            rows = tensor.to("cpu", getattr(torch, self.dtype)).contiguous()
            _append(self._rows_file(name), rows.numpy().tobytes())
        _append(self.parts / "index.jsonl", (json.dumps(entry) + "\n").encode())
        self._count(entry)

    def publish(self) -> None:
        """Write the finished file from the parts, then remove the parts."""
        if self.out.suffix == ".npz":
            self._write_npz()
        else:
            texts = {"names": self.names, "labels": self.labels, "skipped": self.errors}
            metadata = {name: json.dumps(value) for name, value in texts.items()}
            write_tensors(self._arrays(), metadata | {"request": self.request}, self.out)
        shutil.rmtree(self.parts)

    def _continue(self) -> None:
        """Read the index; cut off what a killed run wrote without a line in it."""
        request = self.parts / "request.json"
        if not request.exists():
            _append(request, self.request.encode())
        elif read_text(request) != self.request:
            raise ValueError(
                f"{self.parts} holds the beginning of another request (images, weights or options differ); "
                "remove it or choose another name"
            )
        index = self.parts / "index.jsonl"
        index.touch()
        whole = 0
        for number, line in enumerate(read_bytes(index, MOST_INDEX).splitlines(keepends=True), 1):
            if not line.endswith(b"\n"):
                break
            self._count(json_of(line, f"{index}, line {number}", INDEX_LINE))
            whole += len(line)
        os.truncate(index, whole)
        for name in self.shapes:
            path = self._rows_file(name)
            path.touch()
            expected = self.rows * self._row_bytes(name)
            if path.stat().st_size < expected:
                raise ValueError(
                    f"{path} is shorter than its index says; remove {self.parts} and start again"
                )
            os.truncate(path, expected)

    def _count(self, entry: dict[str, list[Any]]) -> None:
        for name, label, error in zip(entry["names"], entry["labels"], entry["errors"], strict=True):
            self.seen += 1
            if error:
                self.errors.append(error)
            else:
                self.names.append(name)
                self.labels.append(-1 if label is None else label)

    def _rows_file(self, name: str) -> Path:
        return self.parts / f"{name}.rows"

    def _row_bytes(self, name: str) -> int:
        return math.prod(self.shapes[name]) * getattr(torch, self.dtype).itemsize

    def _arrays(self) -> dict[str, Tensor]:
        """The rows of each array, mapped from their files: they need not fit into memory."""
        arrays = {}
        for name, shape in self.shapes.items():
            size, dtype = self.rows * math.prod(shape), getattr(torch, self.dtype)
            path = str(self._rows_file(name))
            flat = torch.from_file(path, size=size, dtype=dtype) if size else torch.empty(0, dtype=dtype)
            arrays[name] = flat.view(self.rows, *shape)
        return arrays

    def _write_npz(self) -> None:
        import numpy as np

        texts = {"names": self.names, "request": [self.request], "skipped": self.errors}
        arrays: dict[str, Any] = {name: rows.numpy() for name, rows in self._arrays().items()}
        arrays |= {
            name: np.array([_text(value) for value in values], np.str_) for name, values in texts.items()
        }
        arrays["labels"] = np.array(self.labels, np.int64)
        temporary = self.out.with_name(f".{self.out.name}.{os.getpid()}.tmp")
        try:
            with storing(self.out), temporary.open("wb") as file:
                np.savez(file, **arrays)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.out)
        finally:
            temporary.unlink(missing_ok=True)


def _append(path: Path, content: bytes) -> None:
    with storing(path, len(content)), path.open("ab") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _text(value: str) -> str:
    """File names may hold bytes that are not valid text; arrays of text may not."""
    return value.encode(errors="surrogateescape").decode(errors="replace")


def _said_in(path: Path) -> tuple[str | None, list[str]]:
    """What a finished file was asked for, None if it is not one of ours; and what it had to skip."""
    try:
        if path.suffix == ".safetensors":
            with open_regular(path) as file:
                length = min(int.from_bytes(file.read(8), "little"), MOST_BYTES)
                shape = {"__metadata__": {"request": str, "skipped": str}}
                said = json_of(file.read(length), str(path), shape)["__metadata__"]
            return str(said["request"]), json_of(said["skipped"], str(path), [str])
        import numpy as np

        with open_regular(path) as file, np.load(file) as arrays:
            return str(arrays["request"][0]), [str(error) for error in arrays["skipped"]]
    except Exception:  # zipfile, zlib and numpy raise ten kinds of them on damaged bytes
        return None, []
