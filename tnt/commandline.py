"""What the commands share: the options that choose a model, exit statuses, progress and printed tables."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch

from tnt.config import NETWORKS, get_config
from tnt.own.files import is_own
from tnt.own.weights import open_own
from tnt.untrusted.arguments import option
from tnt.untrusted.showing import shown
from tnt.untrusted.utf8 import use_utf8
from tnt.untrusted.writing import out_of_memory
from tnt.weights.models import open_model
from tnt.weights.networks import Network, name_of, network


@dataclass(frozen=True)
class ChosenModel:
    """A model, ready for inference, and where its weights come from."""

    model: Network  # or, where the command takes it, a network of one's own with a `config`
    name: str
    random: bool
    origin: str  # the weights' file, or how the random ones were drawn


def add_model_options(
    parser: argparse.ArgumentParser, refuse_random: bool = True, size: int | None = None
) -> None:
    """Options that choose a model and its weights.

    `refuse_random=False` is for pictures: they are drawn on the CPU and say in themselves that weights are
    random. Answers do not, so random weights need a flag there.
    """
    group = parser.add_argument_group("model")
    default = "the model's"
    group.add_argument(
        "--weights",
        metavar="FILE",
        help="of any published format; a folder that holds model.safetensors; timm:NAME; or demo",
    )
    group.add_argument(
        "--model",
        metavar="NAME",
        help=f"refuse weights of another variant: {', '.join(NETWORKS)}, or of module:attribute",
    )
    group.add_argument("--raw", action="store_true", help="the trained weights, not their moving average")
    if refuse_random:
        group.add_argument(
            "--random-weights", action="store_true", help="an untrained model (tnt_s unless --model says)"
        )
        group.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1, …")
    group.add_argument(
        "--size",
        type=option(1),
        default=size,
        metavar="PIXELS",
        help=f"edge of the input (default: {size or default})",
    )
    group.add_argument("--seed", type=option(0), default=0, help="of everything random (default: 0)")


def choose_model(options: argparse.Namespace, resize: bool = True, takes_others: bool = False) -> ChosenModel:
    """The model that the options ask for; what was assumed goes to standard error."""
    allowed = getattr(options, "random_weights", True)
    if options.weights and getattr(options, "random_weights", False):
        raise ValueError("--weights and --random-weights exclude each other; give one")
    if not options.weights and not allowed:
        raise ValueError(
            "no weights: give --weights FILE, or --random-weights for an untrained model, whose answers "
            "mean nothing"
        )
    device = getattr(options, "device", "cpu")
    size = {} if options.size is None or not resize else {"image_size": options.size}
    if options.model and is_own(options.model):
        if not takes_others:
            raise ValueError(f"--model {options.model} is no TNT, and this needs one")
        torch.manual_seed(options.seed)
        model = cast(Network, open_own(options.model, options.weights, not options.raw, size))
        origin = str(options.weights) if options.weights else f"random weights, seed {options.seed}"
    elif options.weights:
        model, held = open_model(options.weights, name=options.model, ema=not options.raw, **size)
        if not held.heads_known:
            heads = f"{held.config.outer_heads} outer and {held.config.inner_heads} inner heads"
            unknown = "the weights do not tell the number of heads"
            print(f"{shown(options.weights)}: {unknown}; {heads} are assumed", file=sys.stderr)
        origin = str(options.weights)
    else:
        torch.manual_seed(options.seed)
        model = network(get_config(options.model or "tnt_s", **size))
        origin = f"random weights, seed {options.seed}"
    try:
        if torch.device(device).type == "meta":
            raise ValueError("device 'meta' holds no numbers; valid: cpu, cuda, cuda:1, …")
        model = model.to(device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {device!r} cannot be used: {reason}") from error
    name = options.model if options.model and is_own(options.model) else name_of(model.config)
    return ChosenModel(model.eval(), name, not options.weights, origin)


def run(command: str, work: Callable[[], int]) -> int:
    """The exit status of a command; what a user can cause ends in one line, not in a stack trace."""
    use_utf8()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")  # of odd files, which are named if unusable
            status = work()
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print(f"{command}: interrupted", file=sys.stderr)
        return 130
    except ModuleNotFoundError as missing:
        print(f"{command}: {missing.name} is needed for this: pip install {missing.name}", file=sys.stderr)
    except (RuntimeError, MemoryError, ImportError) as error:
        if not out_of_memory(error):
            raise
        print(f"{command}: out of memory; give a smaller --batch or --size", file=sys.stderr)
    except OSError as error:
        where = f"{shown(error.filename)}: " if error.filename else ""
        print(f"{command}: {where}{error.strerror or shown(error)}", file=sys.stderr)
    except ValueError as error:
        print(f"{command}: {shown(' '.join(str(error).split()))}", file=sys.stderr)
    return 2


def say(what: str) -> None:
    """What a command that takes some seconds does, to a person who watches."""
    if sys.stderr.isatty():
        print(f"{what} …", file=sys.stderr, flush=True)


@contextmanager
def progress(total: int | None, done: int = 0) -> Iterator[Callable[[], None]]:
    """A bar on standard error where a person looks at it; what comes out is called once per image."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("images"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("images", total=total, completed=done)
        yield lambda: bar.advance(task)


def print_table(head: Sequence[str], rows: Sequence[Sequence[str] | None]) -> None:
    """On standard output; None draws a line. Only a terminal limits the width."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    filled = [row for row in rows if row]
    if not filled:
        return
    table = Table(*head)
    for column, value in zip(table.columns, filled[0], strict=True):
        column.justify = "right" if value.replace(".", "").isdecimal() else "left"
    for row in rows:
        if row is None:
            table.add_section()
        else:
            table.add_row(*(Text(shown(value)) for value in row))
    Console(width=None if sys.stdout.isatty() else 10_000).print(table)
