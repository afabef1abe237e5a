"""Tables as pandas frames, one line a figure: what a notebook or a spreadsheet takes."""

from typing import TYPE_CHECKING

from ablations.reporting.tables import Table

if TYPE_CHECKING:
    import pandas as pd

PLACES = 4  # decimals: a tenth of an image of 50,000 is 0.0002 %


def frame(table: Table) -> "pd.DataFrame":
    import pandas as pd

    lines = [
        {
            "table": table.name,
            "scale": table.scale,
            "protocol": table.protocol,
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
            "delta": entry.delta,
            "noise": entry.noise,
            "verdict": entry.verdict,
            "images": entry.images or None,
            "seeds": " ".join(map(str, entry.seeds)),
            "values": " ".join(f"{value:.{PLACES}f}" for value in entry.values),
            "runs": " ".join(entry.records),
        }
        for row in table.rows
        for entry in row.entries
    ]
    whole = dict.fromkeys(("params", "macs", "n", "images"), "Int64")
    return pd.DataFrame(lines).astype(whole).round(PLACES)


def csv_of(table: Table) -> str:
    return frame(table).to_csv(index=False, lineterminator="\n")
