"""The sources of the packages: their modules, and what each of them imports."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("tnt", "pipeline", "ablations")


@dataclass(frozen=True)
class Import:
    module: str
    line: int
    inside_function: bool


@dataclass(frozen=True)
class Source:
    module: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def imports(self) -> list[Import]:
        """All of them, those inside functions too, but for what only a type checker reads.

        `from package import name` is the module package.name where there is one: `resolved` decides.
        """
        return list(_imports(self.tree, inside=False))


def _imports(node: ast.AST, inside: bool) -> Iterator[Import]:
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    if isinstance(node, ast.Import):
        yield from (Import(alias.name, node.lineno, inside) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        origin = "." * node.level + (node.module or "")
        yield from (Import(f"{origin}.{alias.name}", node.lineno, inside) for alias in node.names)
    inside = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    for child in ast.iter_child_nodes(node):
        yield from _imports(child, inside)


def repository(packages: tuple[str, ...] = PACKAGES) -> list[Source]:
    found = []
    for path in sorted(path for package in packages for path in (ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found.append(Source(module, path.read_text()))
    return found


def within(module: str, folder: str) -> bool:
    return f"{module}.".startswith(f"{folder}.")


def resolved(imported: Import, modules: set[str]) -> str | None:
    """The module of ours that is imported."""
    parent = imported.module.rpartition(".")[0]
    return next((name for name in (imported.module, parent) if name in modules), None)


def graph(sources: list[Source]) -> dict[str, dict[str, int]]:
    """Of each module the modules of ours that it imports, and where."""
    modules = {source.module for source in sources}
    found: dict[str, dict[str, int]] = {source.module: {} for source in sources}
    for source in sources:
        for imported in source.imports:
            if (module := resolved(imported, modules)) is not None:
                found[source.module].setdefault(module, imported.line)
    return found


def hold(violations: list[str]) -> None:
    assert not violations, "\n" + "\n".join(violations)
