"""Records, journals and pictures of a few tables: what the report's page is made of."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from ablations.reporting.collect import Report, collect
from ablations.reporting.figures import draw
from ablations.reporting.figures.draw import Picture
from ablations.reporting.sizes import KEPT
from ablations.reporting.tables import Table
from tests.ablations.recorded import Shelf

ROOT = Path(__file__).parents[2]
HEADS = {"1": (81.0, 80.7), "2": (81.25,), "4": (81.3, 81.5, 81.4), "8": (79.0,)}
# No text of a record may become a part of the page.
HOSTILE = '"><script>window.taken = 1</script><img src=x onerror="window.taken = 2">'


@dataclass(frozen=True)
class Scene:
    folder: Path
    found: Report
    pictures: list[Picture]

    def table(self, name: str) -> Table:
        return next(table for table in self.found.tables if table.ablation == name)


def scene(folder: Path) -> Scene:
    """Tables 4 and 6 with runs, one of which left no journal; Table 5 is drawn, the others are not."""
    shelf = Shelf(folder / "results" / "records")
    shelf.fill("inner_heads", HEADS)
    shelf.add("imagenet", "tnt_s_se", 81.5, hosts=(HOSTILE,), events=(HOSTILE,))
    shelf.add("imagenet", "tnt_b", 82.6)
    (shelf.folder / "torn.json").write_text("{")
    for path in sorted(shelf.folder.glob("?" * 12 + ".json")):
        record = json.loads(path.read_text())
        if record["cell"] != "tnt_b":
            leave_journal(folder / "runs" / record["id"], record["ema"]["top1"])
    shutil.copy(KEPT, folder / "results" / "sizes.json")
    found = gather(folder)
    chosen = [table for table in found.tables if table.number in ("4", "5", "6")]
    return Scene(folder, found, draw.draw_all(chosen, folder / "results" / "figures", folder / "runs"))


def gather(folder: Path, scale: str = "paper") -> Report:
    return collect([folder / "results" / "records"], scale, counted=folder / "results" / "sizes.json")


def leave_journal(run: Path, top1: float, epochs: int = 300) -> None:
    """Ten lines of loss an epoch, an evaluation every tenth epoch."""
    run.mkdir(parents=True)
    lines = []
    for step in range(1, 10 * epochs + 1):
        lines.append({"step": step, "epoch": step / 10, "loss": 7 - 4 * step / (10 * epochs), "lr": 1e-3})
        if step % 100 == 0:
            share = step / (10 * epochs)
            lines.append({"step": step, "evaluated": step // 10, "top1": 0.5, "ema_top1": top1 * share})
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
