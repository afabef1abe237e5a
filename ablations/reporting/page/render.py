"""The report as one HTML file that needs no network and no other file.

Text in a record may be hostile. The template escapes every text, and the page's own security
policy lets no script run but the one whose hash it names.
"""

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ablations.reporting import origin
from ablations.reporting.collect import Report
from ablations.reporting.figures import style
from ablations.reporting.figures.draw import Picture
from ablations.reporting.judging import verdicts
from ablations.reporting.page.answer import answer
from ablations.reporting.page.page_table import TONES, PageTable, identity, page_table
from ablations.reporting.tables import Table, file_name, heading
from pipeline.files import publish_bytes
from tnt.untrusted.showing import shown

if TYPE_CHECKING:
    from markupsafe import Markup

PARTS = Path(__file__).parent
COLOURS = {name.lower(): getattr(style, name) for name in ("INK", "SOFT", "GRID", "PAPER", "BLUE", "BROWN")}


@dataclass(frozen=True)
class CellDetails:
    """What opens from a cell: the runs that its numbers come from."""

    id: str
    title: str
    figures: tuple[str, ...]  # a line for each, with the arithmetic of its verdict
    settings: str
    command: str  # that makes its first run; "" where there are runs
    runs: tuple[tuple[tuple[str, str], ...], ...]  # of each, names and values


def write(path: Path, report: Report, pictures: Sequence[Picture], asked: Collection[str] = ()) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    publish_bytes(path, render(report, pictures, asked).encode())


def render(report: Report, pictures: Sequence[Picture], asked: Collection[str] = ()) -> str:
    """`asked`: the files' names of the tables that the reader wants; without them, all that say something."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PARTS),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: shown(value) if type(value) is str else value,
    )
    tables = [page_table(table) for table in report.tables]
    script = (PARTS / "page.js").read_text()
    return environment.get_template("page.html.j2").render(
        report=report,
        tables=tables,
        pictures={each.name: _of(each.table, pictures) for each in tables},
        details=list(_details(report)),
        counts=_counts(tables),
        answer=answer(report.tables, report.scale),
        opened={each.name for each in tables if _is_open(each.table, asked)},
        not_run=verdicts.NOT_RUN,
        tones=TONES,
        style=(PARTS / "page.css").read_text(),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _is_open(table: Table, asked: Collection[str]) -> bool:
    """Whether it says something: a difference between its rows, or a control; the rest is folded."""
    if asked:
        return file_name(table) in asked
    return (
        any(effect.ours is not None for effect in table.effects)
        or bool(table.checks)
        or any(entry.verdict in verdicts.BAD for entry in table.entries)
    )


def _details(report: Report) -> Iterator[CellDetails]:
    for table in report.tables:
        for row in table.rows:
            for key in dict.fromkeys(entry.key for entry in row.entries if entry.key):
                entries = [entry for entry in row.entries if entry.key == key]
                cell = origin.cell_of(report, table, key)
                runs = [report.records[id] for id in entries[0].records]
                yield CellDetails(
                    id=identity(table, entries[0]),
                    title=f"{heading(table)}: {row.label}",
                    figures=(*map(origin.arithmetic, entries), *origin.effect_lines(table, row)),
                    settings=" ".join(origin.settings(cell)) or "none: the plain run",
                    command="" if runs else origin.command(report, cell, [0]),
                    runs=tuple(
                        (
                            *origin.provenance(record),
                            *origin.audited(report, record.id),
                            ("of code", f"git checkout {record.commit}"),
                            ("again", origin.command(report, cell, [record.seed], record)),
                        )
                        for record in runs
                    ),
                )


def _of(table: Table, pictures: Iterable[Picture]) -> list[tuple[str, "Markup"]]:
    """The figures of a table, as (text, SVG)."""
    own = [picture for picture in pictures if picture.table == table]
    return [(picture.text, inline_svg(picture.svg, picture.name)) for picture in own if picture.svg]


def inline_svg(svg: Path, name: str) -> "Markup":
    """A picture as part of the page: with names that no other has, and colours that follow the page's."""
    import markupsafe

    text = svg.read_text()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.S)
    prefix = re.sub(r"\W", "-", name)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}-", text)
    for part, colour in COLOURS.items():
        text = text.replace(colour, f"var(--figure-{part})")
    text = re.sub(r'^<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', text)
    return markupsafe.Markup(text)


def _counts(tables: Iterable[PageTable]) -> list[tuple[str, int]]:
    """How many figures and effects have each verdict, the good ones first."""
    found: Counter[str] = Counter()
    for each in tables:
        if not each.table.protocol:
            found.update(cell.verdict for line in each.lines for cell in line.cells)
            found.update(effect.verdict for effect in each.table.effects if effect.ours is not None)
            found.update(check.verdict for check in each.table.checks)
    order = [
        *verdicts.GOOD,
        *verdicts.FAIR,
        *verdicts.BAD,
        *verdicts.PLAIN,
        verdicts.MEASURED,
        verdicts.NOT_RUN,
    ]
    return [(verdict, found[verdict]) for verdict in order if found[verdict]]
