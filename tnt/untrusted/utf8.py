"""Names and texts are read and written as UTF-8, whatever the shell's locale says."""

import os
import sys


def use_utf8() -> None:
    """Start this command again in Python's UTF-8 mode where the locale asks for another encoding: its names
    of files would be other ones for the processes that it starts elsewhere. The terminal keeps its own."""
    if sys.getfilesystemencoding() != "utf-8" and "PYTHONUTF8" not in os.environ:
        mode = {"PYTHONUTF8": "1", "PYTHONIOENCODING": f"{sys.getfilesystemencoding()}:replace"}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | mode)
