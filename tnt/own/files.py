"""What a network of one's own is, by its name `module:attribute`: its files, their hash, its settings.

The attribute is a class of networks, or a function that makes one. It takes one argument, a dataclass of the
same file: its fields are the settings. They are read from the text of the file; nothing of it is run, and so
torch is not needed, until the network is made.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import importlib.util
import re
from collections.abc import Iterator
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any

from tnt.untrusted.reading import UserError, read_bytes

NAME = re.compile(r"(?!timm:)[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
ROOT = Path(__file__).parents[2]
OURS = ("tnt", "pipeline", "ablations")
SHARED = ("image_size", "classes", "drop_path")  # they are those of the data and the recipe
TAKEN = ("name", "source")  # they stand beside the settings in a record
PLAIN = (int, float, str, bool)
HINTS: dict[str, Any] = {
    text: hint
    for kind in PLAIN
    for text, hint in {
        kind.__name__: kind,
        f"{kind.__name__} | None": kind | None,
        f"tuple[{kind.__name__}, ...]": tuple[kind, ...],  # type: ignore[valid-type]
    }.items()
}


@dataclass(frozen=True)
class NetworkSetting:
    name: str
    hint: Any
    default: Any  # MISSING for those of SHARED that have none
    bounds: tuple[float, float] | None = None  # the least and the greatest value


@dataclass(frozen=True)
class OwnNetwork:
    name: str
    folder: Path  # from which the module is imported
    path: Path  # its file
    files: tuple[str, ...]  # all that belongs to it, within the folder
    sha256: str  # of them
    kind: str  # the name of the settings' class
    settings: tuple[NetworkSetting, ...]


def is_own(name: str) -> bool:
    return NAME.fullmatch(name) is not None


def find(name: str) -> OwnNetwork:
    """The network of that name, from its file: in the working directory, in or beside the repository, or on
    Python's path.
    """
    module, _, attribute = name.partition(":")
    parts = module.split(".")
    beside = dict.fromkeys((Path.cwd(), ROOT, ROOT.parent))
    folder, path = _located(module, [*beside, *_on_pythons_path(parts[0])])
    content = read_bytes(path)
    try:
        tree = ast.parse(content)
    except SyntaxError as error:
        raise UserError(f"{path}:{error.lineno}: {error.msg}") from None
    except ValueError as error:  # a NUL, no UTF-8
        raise UserError(f"{path}: {error}") from None
    package = len(parts) > 1 or path.name == "__init__.py"
    files = sorted((folder / parts[0]).rglob("*.py")) if package else [path]
    if folder in beside and not package:
        _refuse_others(tree, folder, path)
    kind = _settings_class(tree, path, attribute)
    digest = hashlib.sha256()
    names = tuple(each.relative_to(folder).as_posix() for each in files)
    for each in names:
        held = read_bytes(folder / each)
        digest.update(f"{each}\0{len(held)}\0".encode() + held)
    return OwnNetwork(name, folder, path, names, digest.hexdigest(), kind.name, tuple(_settings(kind, path)))


def _located(module: str, folders: list[Path]) -> tuple[Path, Path]:
    for folder in folders:
        for path in (folder.joinpath(*module.split(".")), folder.joinpath(*module.split("."), "__init__")):
            if path.with_suffix(".py").is_file():
                return folder, path.with_suffix(".py")
    raise UserError(
        f"there is no module {module}: neither {module.replace('.', '/')}.py in {Path.cwd()} or {ROOT}, "
        "nor on Python's path (PYTHONPATH)"
    )


def _on_pythons_path(name: str) -> list[Path]:
    """The folders from which Python would import the module or package; nothing is imported."""
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return []
    if found is None:
        return []
    origins = found.submodule_search_locations or [found.origin or ""]
    return [Path(origin).parent for origin in origins if origin]


def _refuse_others(tree: ast.Module, folder: Path, path: Path) -> None:
    """A module beside, of which the id would not know."""
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in (name.split(".")[0] for name in names):
            others = (folder / f"{name}.py", folder / name / "__init__.py")
            if name not in OURS and any(other.is_file() for other in others):
                raise UserError(
                    f"{path}:{getattr(node, 'lineno', 0)}: imports {name}, a file beside it that no id would "
                    f"know; put both into a package, as in model=package.{path.stem}:…"
                )


def _settings_class(tree: ast.Module, path: Path, attribute: str) -> ast.ClassDef:
    """Of the one argument that the attribute takes."""
    named = {
        node.name: node
        for node in tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
    }  # fmt: skip
    maker: Any = named.get(attribute)
    if maker is None:
        near = difflib.get_close_matches(attribute, named, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise UserError(
            f"{path} has no class or function {attribute!r}{hint}: it has {', '.join(named) or 'none'}"
        )
    arguments = [maker.args.args[0]] if isinstance(maker, ast.FunctionDef) and maker.args.args else []
    if isinstance(maker, ast.ClassDef):
        inits = [one for one in maker.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"]
        arguments = inits[0].args.args[1:2] if inits else []
    hint = ast.unparse(arguments[0].annotation).strip("'") if arguments and arguments[0].annotation else ""
    found = named.get(hint)
    if not isinstance(found, ast.ClassDef):
        raise UserError(
            f"{path}:{maker.lineno}: {attribute} must take its settings as one argument, and say which "
            f"dataclass of this file they are: (config: Settings){f', not {hint}' if hint else ''}"
        )
    decorators = [ast.unparse(one) for one in found.decorator_list]
    if found.bases or not any(re.match(r"(dataclasses\.)?dataclass\b", one) for one in decorators):
        raise UserError(f"{path}:{found.lineno}: {hint} must be a dataclass that inherits from no other")
    return found


def _settings(kind: ast.ClassDef, path: Path) -> Iterator[NetworkSetting]:
    names = []
    for node in kind.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.append(node.target.id)
            yield _setting(node, node.target.id, path)
    for name in SHARED[:2]:
        if name not in names:
            raise UserError(f"{path}:{kind.lineno}: {kind.name} lacks `{name}: int`, which the data give")


def _setting(node: ast.AnnAssign, name: str, path: Path) -> NetworkSetting:
    where, annotation = f"{path}:{node.lineno}: {name}", node.annotation
    bounds: tuple[float, float] | None = None
    if name in TAKEN:
        raise UserError(f"{where} is a name that records use; give it another")
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value).endswith("Annotated"):
        parts = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else []
        limit = parts[1] if len(parts) == 2 else None
        if not (isinstance(limit, ast.Call) and ast.unparse(limit.func).endswith("Range")):
            raise UserError(f"{where} is annotated with what is no range; write Annotated[int, Range(1, 8)]")
        annotation = parts[0]
        if len(limit.args) != 2 or limit.keywords:
            raise UserError(f"{where}: a range has a least and a greatest value, as Range(1, 8)")
        bounds = _literal(limit.args[0], where), _literal(limit.args[1], where)
    if (hint := HINTS.get(ast.unparse(annotation))) is None:
        kinds = ", ".join(each.__name__ for each in PLAIN)
        raise UserError(
            f"{where} is of type {ast.unparse(annotation)}; valid: {kinds}, int | None, tuple[int, ...]"
        )
    if node.value is None and name not in SHARED:
        raise UserError(f"{where} has no default")
    return NetworkSetting(name, hint, MISSING if node.value is None else _literal(node.value, where), bounds)


def _literal(node: ast.expr, where: str) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise UserError(f"{where}: {ast.unparse(node)} must be written out, as a number or a text") from None
