"""`_info.json`: the splits of a set for timm's reader, and how the set was made."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.data.shards.manifest import Manifest
from pipeline.errors import WorkFailed
from pipeline.files import publish_bytes
from tnt.untrusted.reading import BadFile, read_json


def write_info(root: Path, manifests: Mapping[str, Manifest], made: dict[str, Any] | None = None) -> None:
    """`made` holds the plan's facts, by which the same command recognises a set that it made."""
    splits = {
        split: {
            "name": split,
            "num_samples": len(manifest),
            "filenames": [shard.name for shard in manifest.shards],
            "shard_lengths": [shard.samples for shard in manifest.shards],
            "alt_label": "",
        }
        for split, manifest in manifests.items()
    }
    classes = next(iter(manifests.values())).classes
    info = {"splits": splits, "classes": list(classes)} | ({"made": made} if made else {})
    publish_bytes(root / "_info.json", (json.dumps(info, indent=1, ensure_ascii=False) + "\n").encode())


def read_info(root: Path) -> dict[str, Any]:
    """The file's content; empty if there is no file."""
    path = root / "_info.json"
    try:
        info: dict[str, Any] = read_json(path, dict)
    except FileNotFoundError:
        return {}
    except BadFile as error:
        raise WorkFailed(f"{error}; remove it and run the command again") from None
    return info
