"""A table with all that it rests on, as an RO-Crate: one zip that others can archive, search and check.

It holds the table's files, and of each run its record, settings, answers and audits; code and data are named
by commit and fingerprint. A run that started from another's weights brings that one along.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.reporting.tables import Table, heading
from pipeline.config.run import yaml_text
from pipeline.errors import UserError, WorkFailed
from pipeline.files import published, sha256
from pipeline.runs import answers, audits, records
from pipeline.runs.records import Record

if TYPE_CHECKING:
    from rocrate.model import ContextEntity
    from rocrate.model import File as CrateFile
    from rocrate.rocrate import ROCrate

FORMATS = {
    ".json": "application/json",
    ".npz": "application/zip",
    ".md": "text/markdown",
    ".csv": "text/csv",
    ".tex": "application/x-tex",
    ".yaml": "application/yaml",
}
LICENSE = "https://spdx.org/licenses/Apache-2.0"  # that of the laboratory and of what it publishes


def write(
    path: Path,
    tables: Sequence[Table],
    files: Sequence[Path],
    known: Mapping[str, Record],
    folders: Sequence[Path | str],
) -> list[str]:
    """Write the tables' crate to `path`; returns the ids of the runs whose answers are not there.

    `files` are the tables', and evaluations of published weights; `known` the records that count, which lie
    in `folders`.
    """
    from rocrate.rocrate import ROCrate

    used = _with_origins([id for table in tables for entry in table.entries for id in entry.records], known)
    if not used:
        raise UserError(f"no runs stand behind {'; '.join(map(heading, tables))}: there is nothing to pack")
    crate = ROCrate()
    crate.name = "; ".join(map(heading, tables))
    crate.description = "Measured values beside those of Transformer in Transformer (arXiv:2103.00112)"
    crate.license = LICENSE
    for file in files:
        _add(crate, file, f"{'evaluations' if file.parent.name == 'evaluations' else 'tables'}/{file.name}")
    lacking = [id for id in used if not _add_run(crate, known[id], folders)]
    try:
        with published(path) as archive:
            for chunk in crate.stream_zip():
                archive.write(chunk)
    except OSError as error:
        raise WorkFailed(f"{path} cannot be written: {error.strerror}") from error
    return lacking


def _with_origins(ids: Sequence[str], known: Mapping[str, Record]) -> list[str]:
    """Without repeats, and with the runs whose weights they began with, those first."""
    found: dict[str, None] = {}
    for id in ids:
        origin = known[id].science["recipe"]["init"]
        found |= dict.fromkeys([*(_with_origins([origin], known) if origin in known else ()), id])
    return list(found)


def _add_run(crate: "ROCrate", record: Record, folders: Sequence[Path | str]) -> bool:
    """As an action: what it used, and what came of it. Whether its answers are there."""
    folder = records.folder_of(record.id, folders)
    # Revisions are the code's, which is named; all else is a config that train.py takes.
    settings = {name: value for name, value in record.science.items() if name != "revisions"}
    config = io.StringIO(yaml_text(settings))
    used = [_add(crate, config, f"configs/{record.id}.yaml"), _data(crate, record)]
    results = [_add(crate, records.record_path(folder, record.id), f"records/{record.id}.json")]
    found = answers.path_of(folder, record.id)
    there = found.is_file() and sha256(found) == record.answers_sha256
    if there:
        results.append(_add(crate, found, f"answers/{found.name}"))
    if (audited := audits.path_of(folder, record.id)).is_file():
        results.append(_add(crate, audited, f"audits/{audited.name}"))
    crate.add_action(
        _code(crate, record),
        identifier=f"#run-{record.id}",
        object=used,
        result=results,
        properties={"name": f"run {record.id}", "startTime": record.started, "endTime": record.ended},
    )
    return there


def _add(crate: "ROCrate", source: Path | io.StringIO, name: str) -> "CrateFile":
    about = {"name": name, "encodingFormat": FORMATS[Path(name).suffix]}
    if isinstance(source, Path):
        about["sha256"] = sha256(source)
    return crate.add_file(source, name, properties=about)


def _data(crate: "ROCrate", record: Record) -> "ContextEntity":
    about = {"@type": "Dataset", "name": record.science["data"]["name"], "identifier": record.fingerprint}
    return _named(crate, f"#data-{record.fingerprint[:12]}", about)


def _code(crate: "ROCrate", record: Record) -> "ContextEntity":
    changed = ", with changes that it does not hold" if record.dirty else ""
    about = {
        "@type": "SoftwareSourceCode",
        "name": "TNT lab",
        "version": record.commit,
        "description": f"the code at this commit{changed}",
    }
    return _named(crate, f"#code-{record.commit}{'-changed' if record.dirty else ''}", about)


def _named(crate: "ROCrate", id: str, about: dict[str, Any]) -> "ContextEntity":
    """What is not in the archive, once."""
    from rocrate.model import ContextEntity

    return crate.get(id) or crate.add(ContextEntity(crate, id, properties=about))
