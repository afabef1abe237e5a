"""Tables as files: Markdown, LaTeX (booktabs) and CSV; the same records give the same bytes."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ablations.reporting.tables import Effect, Table, file_name
from ablations.reporting.text.grid import Grid, grids
from pipeline.errors import WorkFailed
from pipeline.files import publish_bytes
from tnt.untrusted.showing import shown

if TYPE_CHECKING:
    import pandas as pd

PLACES = 4  # decimals in CSV: a tenth of an image of 50,000 is 0.0002 %
ENDINGS = (".md", ".tex", ".csv")
EFFECTS = "-effects.csv"
# Heads that a narrow terminal shortens.
HEADS = {
    "M": "params (M)",
    "paper M": "paper (M)",
    "G": "multiply-adds (G)",
    "paper G": "paper (G)",
}
LATEX = str.maketrans(
    {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
     "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "−": "$-$",
     "Δ": r"$\Delta$", "↑": r"$\uparrow$", "′": r"$'$", "σ": r"$\sigma$", "·": r"$\cdot$", "–": "--",
     ">": "$>$", "<": "$<$", "×": r"$\times$", "→": r"$\to$"}
)  # fmt: skip


def write(folder: Path, tables: Sequence[Table], settings: Sequence[Grid]) -> list[Path]:
    """One file for each table and format; files of tables that no longer exist are removed."""
    files: dict[str, str] = {}
    for table in tables:
        shown, name = grids(table), file_name(table)
        files |= {f"{name}.md": markdown(shown), f"{name}.tex": "\n".join(map(latex, shown))}
        if table.rows:
            files[f"{name}.csv"] = csv_of(frame(table))
        if table.effects:
            files[f"{name}{EFFECTS}"] = csv_of(effect_frame(table))
    for lines in settings:
        files |= {f"{lines.name}.md": markdown([lines]), f"{lines.name}.tex": latex(lines)}
    try:
        return _publish(folder, files)
    except OSError as error:
        raise WorkFailed(f"tables cannot be written to {folder}: {error.strerror}") from error


def _publish(folder: Path, files: Mapping[str, str]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.is_file() and path.suffix in ENDINGS and path.name not in files:
            path.unlink()
    for name, text in files.items():
        path = folder / name
        data = text.encode()
        if not path.exists() or path.read_bytes() != data:
            publish_bytes(path, data)
    return [folder / name for name in files]


def markdown(grids: Iterable[Grid]) -> str:
    parts = []
    for each in grids:
        aligned = ["---" if place < each.text else "---:" for place in range(len(each.head))]
        rows = [each.head, aligned, *each.lines]
        lines = ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]
        notes = [f"* {_cell(note)}" for note in each.notes]
        blocks = [f"### {each.title}", each.why, "\n".join(lines), "\n".join(notes)]
        parts.append("\n\n".join(block for block in blocks if block) + "\n")
    return "\n".join(parts)


def latex(each: Grid) -> str:
    """Needs booktabs and graphicx, which makes a wide table as narrow as the page."""
    columns = "l" * each.text + "r" * (len(each.head) - each.text)
    rows = [" & ".join(value.translate(LATEX) for value in line) + r" \\" for line in each.lines]
    return "\n".join(
        [
            *(f"% {line}" for line in each.notes),
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{each.title.translate(LATEX)}}}",
            rf"\label{{tab:{each.name}}}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            " & ".join(HEADS.get(value, value).translate(LATEX) for value in each.head) + r" \\",
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            "}",
            r"\end{table}",
            "",
        ]
    )


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def frame(table: Table) -> "pd.DataFrame":
    """One line for each figure, with all that is known of it: for notebooks and spreadsheets."""
    import pandas as pd

    lines = [
        {
            "table": table.name,
            "scale": table.scale,
            "protocol": shown(table.protocol),
            "row": row.label,
            "cell": entry.key,
            "column": entry.column,
            "params": row.params,
            "paper_params_m": row.paper_params,
            "macs": row.macs,
            "paper_macs_g": row.paper_macs,
            "paper": entry.paper,
            "official": entry.official,
            "mean": entry.mean,
            "std": entry.std,
            "n": entry.n,
            "audited": entry.audited,
            "half": entry.half,
            "delta": entry.delta,
            "delta_half": entry.delta_half,
            "could_see": entry.could_see,
            "source": entry.source,
            "verdict": entry.verdict,
            "later_delta": entry.later_delta,
            "later_half": entry.later_half,
            "later_verdict": entry.later_verdict if entry.official is not None else "",
            "images": entry.images or None,
            "seeds": " ".join(map(str, entry.seeds)),
            "values": " ".join(f"{value:.{PLACES}f}" for value in entry.values),
            "runs": " ".join(entry.records),
        }
        for row in table.rows
        for entry in row.entries
    ]
    whole = dict.fromkeys(("params", "macs", "n", "audited", "images"), "Int64")
    return pd.DataFrame(lines).astype(whole).round(PLACES)


def effect_frame(table: Table) -> "pd.DataFrame":
    """One line for each pair of rows that the table is about."""
    import pandas as pd

    about = {"table": table.name, "scale": table.scale, "protocol": table.protocol}
    names = [each.name for each in dataclasses.fields(Effect)]
    lines = [about | dataclasses.asdict(each) for each in table.effects]
    return pd.DataFrame(lines, columns=[*about, *names]).round(PLACES)


def csv_of(frame: "pd.DataFrame") -> str:
    return frame.to_csv(index=False, lineterminator="\n")
