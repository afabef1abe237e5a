"""Parameters and multiply-adds of every network in the tables, counted here; and what the paper prints.

`sizes.json` keeps what was counted of TNTs, which needs torch; it is counted again when the code changes.
Those of timm are in `tnt/complexity/counted.json`.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import tnt
import tnt.complexity.paper
from pipeline.config.typed import build
from pipeline.errors import UserError
from pipeline.files import publish_bytes
from pipeline.terminal import progress
from tnt.complexity import counted
from tnt.complexity.formulas import model_macs
from tnt.complexity.paper import Baseline
from tnt.complexity.pyramid import pyramid_params
from tnt.config import PyramidConfig, TNTConfig
from tnt.untrusted.reading import read_json

SMALL = 64  # pixels: at demo scale
KEPT = Path(__file__).with_name("sizes.json")
# Of tnt/: whose text decides a count.
MODULES = ("config", "attention", "embed", "block", "model", "complexity/sizes")


@dataclass(frozen=True)
class Size:
    """`None` where it was not counted: timm does not have the network, or torch is not here."""

    params: int | None = None
    params_frozen: int | None = None  # with the tensor that the authors' code registers and never reads
    macs: int | None = None  # of one image
    # Of small networks, loss and gradient norm of a first step with the weights that all of them share.
    first_step: tuple[float, float] | None = None
    faults: tuple[str, ...] = ()  # operators that were not counted


@dataclass(frozen=True)
class Sizes:
    held: Mapping[str, Size]
    notes: tuple[str, ...] = ()

    def of(self, network: TNTConfig | PyramidConfig) -> Size:
        """By formula, but for a TNT's parameters; `tnt.complexity` checks the formulas against counts."""
        if isinstance(network, PyramidConfig):
            return Size(pyramid_params(network), macs=model_macs(network))
        return dataclasses.replace(self.held.get(_key(network), Size()), macs=model_macs(network))

    def of_peer(self, peer: Baseline) -> Size:
        """As timm builds it."""
        found = counted.of_timm(peer.timm, peer.resolution) if peer.timm else None
        return (
            Size(found["params"], macs=found["counted"], faults=tuple(found["faults"])) if found else Size()
        )


def sizes(networks: Iterable[TNTConfig | PyramidConfig], path: Path, refresh: bool = False) -> Sizes:
    """Of these networks; what the file does not hold is counted."""
    wanted = {_key(network): network for network in networks if isinstance(network, TNTConfig)}
    held, made_by = _read(path)
    now = _made_by()
    known = held if made_by == now and not refresh else {}
    missing = wanted.keys() - known.keys()
    if not missing:
        return Sizes(known)
    try:
        from tnt.complexity.sizes import first_step, params_of

        fresh = {}
        with progress(len(missing), "counting the sizes of networks") as advance:
            for name in sorted(missing):
                network = wanted[name]
                params = params_of(network)
                step = first_step(network) if network.image_size <= SMALL else None
                fresh[name] = Size(params, params + network.patches * network.patch_dim, first_step=step)
                advance(1)
    except ImportError as error:
        return Sizes(held, (f"sizes may be missing or old: to count them needs {error.name}",))
    return Sizes(known | fresh, _write(path, known | fresh, now))


def printed(table: str, network: TNTConfig | PyramidConfig) -> tuple[float | None, float | None]:
    """Millions of parameters and billions of multiply-adds that a table prints, or one of its rows' own."""
    bare, tables = _bare(network), {table, *{"4": ("1", "–"), "pyramid": ("1", "–")}.get(table, ())}
    for row in tnt.complexity.paper.ROWS:
        if row.table in tables and _bare(row.config) == bare:
            return row.params, row.flops
    return None, None


def printed_peer(table: str, label: str) -> Baseline | None:
    return next(
        (one for one in tnt.complexity.paper.BASELINES if (one.table, one.name) == (table, label)), None
    )


def _bare(network: TNTConfig | PyramidConfig) -> TNTConfig | PyramidConfig:
    return network.replace(classes=0, drop_path=0.0)


def _key(network: TNTConfig) -> str:
    fields = dataclasses.asdict(network.replace(drop_path=0.0))
    default = dataclasses.asdict(TNTConfig())
    return "tnt " + " ".join(f"{name}={value}" for name, value in fields.items() if value != default[name])


def _made_by() -> str:
    folder = Path(tnt.__file__).parent
    return hashlib.sha256(b"".join((folder / f"{name}.py").read_bytes() for name in MODULES)).hexdigest()


def _read(path: Path) -> tuple[dict[str, Size], str]:
    """A file that cannot be read counts as empty, so that all is counted again."""
    try:
        content = read_json(path, {"sizes": dict, "made_by": str})
        found = {name: build(Size, values, name) for name, values in content["sizes"].items()}
        return found, content["made_by"]
    except (OSError, UserError):
        return {}, ""


def _write(path: Path, found: Mapping[str, Size], made_by: str) -> tuple[str, ...]:
    """A note where the folder may not be written to, as of an installed package: each report counts again."""
    content = {
        "made_by": made_by,
        "sizes": {name: dataclasses.asdict(found[name]) for name in sorted(found)},
    }
    try:
        publish_bytes(path, (json.dumps(content, indent=1) + "\n").encode())
    except OSError as error:
        return (f"sizes were counted but cannot be kept in {path}: {error.strerror}",)
    return ()
