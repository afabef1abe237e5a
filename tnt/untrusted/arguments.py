"""Command lines: whole numbers with a range, and mistakes told in one line."""

import argparse
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
        return super().parse_args(words, namespace)

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
