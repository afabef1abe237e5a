"""What the machine refuses: memory, and writes, whose errors name the file, and where its disk is full also
what it needs and what there is."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REFUSED = ("can't allocate memory", "failed to map segment")
FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def storing(path: Path, needed: int = 0) -> Iterator[None]:
    """Around the writes of `needed` bytes, 0 where nobody knows, to a file or a folder that is there."""
    free = shutil.disk_usage(path.absolute().parent).free
    try:
        yield
    except OSError as error:
        if error.errno and error.filename is None:  # a write does not say of which file
            error.filename = str(path)
        if error.errno in FULL and error.strerror == os.strerror(error.errno):  # not said further inside
            wanted = f"needs {needed:,} bytes, " if needed else ""
            error.strerror += f": {wanted}has {free:,}"
        raise


def out_of_memory(error: BaseException | None) -> bool:
    """Whether memory was refused, by a limit or a GPU; torch and the loader of libraries tell it in words."""
    while error is not None:
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            return True
        if any(words in str(error) for words in REFUSED):
            return True
        error = error.__context__
    return False
