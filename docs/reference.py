"""A hook of MkDocs: the site's pages that the code writes, and those that live in other folders."""

import dataclasses
import html
import importlib
import inspect
import io
import os
import re
import sys
import typing
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from ablations.spec import load, names, requested_runs  # noqa: E402
from pipeline.config.birth import BIRTH, RENAMED  # noqa: E402
from pipeline.config.identity import id_of, science  # noqa: E402
from pipeline.config.run import RunConfig  # noqa: E402
from pipeline.launching.cost import cost  # noqa: E402
from pipeline.launching.plan import PlannedRun  # noqa: E402
from tnt.config import PyramidConfig, TNTConfig  # noqa: E402

# Pages of other folders and their names on the site.
ELSEWHERE = {
    "slurm/README.md": "cluster.md",
    "results/README.md": "records.md",
    "benchmarks/README.md": "benchmarks.md",
    "benchmarks/LOG.md": "measured.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
GPUS = ("RTX 3090", "A100", "H100")
# Each command, and the module whose `main` it calls.
COMMANDS = {
    "pipeline/launch.py": "pipeline.launch",
    "pipeline/train.py": "pipeline.train",
    "pipeline/evaluate.py": "pipeline.evaluate",
    "pipeline/audit.py": "pipeline.audit",
    "pipeline/shards.py": "pipeline.shards",
    "ablations/report.py": "ablations.report",
    "-m tnt.predict": "tnt.predict",
    "-m tnt.features": "tnt.features",
    "-m tnt.figures": "tnt.figures.command",
    "-m tnt.export": "tnt.export",
    "-m tnt.weights": "tnt.weights.models",
    "-m tnt.complexity": "tnt.complexity.sizes",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for source, name in ELSEWHERE.items():
        files.append(File.generated(config, name, content=relinked((ROOT / source).read_text(), source)))
    files.append(File.generated(config, "settings.md", content=settings_page()))
    files.append(File.generated(config, "commands.md", content=commands_page()))
    files.append(File.generated(config, "costs.md", content=costs_page()))
    for page in (ROOT / "docs").glob("*.md"):
        for name in re.findall(r"!\[[^\]]*\]\(\.\./([^)]+)\)", page.read_text()):
            files.append(File.generated(config, f"images/{Path(name).name}", abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    return relinked(markdown, f"docs/{page.file.src_uri}") if page.file.generated_by is None else markdown


def relinked(text: str, source: str) -> str:
    """Links between the repository's pages as links of the site; a file that is no page is named only."""

    def changed(match: re.Match[str]) -> str:
        image, label, target = match.groups()
        if re.match(r"[a-z]+:|#", target):
            return match[0]
        if image:
            return f"![{label}](images/{Path(target).name})"
        path, _, anchor = target.partition("#")
        at = os.path.normpath(Path(source).parent / path)
        name = ELSEWHERE.get(at) or (at.removeprefix("docs/") if at.startswith("docs/") else "")
        if at == "README.md":
            name = "index.md"
        return f"[{label}]({name}{'#' + anchor if anchor else ''})" if name else f"`{at}`"

    return re.sub(r"(!?)\[([^\]\n]+)\]\(([^)\s]+)\)", changed, text)


def costs_page() -> str:
    """GPU-hours of each ablation with one seed, as `action=plan` counts them before anything was measured."""
    lines = [COSTS, f"| ablation | runs | {' | '.join(GPUS)} |", "|---|---:|" + "---:|" * len(GPUS)]
    for name in (name for name in names() if name != "control"):
        asked = requested_runs(name)
        configs = [one.config for one in asked] + [one.origin for one in asked if one.origin]
        runs = {id_of(science(config), ""): config for config in configs}
        cells = []
        for gpu in GPUS:
            found = [cost(PlannedRun(config, ""), [], gpu, 1) for config in runs.values()]
            ranges = [one.hours for one in found if one.hours]
            cells.append(f"{sum(low for low, _ in ranges):,.0f}–{sum(high for _, high in ranges):,.0f}")
        lines.append(f"| `{name}`: {load(name)[name].title} | {len(runs)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def commands_page() -> str:
    parts, own = ["# Commands\n\nEach says this with `--help`.\n"], sys.argv
    for command, module in COMMANDS.items():
        main, said = importlib.import_module(module).main, io.StringIO()
        with redirect_stdout(said), suppress(SystemExit):
            sys.argv = [command.split("/")[-1]]
            main(["--help"])
        parts.append(f"## `python {command}`\n\n```text\n{said.getvalue().strip()}\n```\n")
    sys.argv = own
    return "\n".join(parts)


def settings_page() -> str:
    """Every setting of a run: what it means, its default, and the birth value by which ids are counted."""
    head = "| setting | type | default | birth value | meaning |\n|---|---|---|---|---|"
    parts = [INTRODUCTION]
    rows: dict[str, list[str]] = {}
    for name, hint, default, meaning in settings():
        born = BIRTH.get(RENAMED.get(name, name), None)
        birth = f"`{_text(born)}`" if RENAMED.get(name, name) in BIRTH else ""
        cells = (
            f"`{name}`",
            f"`{hint}`".replace(" |", ", or"),
            f"`{_text(default)}`",
            birth,
            html.escape(meaning),
        )
        rows.setdefault(name.rpartition(".")[0], []).append(f"| {' | '.join(cells)} |")
    for section, lines in rows.items():
        title = f"`{section}`" if section else "A run"
        parts.append("\n".join([f"## {title}\n", head, *lines, ""]))
    return "# Settings\n" + "\n\n".join(parts)


COSTS = """# What the tables cost

GPU-hours with one seed, from the devices' data sheets, fitted to the speeds that timm publishes for TNT-S.
Nothing here has been measured by this project; `action=calibrate` replaces it by a measurement. Cells that
two tables share are counted in both; `ablation=all action=plan` counts them once.
"""
INTRODUCTION = """
Write `name=value` behind `train.py`, `evaluate.py` or `launch.py`. A setting with a birth value decides
numbers and is in the run's id where it differs from that value; the others say where and how fast."""


def settings() -> Iterator[tuple[str, str, Any, str]]:
    """(name, type, default, meaning) of every setting; the meaning is the comment at the field."""
    seen: set[str] = set()
    for setting in _fields(RunConfig(), ""):
        if setting[0] not in seen:  # most of a pyramid's are a TNT's too
            seen.add(setting[0])
            yield setting


def _fields(values: Any, prefix: str) -> Iterator[tuple[str, str, Any, str]]:
    comments = _comments(type(values))
    sections = []
    for field in dataclasses.fields(values):
        name, value = prefix + field.name, getattr(values, field.name)
        if name == "model.network":
            sections += [(TNTConfig(drop_path=0.1), "model."), (PyramidConfig(drop_path=0.1), "model.")]
        elif dataclasses.is_dataclass(value):
            sections.append((value, f"{name}."))
        else:
            hint = typing.get_type_hints(type(values))[field.name]
            kind = hint.__name__ if isinstance(hint, type) else str(hint)
            yield name, kind, value, comments.get(field.name, "")
    for section, path in sections:
        yield from _fields(section, path)


def _comments(kind: type) -> dict[str, str]:
    """The comment behind each field, or on the lines above it."""
    found: dict[str, str] = {}
    above = ""
    for line in inspect.getsource(kind).splitlines():
        if alone := re.fullmatch(r"    # (.*)", line):
            above = f"{above} {alone[1]}".strip()
        elif field := re.match(r"    (\w+): ", line):
            behind = re.search(r"  # (.*)$", line)
            found[field[1]] = behind[1] if behind else above
            above = ""
    return found


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_text, value))}]"
    return '""' if value == "" else f"{value:g}" if isinstance(value, float) else str(value)
