"""The command line of launch.py: its own arguments, and the overrides of a run's config."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.config.overrides import top_level
from pipeline.errors import UserError, unknown_name

ACTIONS = ("submit", "plan", "status", "logs", "cancel", "retry", "rehearse")
OWN = ("ablation", "action", "seeds", "cells", "max_gpu_hours", "json", "watch", "yes")
TRUTH = {"true": True, "false": False}


@dataclass(frozen=True)
class LaunchRequest:
    """What a command line of launch.py asks for."""

    ablation: str = ""
    action: str = "submit"
    seeds: tuple[int, ...] = ()
    cells: tuple[str, ...] = ()
    max_gpu_hours: float | None = None
    json: bool = False
    watch: bool = False
    yes: bool = False
    overrides: tuple[str, ...] = field(default=())


def parse(argv: Sequence[str]) -> LaunchRequest:
    own: dict[str, str] = {}
    overrides = []
    for text in argv:
        key, equals, value = text.partition("=")
        if not equals or key.startswith("-"):
            raise UserError(f"{text!r} is no setting; write name=value, as in action=plan, or --help")
        if key in OWN:
            if key in own:
                raise UserError(f"{key} is given twice: {own[key]} and {value}")
            own[key] = value
        elif "." not in key and key not in (*top_level(), "init"):
            raise unknown_name("setting", key, [*OWN, *top_level()])
        else:
            overrides.append(text)
    action = own.get("action", "submit")
    if action not in ACTIONS:
        raise unknown_name("action", action, ACTIONS)
    request = LaunchRequest(
        ablation=own.get("ablation", ""),
        action=action,
        seeds=tuple(_number("seeds", part, int) for part in _parts(own.get("seeds", ""))),
        cells=tuple(_parts(own.get("cells", ""))),
        max_gpu_hours=_number("max_gpu_hours", own["max_gpu_hours"], float)
        if "max_gpu_hours" in own
        else None,
        overrides=tuple(overrides),
        **{name: _truth(name, own.get(name, "false")) for name in ("json", "watch", "yes")},
    )
    if request.seeds and any(text.startswith("seed=") for text in overrides):
        raise UserError("seed= and seeds= are both given; seeds=0,1,2 is a run of each cell for each of them")
    if request.cells and not request.ablation:
        raise UserError("cells= chooses rows of a table; say of which with ablation=")
    return request


def again(request: LaunchRequest, action: str) -> str:
    """The command line for another action on the same runs."""
    own = [f"ablation={request.ablation}"] if request.ablation else []
    own += [f"seeds={','.join(map(str, request.seeds))}"] if request.seeds else []
    own += [f"cells={','.join(request.cells)}"] if request.cells else []
    return shlex.join(["python", "pipeline/launch.py", *own, *request.overrides, f"action={action}"])


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _number(name: str, text: str, kind: type[int] | type[float]) -> Any:
    try:
        value = kind(text)
    except ValueError:
        value = -1
    if not 0 <= value < float("inf"):
        example = "0,1,2" if kind is int else "100"
        raise UserError(f"{name}={text} cannot be read; write {name}={example}")
    return value


def _truth(name: str, text: str) -> bool:
    if text not in TRUTH:
        raise unknown_name(f"value of {name}", text, TRUTH)
    return TRUTH[text]
