"""Small checkpoints of a run that nobody trained."""

import random
from pathlib import Path

from pipeline.runs.checkpoints import (
    Checkpoints,
)


def payload(step: int, size: int = 2000) -> bytes:
    return random.Random(step).randbytes(size)


def writer(step: int, rank: int = 0, size: int = 2000):
    """Two files of a rank, one in a folder, whose content follows from the step."""

    def write(directory: Path) -> list[str]:
        (directory / "engine").mkdir(exist_ok=True)
        names = [f"engine/rank-{rank}.bin", f"weights-{rank}.bin"]
        for name in names:
            (directory / name).write_bytes(payload(step, size))
        return names

    return write


def publish(checkpoints: Checkpoints, step: int, best: int = 0, size: int = 2000) -> Path:
    return checkpoints.publish(step, writer(step, size=size), {"step": step}, best)


def steps(root: Path) -> list[int]:
    return sorted(int(path.name[5:]) for path in root.glob("step-*"))
