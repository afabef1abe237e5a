"""What in a directory of runs is no longer needed, and its removal. Weights, records and logs stay.

The checkpoints that a run kept for an audit stay until one has found nothing.
"""

import json
import os
import shutil
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import run as configs
from pipeline.config.identity import is_run_id
from pipeline.errors import UserError
from pipeline.launching import overview, rehearsal, snapshot
from pipeline.launching.arguments import LaunchRequest
from pipeline.launching.plan import PlannedRun
from pipeline.launching.slurm import launches, queue
from pipeline.runs import attempts, audits, records
from pipeline.runs.directory import CHECKPOINTS, CONFIG, WEIGHTS
from pipeline.runs.provenance import ROOT
from pipeline.terminal import confirmed, show_table


@dataclass(frozen=True)
class Leftover:
    path: Path
    what: str
    size: int  # bytes


def clean(request: LaunchRequest, runs: Sequence[PlannedRun]) -> int:
    """Show and remove it in the whole directory of runs, whichever were named."""
    paths, slurm = runs[0].config.paths, queue.outlook(runs, needed=True)
    live = {job.name for job in slurm.queue.listed.values() if job.live} if slurm.queue else set()
    with launches.submitting(Path(paths.runs)):
        found = leftovers(Path(paths.runs), paths.records, live)
        if request.json:
            said = [{"path": str(one.path), "what": one.what, "size": one.size} for one in found]
            print(json.dumps({"leftovers": said}))
        else:
            show_table(*_table(found))
            for id in awaiting_audit(Path(paths.runs), paths.records):
                print(f"kept until an audit agrees: checkpoints of {id}: ablations/report.py --audit {id}")
        if found and (request.yes or confirmed("remove them?")):
            remove(found)
    return 0


def leftovers(runs: Path, record_folder: str, live: Collection[str]) -> list[Leftover]:
    """`live`: the names of the jobs that wait or run. What may still be needed is left out."""
    finished = {path.name for path in runs.glob("*") if _is_finished(path, record_folder)}
    noted = launches.read_all(runs)
    over = [one for one in noted if one.directory.name not in live and set(one.runs) <= finished]
    used = {one.code for one in noted if one not in over}
    found = [(one.directory, "launches whose runs are done") for one in over]
    if "" not in used:  # an older version of the code did not note which copy its jobs run
        copies = [path for path in (runs / snapshot.FOLDER).glob("*") if path.resolve() != ROOT]
        found += [(path, "copies of code that no job runs") for path in copies if path.name not in used]
    for path in (runs / rehearsal.FOLDER).glob("*"):
        names = {folder.name for folder in path.glob(f"*/{launches.FOLDER}/*")}
        if not names & set(live) and not any(map(attempts.holder, path.glob("*/*"))):
            found.append((path, "rehearsals"))
    found += [
        (path, "checkpoints of finished runs")
        for id in sorted(finished.difference(awaiting_audit(runs, record_folder)))
        if (path := runs / id / CHECKPOINTS).exists()
    ]
    return [Leftover(path, what, _size(path)) for path, what in found]


def awaiting_audit(runs: Path, record_folder: str) -> list[str]:
    """Finished runs that kept checkpoints for it."""
    found = []
    for path in sorted(runs.glob("*")):
        if _is_finished(path, record_folder) and (path / CHECKPOINTS).exists() and (path / CONFIG).exists():
            kept = configs.read(path / CONFIG).engine.keep_for_audit
            if kept and not audits.sound(record_folder, path.name):
                found.append(path.name)
    return found


def remove(found: Iterable[Leftover]) -> None:
    for one in found:
        try:
            shutil.rmtree(one.path)
        except OSError as error:
            raise UserError(f"{one.path} cannot be removed: {error.strerror}") from error


def _table(found: Sequence[Leftover]) -> overview.Table:
    rows = []
    for kind in dict.fromkeys(one.what for one in found):
        ours = [one for one in found if one.what == kind]
        where = os.path.commonpath([one.path for one in ours])
        rows.append([kind, str(len(ours)), overview.size(sum(one.size for one in ours)), where])
    below = f"{overview.size(sum(one.size for one in found))} in all" if found else "nothing is left over"
    return ("what", "", "size", "in"), rows, below, ()


def _is_finished(directory: Path, record_folder: str) -> bool:
    id = directory.name
    done = is_run_id(id) and records.exists(record_folder, id) and (directory / WEIGHTS).exists()
    return done and not attempts.holder(directory)


def _size(path: Path) -> int:
    return sum(file.lstat().st_size for file in path.rglob("*") if file.is_file())
