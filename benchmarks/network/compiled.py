"""What the fused kernels become on a Hopper GPU: registers, spills, shared memory and instructions.

    python benchmarks/network/compiled.py                  the paper's shapes
    python benchmarks/network/compiled.py --shapes 16,24,8 4,96,8

Compiles for sm_90 with the tools that Triton brings; no GPU is needed, and nothing is timed. Instructions of
loops count once. A stack, in bytes a thread, is what did not fit into registers.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from tnt.fused.inner_backward import inner_backward
from tnt.fused.inner_forward import inner_forward
from tnt.fused.tiles import tile_for

SHAPES = ["16,24,4", "16,24,8", "4,96,4", "64,6,2", "16,40,4", "16,12,2"]
SHARED = 227 * 1024  # bytes that a program can have on sm_90
TOOL = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
COUNTED = ("HMMA", "HGMMA", "MUFU", "LDS", "STS", "SHFL", "BAR", "LDL")


def compiled(kernel: Any, m: int, c: int, heads: int) -> Any:
    tile = tile_for(m, c, heads)
    constants = {
        "m": m, "c": c, "heads": heads, "hidden": 4 * c, "eps": 1e-5, "DROP": True,
        "R": tile.R, "C": tile.C, "E": tile.E, "J": tile.J,
        "ROUND": tl.bfloat16, "DOT": tl.bfloat16, "ACC": tl.float32,
    }  # fmt: skip
    kinds = dict.fromkeys(kernel.arg_names, "*fp32") | {"patches": "i32", "programs": "i32"}
    signature = {name: "constexpr" if name in constants else kinds[name] for name in kernel.arg_names}
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(kernel.arg_names)
        if signature[name] == "*fp32"
    }
    source = ASTSource(kernel, signature=signature, constexprs=constants, attrs=aligned)
    options = {"num_warps": tile.warps, "num_stages": tile.stages, "enable_fp_fusion": True}
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)


def inspected(binary: Any) -> tuple[int, int, Counter[str]]:
    """Registers and stack of a thread, and how often each instruction stands in the code."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.asm["cubin"])
        file.flush()
        usage, code = (
            subprocess.run([TOOL, option, file.name], capture_output=True, text=True, check=True).stdout
            for option in ("-res-usage", "-sass")
        )
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    assert found, "cuobjdump names registers and stack"
    names = re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P[T\d]+ )?([A-Z0-9]+)", code, re.MULTILINE)
    return int(found[1]), int(found[2]), Counter(names)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", nargs="+", default=SHAPES, metavar="WORDS,WIDTH,HEADS")
    columns = ("words, width, heads", "kernel", "warps", "registers", "stack", "shared", "code", *COUNTED)
    print(f"| {' | '.join(columns)} |")
    print("|---" * len(columns) + "|")
    fits = True
    for shape in parser.parse_args().shapes:
        m, c, heads = map(int, shape.split(","))
        for name, kernel in (("forward", inner_forward), ("backward", inner_backward)):
            binary = compiled(kernel, m, c, heads)
            registers, stack, code = inspected(binary)
            shared = binary.metadata.shared
            fits &= shared <= SHARED
            counts = " | ".join(str(code[one]) for one in COUNTED)
            warps = tile_for(m, c, heads).warps
            print(
                f"| {m}, {c}, {heads} | {name} | {warps} | {registers} | {stack} | {shared} "
                f"| {code.total()} | {counts} |",
                flush=True,
            )
    return 0 if fits else 1


if __name__ == "__main__":
    sys.exit(main())
