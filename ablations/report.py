"""Tables 1 to 8 from the records of finished runs, beside what the paper reports.

python ablations/report.py                          # prints them and writes results/tables/
python ablations/report.py --scale demo --table 6
python ablations/report.py --html                   # and draws them: one page, results/report.html
python ablations/report.py --why table6/4           # where a figure comes from
python ablations/report.py --audit table6/4         # replays a part of one of its runs
python ablations/report.py --table 6 --crate 6.zip  # and all that it rests on, as an RO-Crate
python pipeline/launch.py $(python ablations/report.py --missing --launch-args)
"""

import argparse
import random
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

try:
    import pipeline  # noqa: F401
except ModuleNotFoundError:
    sys.exit("error: not installed for this Python; `make demo` installs into .venv: activate that")

from ablations.reporting import crate
from ablations.reporting.cells import own_scale
from ablations.reporting.collect import Report, collect
from ablations.reporting.figures import draw
from ablations.reporting.judging.verdicts import UNEXPECTED
from ablations.reporting.origin import explain, runs_of
from ablations.reporting.page import render
from ablations.reporting.sizes import KEPT
from ablations.reporting.tables import Table, file_name
from ablations.reporting.text import files, terminal
from ablations.reporting.text.grid import grids, setting_grid
from pipeline.errors import UserError, command, unknown_name
from pipeline.files import sha256
from pipeline.runs import answers, evaluations, records
from pipeline.runs.directory import WEIGHTS
from pipeline.runs.provenance import code
from tnt.untrusted.arguments import Parser
from tnt.untrusted.showing import shown


class _Arguments(Parser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see --help")


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = _Arguments(
        prog="python ablations/report.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--scale", default="paper", help="of the runs: paper (default), demo, or your own")
    parser.add_argument("--table", metavar="NAME", help="print one: a number of the paper's, or an ablation")
    parser.add_argument(
        "--why", metavar="KEY", help="the runs, settings and command of a cell, as table6/4, or of a run's id"
    )
    parser.add_argument(
        "--audit", metavar="KEY", help="replay a part of a run, or of one of a cell's, and compare the losses"
    )
    parser.add_argument("--missing", action="store_true", help="list the cells without runs")
    parser.add_argument(
        "--launch-args", action="store_true", help="with --missing: as arguments of launch.py"
    )
    parser.add_argument("--seeds", default="0", metavar="0,1,2", help="with --missing: needed seeds")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="compare weights in runs/ and answers in results/ with records' hashes",
    )
    parser.add_argument("--figures", action="store_true", help="draw figures too, into results/figures/")
    parser.add_argument(
        "--html", action="store_true", help="draw figures; all on one page, results/report.html"
    )
    parser.add_argument(
        "--crate", metavar="FILE", help="pack records, answers, settings, tables into an RO-Crate, a .zip"
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="exit 1 where a record does not count, a control or an audit fails",
    )
    parser.add_argument("--refresh", action="store_true", help="count parameters and multiply-adds again")
    folders = parser.add_argument_group("folders")
    folders.add_argument(
        "--records",
        nargs="+",
        default=["results/shipped", "results/records"],
        metavar="FOLDER",
        help="one or more; default: those that came with the code, and yours",
    )
    folders.add_argument("--results", default="results", metavar="FOLDER", help="where tables go")
    folders.add_argument(
        "--runs", default="runs", metavar="FOLDER", help="where runs lie, for --verify and curves"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    options = arguments(argv)
    if options.launch_args and not options.missing:
        raise UserError("--launch-args goes with --missing")
    if options.crate and not options.crate.endswith(".zip"):
        raise UserError(f"--crate {options.crate} is one archive: give it a name that ends in .zip")
    results = Path(options.results)
    found = collect(options.records, options.scale, counted=KEPT, refresh=options.refresh)
    key = options.why or options.audit
    if key in found.records and found.records[key].scale != found.scale:  # which the record knows
        found = collect(options.records, found.records[key].scale, counted=KEPT)
    failed = False
    if options.why:
        print("\n".join(map(shown, explain(found, options.why, code().commit))))
    elif options.audit:
        return _audit(found, options)
    elif options.missing:
        _missing(found, options)
    elif options.verify:
        failed = _verify(found, Path(options.runs), results)
    else:
        _report(found, options.table, results)
        if options.figures or options.html:
            _draw(found, results, Path(options.runs), options.html, options.table)
        if options.crate:
            _pack(found, options, results)
    for line in (*found.problems, *found.notes):
        print(f"report: {shown(line)}", file=sys.stderr)
    failed |= options.strict and (bool(found.problems) or any(map(unexpected, found.tables)))
    return int(failed)


def _audit(found: Report, options: argparse.Namespace) -> int:
    from pipeline import audit  # trains

    id = random.choice(runs_of(found, options.audit))
    folder = records.folder_of(id, options.records)
    return audit.main([f"run={id}", f"paths.runs={options.runs}", f"paths.records={folder}"])


def _report(found: Report, chosen: str | None, results: Path) -> None:
    """Write all tables; print them, or the one that was asked for."""
    tables, fixed = _chosen(found, chosen), list(map(setting_grid, found.settings))
    folder = _folder(found, results)
    files.write(folder, found.tables, fixed)
    terminal.show(
        [each for each in fixed if chosen in (None, each.name, each.name.removeprefix("table"))]
        + [each for table in tables for each in grids(table)]
    )
    count = sum(1 for table in found.tables for entry in table.entries if entry.n)
    here = sum(1 for record in found.records.values() if record.scale == found.scale)
    rest = f", {len(found.others)} belong to no table" if found.others else ""
    print(f"{here} records at scale {found.scale} give {count} values{rest}; tables in {folder}/")


def _pack(found: Report, options: argparse.Namespace, results: Path) -> None:
    tables, path = _chosen(found, options.table), Path(options.crate)
    endings = (*files.ENDINGS, files.EFFECTS)
    names = {f"{file_name(table)}{ending}" for table in tables for ending in endings}
    written = [each for each in sorted(_folder(found, results).iterdir()) if each.name in names]
    measured = [
        file
        for folder in map(evaluations.folder_of, options.records)
        for each in found.evaluations
        if (file := folder / f"{each.id}.json").is_file()
    ]
    if not any(table.number == "4" or table.name == "anchors" for table in tables):
        measured = []
    lacking = crate.write(path, tables, [*written, *measured], found.records, options.records)
    rest = f"; without the answers of {', '.join(lacking)}, which are not there" if lacking else ""
    print(f"packed into {path}{rest}")


def _folder(found: Report, results: Path) -> Path:
    """Of the tables of a scale."""
    return results / "tables" / ("" if found.scale == "paper" else found.scale)


def _draw(found: Report, results: Path, runs: Path, html: bool, table: str | None) -> None:
    own = "" if found.scale == "paper" else found.scale
    folder = results / "figures" / own
    pictures = draw.draw_all(found.tables, folder, runs)
    kept = sum(1 for picture in pictures if picture.kept)
    older = f", {kept} of them drawn before: the metrics of their runs are not in {runs}/" if kept else ""
    print(f"{sum(1 for picture in pictures if picture.svg)} figures in {folder}/{older}")
    if html:
        path = results / f"report{own and f'-{own}'}.html"
        render.write(
            path, found, pictures, [file_name(each) for each in _chosen(found, table)] if table else ()
        )
        print(f"the page: {path.absolute().as_uri()}")


def _chosen(found: Report, name: str | None) -> list[Table]:
    """By the paper's number, as 6 or table6, or by the ablation's name."""
    tables = [
        table for table in found.tables if name in (None, table.number or None, table.name, table.ablation)
    ]
    fixed = [each.number for each in found.settings]
    if name is not None and not tables and name.removeprefix("table") not in fixed:
        known = [*fixed, *(table.number or table.ablation for table in found.tables)]
        raise unknown_name("table", name, dict.fromkeys(known))
    return tables


def _missing(found: Report, options: argparse.Namespace) -> None:
    try:
        seeds = [int(text) for text in options.seeds.split(",")]
    except ValueError:
        raise UserError(f"--seeds {options.seeds!r} is no list of whole numbers, as 0,1,2") from None
    wanting = missing_seeds(_chosen(found, options.table), seeds)
    if options.launch_args:
        if not wanting:
            print("report: nothing is missing; these arguments only show the plan", file=sys.stderr)
        print(launch_arguments(found, wanting))
        return
    for (ablation, cell), lacking in wanting.items():
        print(f"{ablation}/{cell}  seeds {', '.join(map(str, lacking))}")
    print(f"{len(wanting)} cells lack runs at scale {found.scale}" if wanting else "nothing is missing")


def _verify(found: Report, runs: Path, results: Path) -> bool:
    """Compare weights and answers with the hashes of the records; whether some do not match."""
    here = [record for record in found.records.values() if record.scale == found.scale]
    told = {each.id: each.answers_sha256 for each in here if each.answers_sha256}
    told |= {each.id: each.answers_sha256 for each in found.evaluations}
    kept = {
        f"weights in {runs}": [(each.id, runs / each.id / WEIGHTS, each.weights_sha256) for each in here],
        f"answers in {results / 'answers'}": [
            (id, answers.path_of(results / "records", id), digest) for id, digest in told.items()
        ],
    }
    failed = False
    for what, named in kept.items():
        faults = [fault_of(*each) for each in named]
        wrong = [fault for fault in faults if fault]
        for fault in wrong:
            print(f"wrong: {fault}")
        print(
            f"{what}/: {faults.count('')} match their records, {len(wrong)} do not, "
            f"{faults.count(None)} were not found"
        )
        failed |= bool(wrong)
    return failed


def unexpected(table: Table) -> bool:
    """Whether one of its controls did not come out as it must."""
    words = [each.verdict for each in table.entries] + [each.verdict for each in table.checks]
    return UNEXPECTED in words


def missing_seeds(tables: Iterable[Table], seeds: Sequence[int]) -> dict[tuple[str, str], list[int]]:
    """By (ablation, cell), in the tables' order: the seeds that have no record."""
    found: dict[tuple[str, str], list[int]] = {}
    for table in tables:
        if table.protocol:
            continue
        for entry in table.entries:
            if not entry.key:
                continue
            lacking = [seed for seed in seeds if seed not in entry.seeds]
            if lacking:
                found[table.ablation, entry.key.partition("/")[2]] = lacking
    return found


def launch_arguments(report: Report, missing: Mapping[tuple[str, str], Sequence[int]]) -> str:
    """Arguments for one call of launch.py that runs them; runs that have finished are not started again."""
    scale = [] if report.scale == "paper" else [f"scale={report.scale}"]
    ablations = sorted({ablation for ablation, _ in missing})
    if not ablations:
        # Without an ablation launch.py would start a run; a plan starts nothing.
        return " ".join(["ablation=all", "action=plan", *scale])
    seeds = sorted({seed for lacking in missing.values() for seed in lacking})
    words = [f"seeds={','.join(map(str, seeds))}"]
    if len(ablations) == 1:
        if own_scale(report.configs[ablations[0]][0]):
            scale = []
        words = [f"ablation={ablations[0]}", f"cells={','.join(cell for _, cell in missing)}", *words]
    else:
        words = ["ablation=all", *words]
    return " ".join([*words, *scale])


def fault_of(id: str, path: Path, recorded: str) -> str | None:
    """Why a file is not that whose hash a record names; "" where it is, None where there is no file."""
    try:
        digest = sha256(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    if digest == recorded:
        return ""
    return f"{path} does not match the record of {id}: its SHA-256 is {digest[:12]}…, not {recorded[:12]}…"


if __name__ == "__main__":
    command(main)
