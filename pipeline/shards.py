"""Makes, indexes, verifies and describes shards: `python pipeline/shards.py`.

  make KIND [SOURCE] OUT   pack a data set into webdataset tars with a manifest
  index DIR                write the manifest of tars that exist already
  verify DIR               read every byte again and name what is damaged
  info DIR                 describe a set; --sheet FILE.png draws a contact sheet

KIND is one of
  digits                   scikit-learn's 8×8 digits; needs no SOURCE
  imagenet                 SOURCE holds the ILSVRC2012 tars and development kit, or train/ and val/
  cifar10, cifar100        SOURCE holds the python archive
  flowers, pets            SOURCE holds the official archives of Oxford 102 Flowers, Oxford-IIIT Pets
  folder                   SOURCE holds train/<class>/ and validation/<class>/, or <class>/
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

try:
    import pipeline  # noqa: F401
except ModuleNotFoundError:
    sys.exit("error: not installed for this Python; `make demo` installs into .venv: activate that")

from pipeline.errors import UserError, command, counted, some, unknown_name
from tnt.untrusted.arguments import option
from tnt.untrusted.showing import shown

if TYPE_CHECKING:
    from pipeline.data.packing.build import Outcome
    from pipeline.data.packing.sources.source import Source

KINDS = ("digits", "imagenet", "cifar10", "cifar100", "flowers", "pets", "folder")
NAMED = 20  # how many files a report names


class Arguments(argparse.ArgumentParser):
    """argparse with one-line errors that list the valid names and the most similar one."""

    def __init__(self, name: str, usage: str) -> None:
        super().__init__(prog=f"shards.py {name}", usage=f"shards.py {name} {usage}", allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; usage: {self.usage}")

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        valid = [name for action in self._actions for name in action.option_strings if name != "-h"]
        for word in argv:
            if "\0" in word:
                raise UserError(f"{word!r} holds a NUL, which no name can")
            if word.startswith("--") and word.split("=")[0] not in valid:
                raise unknown_name("option", word.split("=")[0], valid)
        return self.parse_args(argv)


def make(argv: Sequence[str]) -> None:
    arguments = Arguments("make", "KIND [SOURCE] OUT [options]")
    arguments.add_argument("kind")
    arguments.add_argument("paths", nargs="+", type=Path)
    arguments.add_argument("--workers", type=option(1), default=0, help="processes (one per core)")
    arguments.add_argument(
        "--skip-damaged", action="store_true", help="leave out files that cannot be decoded, and name them"
    )
    arguments.add_argument("--seed", type=option(0), default=0, help="of the shuffle (0)")
    arguments.add_argument("--samples-per-shard", type=option(1), help="instead of shards of at most 256 MB")
    arguments.add_argument("--format", help="digits: jpg (default) or png")
    arguments.add_argument("--size", type=option(1), help="digits: edge in pixels (32)")
    options = arguments.parse(argv)
    if options.kind not in KINDS:
        raise unknown_name("kind of source", options.kind, KINDS)
    if options.kind != "digits" and (options.format or options.size):
        raise UserError(f"--format and --size are for digits, not for {options.kind}")
    places = "OUT" if options.kind == "digits" else "SOURCE OUT"
    if len(options.paths) != len(places.split()):
        raise UserError(f"make {options.kind} takes {places}, not {len(options.paths)} paths")
    from pipeline.data.packing.pack import Packing
    from pipeline.data.packing.pack import make as pack

    source = read_source(options)
    for note in source.notes:
        print(f"note: {shown(note)}", file=sys.stderr)
    packing = Packing(options.seed, options.samples_per_shard, options.workers, options.skip_damaged)
    outcome = pack(source, options.paths[-1], packing)
    report(outcome, options.paths[-1], "packed")


def read_source(options: argparse.Namespace) -> "Source":
    from pipeline.data.packing.sources.cifar import cifar
    from pipeline.data.packing.sources.digits import digits
    from pipeline.data.packing.sources.folder import folder
    from pipeline.data.packing.sources.imagenet import imagenet
    from pipeline.data.packing.sources.oxford import flowers, pets

    root = options.paths[0]
    if options.kind == "digits":
        return digits(options.size or 32, options.format or "jpg")
    if options.kind == "imagenet":
        return imagenet(root, options.workers)
    if options.kind in ("cifar10", "cifar100"):
        return cifar(options.kind, root)
    readers: dict[str, Callable[[Path], Source]] = {"folder": folder, "flowers": flowers, "pets": pets}
    return readers[options.kind](root)


def index(argv: Sequence[str]) -> None:
    arguments = Arguments("index", "DIR [--workers N] [--skip-damaged]")
    arguments.add_argument("root", type=Path)
    arguments.add_argument("--workers", type=option(1), default=0)
    arguments.add_argument("--skip-damaged", action="store_true")
    options = arguments.parse(argv)
    from pipeline.data.packing.index import index as index_set

    outcome = index_set(options.root, options.workers, options.skip_damaged)
    report(outcome, options.root, "indexed")


def verify(argv: Sequence[str]) -> int:
    arguments = Arguments("verify", "DIR [--workers N]")
    arguments.add_argument("root", type=Path)
    arguments.add_argument("--workers", type=option(1), default=0)
    options = arguments.parse(argv)
    from pipeline.data.packing.verify import verify as verify_set

    damage = verify_set(options.root, options.workers)
    for one in damage:
        print(shown(one))
    if damage:
        cure = "remove these shards and run the `make` command again, or copy the shards again"
        print(f"{counted(len(damage), 'damaged shard')}: {cure}", file=sys.stderr)
        return 1
    print(f"{shown(options.root)}: every byte is the same as when it was packed")
    return 0


def info(argv: Sequence[str]) -> None:
    arguments = Arguments("info", "DIR [--sheet FILE.png]")
    arguments.add_argument("root", type=Path)
    arguments.add_argument("--sheet", type=Path)
    options = arguments.parse(argv)
    from pipeline.data.packing.describe import contact_sheet, describe
    from pipeline.data.shards.manifest import Manifest

    manifests = Manifest.read_all(options.root)
    print(describe(manifests))
    if options.sheet:
        contact_sheet(manifests, options.sheet)
        print(f"\ncontact sheet: {shown(options.sheet)}")


def report(outcome: "Outcome", out: Path, done: str) -> None:
    if outcome.complete_before:
        print(f"{shown(out)} is complete already (`verify` reads every byte)")
        return
    for split, manifest in outcome.manifests.items():
        print(f"{done} {len(manifest):,} {shown(split)} images in {counted(len(manifest.shards), 'shard')}")
    for notes, what in (
        (outcome.skipped, "damaged and left out"),
        (outcome.flawed, "kept, though the JPEG decoder warns of them (Pillow reads them)"),
    ):
        if notes:
            print(f"{len(notes):,} images {what}:")
            print(some([shown(f"  {key}: {why}") for key, why in notes.items()], "\n", NAMED))
    if outcome.turned:
        print(f"{outcome.turned:,} images have an EXIF rotation, which is not applied, as in timm's training")


COMMANDS = {"make": make, "index": index, "verify": verify, "info": info}


def main(argv: Sequence[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    if argv[0] not in COMMANDS:
        raise unknown_name("command", argv[0], COMMANDS)
    return COMMANDS[argv[0]](argv[1:]) or 0


if __name__ == "__main__":
    command(main, stopped="stopped; the same command continues where it stopped")
