"""The size of every network in the paper: as it prints it, by formula, and as counted.

    python -m tnt.complexity [--json]
    python -m tnt.complexity --count [--json]    counts again, a minute or two; else what is kept is printed

"FLOPs" in the paper are multiply-adds; so they are here. Letters as in the paper: n patches of m words, d and
c wide, MLP ratio r.
"""

from __future__ import annotations

import functools
import json
import math
import sys
import zlib
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import torch

from tnt.complexity import counted
from tnt.complexity.count import Count, count_macs, quiet_tracer
from tnt.complexity.formulas import eq15_flops, eq16_params, eq17_flops, eq18_params, model_macs
from tnt.complexity.paper import BASELINES, ROWS, Baseline, Row
from tnt.config import TNTConfig, get_config
from tnt.untrusted.arguments import Parser
from tnt.weights.networks import Config, network

NORMS = ("layer_norm", "batch_norm")
UNNAMED_GAP = 0.005  # between formula and count: more than this share of the count is an error


@dataclass(frozen=True)
class TNTSize:
    """A TNT's or PyramidTNT's size by formula and as counted."""

    table: str
    name: str
    eq17: int | None  # depth × Eq. 17, which has no pyramids
    formula: int
    counted: int  # matrix products and convolution, by fvcore
    normalised: int  # what fvcore adds for norms
    params: int
    params_official: int | None  # with the frozen tensor that the official file registers and never reads
    paper_params: float | None
    paper_flops: float | None
    faults: tuple[str, ...]


def size_of(row: Row) -> TNTSize:
    config = row.config
    params, count = _count(config)
    formula, eq17, frozen = model_macs(config), None, None
    if isinstance(config, TNTConfig):
        eq17 = config.depth * eq17_flops(config.patches, config.words, config.c, config.patch_dim)
        frozen = params + config.patches * config.patch_dim
    return TNTSize(
        table=row.table,
        name=row.name,
        eq17=eq17,
        formula=formula,
        counted=count.matrix,
        normalised=sum(count.other.get(norm, 0) for norm in NORMS),
        params=params,
        params_official=frozen,
        paper_params=row.params,
        paper_flops=row.flops,
        faults=faults(formula, count),
    )


def faults(formula: int, count: Count) -> tuple[str, ...]:
    """Errors: an operator that was not counted, or a gap that norms do not explain."""
    gap = count.total - sum(count.other.get(norm, 0) for norm in NORMS) - formula
    unnamed = (f"formula and count differ by {gap / 1e9:+.3f} G that nothing explains",)
    return _uncounted(count) + (unnamed if abs(gap) > UNNAMED_GAP * count.total else ())


def _uncounted(count: Count) -> tuple[str, ...]:
    return tuple(f"{operator} was not counted" for operator in count.uncounted)


@dataclass(frozen=True)
class BaselineSize:
    """A network of Tables 4 or 8 as timm builds it; `None` where timm has none."""

    baseline: Baseline
    params: int | None = None
    counted: int | None = None
    faults: tuple[str, ...] = ()


def measure_baseline(baseline: Baseline) -> BaselineSize:
    if baseline.timm is None:
        return BaselineSize(baseline)
    params, count = _count_timm(baseline.timm, baseline.resolution)
    return BaselineSize(baseline, params, count.matrix, _uncounted(count))


@functools.cache
def _count_timm(name: str, resolution: int) -> tuple[int, Count]:
    with quiet_tracer():
        import timm
    with torch.device("meta"):
        model = timm.create_model(name)
    return _params(model), count_macs(model, 3, resolution)


@functools.cache
def _count(config: Config) -> tuple[int, Count]:
    with torch.device("meta"):
        model = network(config)
    return _params(model), count_macs(model, config.channels, config.image_size)


def first_step(config: Config, images: int = 2) -> tuple[float, float]:
    """Loss and gradient norm of random images, with weights that depend on their names and shapes alone.

    So two networks that differ in a switch have all other weights in common.
    """
    model = network(config.replace(drop_path=0.0))
    for name, tensor in model.named_parameters():
        draws = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        scale = "norm" in name and name.endswith("weight")
        torch.nn.init.normal_(tensor, float(scale), 0.3, generator=draws)
    draws = torch.Generator().manual_seed(0)
    size = config.image_size
    batch = torch.randn(images, config.channels, size, size, generator=draws)
    loss = torch.nn.functional.cross_entropy(model(batch), torch.arange(images) % config.classes)
    loss.backward()
    norm = torch.nn.utils.get_total_norm([each.grad for each in model.parameters() if each.grad is not None])
    return _to_4_digits(loss.item()), _to_4_digits(norm.item())


def _to_4_digits(value: float) -> float:
    """On which processors agree."""
    return round(value, 3 - math.floor(math.log10(value)))


def params_of(config: Config) -> int:
    with torch.device("meta"):
        return _params(network(config))


def _params(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def count_all() -> dict[str, Any]:
    """All rows, as `counted.json` keeps them."""
    return {
        "code": counted.code(),
        "tnt": [asdict(size_of(row)) for row in ROWS],
        "baselines": [asdict(measure_baseline(baseline)) for baseline in BASELINES],
        "versions": {package: version(package) for package in ("torch", "timm", "fvcore")},
    }


def explain_mmpretrain() -> dict[str, float]:
    """Why mmpretrain prints 3.36 G for the legacy TNT-S: its hooks do not see inside nn.MultiheadAttention.

    What they see is counted twice per element of each LayerNorm, scale and shift.
    """
    config = get_config("tnt_s_legacy")
    n, m, c, d, depth = config.patches, config.words, config.c, config.patch_dim, config.depth
    attention = depth * (n * (4 * m * c * c + 2 * m * m * c) + 4 * (n + 1) * d * d + 2 * (n + 1) ** 2 * d)
    normed = n * m * c * (3 * depth + 1) + n * d + (n + 1) * d * (2 * depth + 1)
    whole = model_macs(config)
    return {
        "whole": whole,
        "attention": attention,
        "norms": 2 * normed,
        "printed": whole - attention + 2 * normed,
    }


def explain_section_2_3() -> dict[str, float]:
    """The worked example of §2.3: d = 768, n = 196, c = 12, m = 64."""
    n, d, c, m = 196, 768, 12, 64
    transformer, tnt_block = eq15_flops(n, d), eq17_flops(n, m, c, d)
    return {
        "flops_t": transformer,
        "flops_tnt": tnt_block,
        "flops_ratio": tnt_block / transformer,
        "params_ratio": eq18_params(m, c, d) / eq16_params(d),
    }


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="python -m tnt.complexity", description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.add_argument("--count", action="store_true", help="count again: a minute or two")
    options = parser.parse_args(arguments)
    tables = None if options.count else counted.kept()
    if tables is None or tables["code"] != counted.code():
        try:
            tables = count_all()
        except ImportError as missing:
            print(
                f"tnt.complexity: {missing.name} is needed for counting: pip install {missing.name}",
                file=sys.stderr,
            )
            return 2
    sizes = [TNTSize(**values) for values in tables["tnt"]]
    baselines = [
        BaselineSize(**values | {"baseline": Baseline(**values["baseline"])})
        for values in tables["baselines"]
    ]
    if options.json:
        explained = {"mmpretrain": explain_mmpretrain(), "section_2_3": explain_section_2_3()}
        print(json.dumps(tables | explained, indent=1))
    else:
        _print_sizes(sizes)
        _print_baselines(baselines)
        print(f"\nCounted with {', '.join(map(' '.join, tables['versions'].items()))}.")
        _print_explanations()
    wrong = [(size.name, fault) for size in sizes for fault in size.faults]
    wrong += [(size.baseline.name, fault) for size in baselines for fault in size.faults]
    for name, fault in wrong:
        print(f"tnt.complexity: {name}: {fault}", file=sys.stderr)
    return 1 if wrong else 0


def _print_sizes(sizes: list[TNTSize]) -> None:
    print("TNT. G: 10⁹ multiply-adds per image; M: 10⁶ parameters. Counted: by fvcore, with attention.")
    head = ("table", "network", "12×Eq.17", "formula", "counted", "+norms", "M", "M with", "paper", "paper")
    units = ("", "", "G", "G", "G", "G", "", "frozen", "M", "G")
    rows = [
        (s.table, s.name, _g(s.eq17), _g(s.formula), _g(s.counted), _g(s.counted + s.normalised),
         _m(s.params), _m(s.params_official), _one(s.paper_params), _one(s.paper_flops))
        for s in sizes
    ]  # fmt: skip
    _print_table([head, units, *rows])


def _print_baselines(sizes: list[BaselineSize]) -> None:
    print("\nThe networks that the paper compares with, as timm has them.")
    head = ("table", "network", "timm", "pixels", "counted", "M", "paper", "paper")
    units = ("", "", "", "", "G", "", "M", "G")
    rows = [
        (s.baseline.table, s.baseline.name, s.baseline.timm or "not in timm", str(s.baseline.resolution),
         _g(s.counted), _m(s.params), _one(s.baseline.params), _one(s.baseline.flops))
        for s in sizes
    ]  # fmt: skip
    _print_table([head, units, *rows])


def _print_explanations() -> None:
    mm, example = explain_mmpretrain(), explain_section_2_3()
    print(
        f"\nmmpretrain prints 3.36 G for TNT-S (legacy form): {_g(mm['whole'])} for the whole network, "
        f"less {_g(mm['attention'])} inside\nnn.MultiheadAttention, which its hooks do not see, "
        f"plus {_g(mm['norms'])} that they add for LayerNorm, is {_g(mm['printed'])}.\n"
        "The network is not smaller."
    )
    print(
        f"\n§2.3, d=768, n=196, c=12, m=64: Eq. 15 gives {example['flops_t'] / 1e6:.0f} M, "
        f"Eq. 17 {example['flops_tnt'] / 1e6:.0f} M, a ratio of {example['flops_ratio']:.3f} "
        "(the text: about 1.09);\n"
        f"Eq. 18 to Eq. 16 is {example['params_ratio']:.3f} (about 1.08). "
        "Table 1 prints depth 1; the depth is 12."
    )


def _print_table(rows: list[tuple[str, ...]]) -> None:
    """Text to the left, figures to the right; the first row names the columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    text = [title in ("table", "network", "timm") for title in rows[0]]
    for row in rows:
        cells = zip(row, widths, text, strict=True)
        print("  ".join(cell.ljust(w) if left else cell.rjust(w) for cell, w, left in cells).rstrip())


def _g(macs: float | None) -> str:
    return "–" if macs is None else f"{macs / 1e9:.3f}"


def _m(params: int | None) -> str:
    return "–" if params is None else f"{params / 1e6:.3f}"


def _one(figure: float | None) -> str:
    return "–" if figure is None else f"{figure:.1f}"
