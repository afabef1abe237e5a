"""The command line of launch.py: its own arguments, and the overrides of a run's config."""

import dataclasses
import functools
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.config.overrides import top_level
from pipeline.errors import UserError, unknown_name
from tnt.untrusted.reading import MOST_OPTION, number, whole_number

ACTIONS = (
    "submit", "plan", "status", "watch", "logs", "cancel", "retry", "rehearse", "calibrate", "clean", "doctor"
)  # fmt: skip
AUTO = "auto"  # as seeds: so many of each cell that the paper's gaps are found
MOST_SEEDS = 1000  # of a row a..b
SEEDS = r"\d{1,9}(\.\.\d{1,9})?"
NUMBER = r"\d*\.?\d+(e-?\d+)?"


def _seeds(text: str) -> tuple[int, ...]:
    """Of 0,1,5..9: both ends are among them."""
    found: list[int] = []
    for part in text.replace(" ", "").split(","):
        first, _, last = part.partition("..")
        least = whole_number(first, 0, MOST_OPTION, "seeds")
        most = whole_number(last or first, 0, MOST_OPTION, "seeds")
        if not least <= most < least + MOST_SEEDS:
            raise UserError(f"seeds={text} cannot be read; {part} must be a row of 1 to {MOST_SEEDS:,} seeds")
        found += range(least, most + 1)
    return tuple(dict.fromkeys(found))


SWITCHES = ("fresh", "html", "json", "watch", "when", "yes")
# The launcher's own words: the form of the value, an example, and what reads it.
OWN: dict[str, tuple[str, str, Callable[[str], Any]]] = {
    "ablation": (".*", "se", str),
    "action": (".*", "plan", str),
    "seeds": (
        rf"{AUTO}|{SEEDS}(, ?{SEEDS})*",
        "0,1,2 or 0..9",
        lambda text: text if text == AUTO else _seeds(text),
    ),
    "power": (r"0?\.\d+", "0.8", functools.partial(number, least=0.01, most=0.99, what="power")),
    "until": ("decided", "decided", str),
    "cells": (r"[^, ]+(, ?[^, ]+)*", "a,b", lambda text: tuple(text.replace(" ", "").split(","))),
    "weights": (r".+", "weights", str),
    "notify": (r"\S+", "slack://TOKENS", str),
    **{
        name: (NUMBER, example, functools.partial(number, least=least, most=1e9, what=name))
        for name, example, least in (
            ("confirm_above", "24", 0),
            ("max_gpu_hours", "100", 0),
            ("cost.images_per_second", "300", 1e-9),
            ("cost.seconds", "60", 1e-9),
        )
    },
    "cost.per_gpu_hour": (NUMBER, "2.5", str),
    "port": (r"\d{1,5}", "8765", functools.partial(whole_number, least=0, most=65_535, what="port")),
    **dict.fromkeys(SWITCHES, ("true|false", "true", lambda text: text == "true")),
}


@dataclass(frozen=True)
class LaunchRequest:
    """What a command line of launch.py asks for."""

    ablation: str = ""
    action: str = "submit"
    seeds: tuple[int, ...] = ()
    cells: tuple[str, ...] = ()
    power: float | None = None  # with which the paper's gaps are to be found, where seeds=auto
    until: str = ""  # "decided": seeds are added until each pair of rows is, or no more can help
    weights: str = "weights"  # the folder of published ones, for ablation=anchors
    notify: str = ""  # an address of apprise's
    confirm_above: float = 24.0  # device-hours
    max_gpu_hours: float | None = None
    images_per_second: float | None = None  # of one device, as told
    seconds: float = 60.0  # that a calibration trains
    fresh: bool = False
    html: bool = False  # as a page
    port: int | None = None  # of that page; it asks for one too
    json: bool = False
    watch: bool = False
    when: bool = False  # ask the scheduler when it would start them
    yes: bool = False
    overrides: tuple[str, ...] = ()

    @property
    def looks(self) -> bool:
        """Whether it writes nothing."""
        return self.action in ("plan", "status", "logs")


def parse(argv: Sequence[str]) -> LaunchRequest:
    own: dict[str, Any] = {}
    overrides = []
    for text in argv:
        key, equals, value = text.partition("=")
        if not equals or key.startswith("-"):
            raise UserError(f"{text!r} is no setting; write name=value, as in action=plan, or --help")
        if key in OWN:
            form, example, read = OWN[key]
            if key in own:
                raise UserError(f"{key} is given twice; {text} is the second")
            if not re.fullmatch(form, value):
                raise UserError(f"{text} cannot be read; write {key}={example}")
            own[key] = read(value)
        elif "." not in key and key not in (*top_level(), "init"):
            raise unknown_name("setting", key, [*OWN, *top_level()])
        else:
            overrides.append(text)
    if own.get("seeds") == AUTO:
        own |= {"seeds": (), "power": own.get("power", 0.8)}
        if "ablation" not in own:
            raise UserError(f"seeds={AUTO} follows from the paper's gaps; say of which table with ablation=")
        if any(text.startswith("scale=") for text in overrides):
            raise UserError(f"seeds={AUTO} counts with the paper's data; for another scale= say seeds=0,1,2")
    elif "power" in own:
        raise UserError(f"power= goes with seeds={AUTO}")
    if price := own.pop("cost.per_gpu_hour", ""):  # which a site's profile may have as well
        overrides.append(f"cluster.per_gpu_hour={price}")
    fields = {name.removeprefix("cost."): value for name, value in own.items()}
    request = LaunchRequest(overrides=tuple(overrides), **fields)
    if request.action not in ACTIONS:
        raise unknown_name("action", request.action, ACTIONS)
    if request.seeds and any(text.startswith("seed=") for text in overrides):
        raise UserError("seed= and seeds= are both given; seeds=0,1,2 is a run of each cell for each of them")
    if request.fresh and request.action != "submit":
        raise UserError(f"fresh=true starts runs anew; action={request.action} does not: leave one out")
    if request.until and (request.seeds or request.power or request.fresh or not request.ablation):
        raise UserError(
            "until=decided adds seeds to the rows of a table: ablation= says of which; leave seeds=, "
            "power= and fresh= out"
        )
    if request.cells and not request.ablation:
        raise UserError("cells= chooses rows of a table; say of which with ablation=")
    if request.action == "watch":
        request = dataclasses.replace(request, action="status", watch=True)
    if (request.html or request.port is not None) and (request.action, request.watch) != ("status", True):
        raise UserError("html= and port= are for the page of runs that go on: action=watch html=true")
    return request


def again(request: LaunchRequest, action: str) -> str:
    """The command line for another action on the same runs."""
    own = [f"ablation={request.ablation}"] if request.ablation else []
    own += [f"seeds={_typed(request.seeds)}"] if request.seeds else []
    own += [f"seeds={AUTO}", f"power={request.power:g}"] if request.power is not None else []
    own += [f"until={request.until}"] if request.until else []
    own += [f"cells={','.join(request.cells)}"] if request.cells else []
    return shlex.join(["python", "pipeline/launch.py", *own, *request.overrides, f"action={action}"])


def _typed(numbers: Sequence[int]) -> str:
    """Seeds as they are typed: those of an unbroken row by its ends."""
    first, last = numbers[0], numbers[-1]
    if len(numbers) > 2 and tuple(numbers) == tuple(range(first, last + 1)):
        return f"{first}..{last}"
    return ",".join(map(str, numbers))
