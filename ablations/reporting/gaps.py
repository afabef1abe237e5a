"""What has not been run yet, and what to tell launch.py to run it."""

from collections.abc import Iterable, Mapping, Sequence

from ablations.reporting.cells import own_scale
from ablations.reporting.collect import Collected
from ablations.reporting.tables import Table


def missing(tables: Iterable[Table], seeds: Sequence[int]) -> dict[tuple[str, str], list[int]]:
    """By (ablation, cell), in the tables' order: the seeds that have no record."""
    found: dict[tuple[str, str], list[int]] = {}
    for table in tables:
        if table.protocol:
            continue
        for entry in table.entries:
            if not entry.key:
                continue
            wanting = [seed for seed in seeds if seed not in entry.seeds]
            if wanting:
                found[table.ablation, entry.key.partition("/")[2]] = wanting
    return found


def launch_arguments(collected: Collected, gaps: Mapping[tuple[str, str], Sequence[int]]) -> str:
    """Arguments of one launch.py that runs them; finished runs that it names too are not run again."""
    scale = [] if collected.scale == "paper" else [f"scale={collected.scale}"]
    ablations = sorted({ablation for ablation, _ in gaps})
    if not ablations:
        # Without an ablation launch.py would start a run; a plan starts nothing.
        return " ".join(["ablation=all", "action=plan", *scale])
    wanted = sorted({seed for wanting in gaps.values() for seed in wanting})
    words = [f"seeds={','.join(map(str, wanted))}"]
    if len(ablations) == 1:
        (name,) = ablations
        if own_scale(collected.wanted[name][0]):
            scale = []
        words = [f"ablation={name}", f"cells={','.join(cell for _, cell in gaps)}", *words]
    else:
        words = ["ablation=all", *words]
    return " ".join([*words, *scale])
