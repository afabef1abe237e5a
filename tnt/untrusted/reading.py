"""The one door for files that others wrote.

Only regular files are opened: a FIFO would be waited for, a device never ends. Sizes are compared with a
limit before anything is read, text is decoded strictly, JSON is bounded in depth and digits, and its values
must have the shape that the caller declares. Whatever is wrong is one line that names the file.
"""

import io
import json
import math
import os
import re
import stat
import zipfile
from collections.abc import Iterable
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

from tnt.untrusted.showing import shown

MOST_BYTES = 1 << 26  # of a file of text; ImageNet's manifest, with all its classes, is a hundredth of it
MOST_DEPTH = 32  # of lists and objects in each other
MOST_DIGITS = 20  # of a whole number: those of 64 bits
MOST_OPTION = 10**9  # of a command's option: pixels, images, classes, a seed
LONGEST_NUMBER = 40  # characters of a decimal
DECIMAL = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?"
KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
NAMES = {dict: "an object", list: "a list", str: "text", int: "a whole number", float: "a number"}


class UserError(ValueError):
    """Something that the user can put right: the message says what was wrong and what to do."""

    exit_status = 2


class BadFile(UserError):
    """A file that cannot be what it should be."""


def check_regular(path: str | Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = KINDS.get(stat.S_IFMT(mode), "something else")
        raise BadFile(f"{shown(path)} is {kind}, not a regular file")


def descriptor_of(path: str | Path) -> int:
    """To read from; OSError where it cannot be opened, BadFile where it is no file of bytes."""
    if "\0" in str(path):
        raise BadFile(f"{shown(path)} is no name of a file")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except BlockingIOError:  # a plain file that a file server has leased: it is given back soon
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    return kept_if_regular(descriptor, path)


def kept_if_regular(descriptor: int, path: str | Path) -> int:
    """The descriptor of a regular file; one of anything else is closed and refused."""
    try:
        check_regular(path, os.fstat(descriptor).st_mode)
    except BadFile:
        os.close(descriptor)
        raise
    return descriptor


def open_regular(path: str | Path) -> BufferedReader:
    return os.fdopen(descriptor_of(path), "rb")


def read_bytes(path: str | Path, most: int = MOST_BYTES) -> bytes:
    """A whole file of at most so many bytes; FileNotFoundError where there is none."""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            content = file.read(size + 1) if size <= most else b""  # one more: it may be growing
    except FileNotFoundError:
        raise
    except OSError as error:
        raise BadFile(f"{shown(path)} cannot be read: {error.strerror}") from None
    if max(size, len(content)) > most:
        raise BadFile(f"{shown(path)} has {max(size, len(content)):,} bytes; at most {most:,} are read of it")
    return content


def unpacked_size(file: BinaryIO, where: str) -> int:
    """What the entries of a zip claim to hold; BadFile where it is none."""
    try:
        return sum(each.file_size for each in zipfile.ZipFile(file).infolist())
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
        raise BadFile(f"{shown(where)} is damaged: {error}") from None


def arrays_of(content: bytes, where: str, times: int = 1) -> dict[str, Any]:
    """The arrays of an npz, which may unpack to at most so many times its size; none is a pickle."""
    import numpy as np

    claimed = unpacked_size(io.BytesIO(content), where)
    if claimed > times * len(content):
        raise BadFile(f"{shown(where)} is damaged: its {len(content):,} bytes would unpack to {claimed:,}")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as held:
            return dict(held)
    except Exception as error:  # zipfile, zlib and numpy raise ten kinds of them on damaged bytes
        raise BadFile(f"{shown(where)} is damaged: {error}") from error


def memory() -> int:
    """Bytes of this machine: what claims more than that is refused before it is read."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def read_text(path: str | Path, most: int = MOST_BYTES) -> str:
    return text_of(read_bytes(path, most), str(path))


def text_of(content: bytes, where: str) -> str:
    """UTF-8, strictly."""
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadFile(
            f"{shown(where)}, line {line}: byte {content[error.start]:#x} is no UTF-8 text"
        ) from None


def read_json(path: str | Path, shape: Any = Any, most: int = MOST_BYTES) -> Any:
    return json_of(read_bytes(path, most), str(path), shape)


def json_of(content: bytes | str, where: str, shape: Any = Any) -> Any:
    """The value of a text of JSON, in the declared shape.

    A shape is a type, `[shape]` for a list, `{str: shape}` for an object, or `{"name": shape}` for one with
    at least these fields.
    """
    text = content if isinstance(content, str) else text_of(content, where)
    try:
        value = json.loads(text, parse_int=_whole, parse_float=_finite, parse_constant=_finite)
    except RecursionError:
        raise BadFile(f"{shown(where)} is damaged: it is nested too deeply") from None
    except ValueError as error:
        raise BadFile(f"{shown(where)} is damaged: {error}") from None
    if problem := _too_deep(value, text) or other_than(value, shape):
        raise BadFile(f"{shown(where)} is damaged: {problem}")
    return value


def whole_number(text: str | bytes, least: int, most: int, what: str = "") -> int:
    """Of plain digits; BadFile with the range where it is anything else."""
    digits = text.strip()
    plain = digits.isascii() and digits.isdigit() and len(digits) <= MOST_DIGITS
    if not plain or not least <= int(digits) <= most:  # type: ignore[text-number]
        raise _no_number(text, f"{least:,}", f"{most:,}", what)
    return int(digits)  # type: ignore[text-number]


def number(text: str, least: float, most: float, what: str = "") -> float:
    """Of a decimal, with or without an exponent; BadFile with the range where it is anything else."""
    given = text.strip()
    plain = given.isascii() and len(given) <= LONGEST_NUMBER and re.fullmatch(DECIMAL, given)
    if not plain or not least <= float(given) <= most:  # type: ignore[text-number]
        raise _no_number(text, f"{least:g}", f"{most:g}", what)
    return float(given)  # type: ignore[text-number]


def _no_number(text: str | bytes, least: str, most: str, what: str) -> BadFile:
    given = text if isinstance(text, str) else text.decode(errors="backslashreplace")
    cut = given if len(given) <= MOST_DIGITS else f"{given[:MOST_DIGITS]}…"
    place = f"{shown(what)}: " if what else ""
    return BadFile(f"{place}{shown(repr(cut))} is no number from {least} to {most}")


def _whole(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError(f"a number of {len(text):,} digits; at most {MOST_DIGITS} are read")
    return int(text)  # type: ignore[text-number]


def _finite(text: str) -> float:
    value = float(text)  # type: ignore[text-number]
    if not math.isfinite(value):
        raise ValueError(f"{text[:MOST_DIGITS]} is no finite number")
    return value


def _too_deep(value: Any, text: str) -> str:
    if text.count("[") + text.count("{") <= MOST_DEPTH:
        return ""
    level, depth = [value], 0
    while level := [inner for outer in level for inner in _held(outer)]:
        depth += 1
        if depth > MOST_DEPTH:
            return f"it is nested more than {MOST_DEPTH} deep"
    return ""


def _held(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def other_than(value: Any, shape: Any, place: str = "") -> str:
    """Why a value has not the shape, with its place; empty where it has."""
    if shape is Any:
        return ""
    kind = shape if isinstance(shape, type) else type(shape)
    fits = isinstance(value, (int, float) if kind is float else kind) and not (
        isinstance(value, bool) and kind is not bool
    )
    if not fits:
        held = "null" if value is None else NAMES.get(type(value), type(value).__name__)
        return f"{shown(place.lstrip('.')) or 'it'} is {held}, not {NAMES.get(kind, kind.__name__)}"
    found = ""
    if isinstance(shape, list):
        found = next(
            filter(None, (other_than(v, shape[0], f"{place}[{i}]") for i, v in enumerate(value))), ""
        )
    elif isinstance(shape, dict):
        for name, inner in shape.items():
            names = value if name is str else [name]
            for each in names:
                if each not in value:
                    return f"{shown(f'{place}.{each}'.lstrip('.'))} is missing"
                found = found or other_than(value[each], inner, f"{place}.{each}")
    return found
