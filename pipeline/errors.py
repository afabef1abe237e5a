"""Errors that a user can cause, and how a command ends.

A user's mistake is one line (what, which value, what to do) and exit status 2; work that was asked for
rightly and failed is one line and exit status 1; Ctrl-C is one line and 130. A stack trace means a fault
of ours.
"""

import difflib
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from tnt.untrusted.reading import UserError as UserError
from tnt.untrusted.showing import shown
from tnt.untrusted.utf8 import use_utf8
from tnt.untrusted.writing import out_of_memory

LESS_MEMORY = "a smaller engine.micro_batch and fewer data.loading.workers take less"
OURS = ("tnt", "pipeline", "ablations")


class WorkFailed(UserError):
    """The command was right, but its work could not be done: damaged data, a full disk."""

    exit_status = 1


@dataclass(frozen=True)
class Range:
    """The numbers that a setting may be."""

    least: float
    most: float
    without_least: bool = False
    without_most: bool = False

    def holds(self, value: float) -> bool:
        above = self.least < value or (value == self.least and not self.without_least)
        return above and (value < self.most or (value == self.most and not self.without_most))

    def __str__(self) -> str:
        if self.without_least:
            return f"above {self.least:,}, at most {self.most:,}"
        return f"from {self.least:,} to {'below ' if self.without_most else ''}{self.most:,}"


def check_ranges(settings: object, ranges: Mapping[str, Range], section: str) -> None:
    """Refuse a number, or one of several, that lies outside; not a number lies outside of every range."""
    for name, valid in ranges.items():
        value = getattr(settings, name)
        if not all(valid.holds(each) for each in (value if isinstance(value, tuple) else (value,))):
            raise UserError(f"{section}.{name} is {value}; it must be {valid}")


def unknown_name(what: str, name: str, valid: Iterable[str]) -> UserError:
    """The error for a name outside a fixed set: it lists the set and the nearest match."""
    names = [str(item) for item in valid]
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return UserError(f"unknown {what} {name!r}{hint}: valid are {', '.join(names)}")


def some(names: Sequence[str], separator: str = ", ", most: int = 10) -> str:
    """The first names, and how many there are more: for a message."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return separator.join(names[:most]) + more


def counted(number: int, noun: str) -> str:
    """As "1 shard" or "1,024 shards"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def command(
    main: Callable[[Sequence[str]], int | None],
    argv: Sequence[str] | None = None,
    *,
    stopped: str = "stopped",
) -> NoReturn:
    """Run a command line's main and leave the process; `stopped` is what Ctrl-C says."""
    use_utf8()
    try:
        status = main(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {shown(error)}", file=sys.stderr)
        sys.exit(error.exit_status)
    except ModuleNotFoundError as missing:
        if str(missing.name).startswith(OURS):
            raise
        cure = "pip install 'tnt-lab[all]', in a checkout -e '.[all]'"
        print(f"error: {missing.name} is needed for this: {cure}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"\n{stopped}", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # `… | head` closed our output: nothing more can be said, and the flush at exit must not raise again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except (MemoryError, RuntimeError, ImportError) as error:
        if not out_of_memory(error):
            raise
        print(f"error: out of memory; {LESS_MEMORY}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        if error.filename is None:
            raise
        print(f"error: {shown(error.filename)}: {error.strerror}", file=sys.stderr)
        sys.exit(1)
    sys.exit(status or 0)
