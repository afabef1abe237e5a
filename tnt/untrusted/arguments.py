"""Command lines: whole numbers with a range, and mistakes told in one line."""

import argparse
import difflib
import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from tnt.untrusted.reading import MOST_OPTION, BadFile, whole_number
from tnt.untrusted.showing import shown


class Parser(argparse.ArgumentParser):
    """Takes `weights=FILE` for `--weights FILE` too, as the commands of the pipeline write it."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        words = sys.argv[1:] if args is None else args
        words = [f"--{word}" if word.startswith("weights=") else word for word in words]
        found, others = self.parse_known_args(words, namespace)
        if others:
            known = re.findall(r"--[a-z-]+", self.format_help())
            near = difflib.get_close_matches(others[0].partition("=")[0], known, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            self.error(f"unrecognized arguments: {' '.join(others)}{hint}")
        return found

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog.removeprefix('python -m ')}: {shown(message)}; see --help\n")


def option(least: int, most: int = MOST_OPTION) -> Callable[[str], int]:
    """The `type` of an option that takes a whole number."""

    def parsed(text: str) -> int:
        try:
            return whole_number(text, least, most)
        except BadFile as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parsed
