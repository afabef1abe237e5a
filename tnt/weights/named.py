"""Weights by a name in place of a file: `timm:tnt_s_patch16_224`, which timm publishes, or `demo`."""

from __future__ import annotations

import difflib
import sys
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from tnt.untrusted.reading import BadFile, UserError, read_json

DEMO = Path("demo")  # where `make demo` leaves its runs and records
FILE = "model.safetensors"
# Our variants and timm's names of the same networks, with weights trained on ImageNet.
PUBLISHED = {
    "tnt_s": "tnt_s_patch16_224",
    "tnt_b": "tnt_b_patch16_224",
    "tnt_s_legacy": "tnt_s_legacy_patch16_224",
}


def located(weights: str | Path) -> Path:
    """The file that a name means, fetched if it must be; any other text is a path."""
    if str(weights) == "demo" and not Path(weights).exists():
        raise UserError("weights=demo: no run of the demo has finished here; `make demo` trains them")
    if str(weights) == "demo" and not (Path(weights) / FILE).exists():
        return _of_demo(DEMO)
    if str(weights).startswith("timm:"):
        return _of_timm(str(weights).removeprefix("timm:"))
    return Path(weights)


def published(variant: str) -> str:
    """The name of the weights that `pretrained=True` means."""
    if variant not in PUBLISHED:
        raise UserError(
            f"nobody has published weights of {variant}; pretrained=True is for {', '.join(PUBLISHED)}"
        )
    return f"timm:{PUBLISHED[variant]}"


def _of_demo(folder: Path) -> Path:
    """Those of the demo's run with the highest accuracy; of equal ones the first by its id."""
    found: list[tuple[float, Path]] = []
    for path in sorted((folder / "records").glob("*.json")):
        weights = folder / "runs" / path.stem / FILE
        if weights.exists():
            found.append((_top1(read_json(path, {"exported": str})), weights))
    if not found:
        raise UserError(f"weights=demo: no run of the demo has finished in {folder}; `make demo` trains them")
    return max(found, key=lambda one: one[0])[1]


def _top1(record: dict[str, Any]) -> float:
    measured = record.get(record["exported"])
    if not isinstance(measured, dict) or not isinstance(measured.get("top1"), int | float):
        raise BadFile("a record of the demo has no accuracy; remove demo/ and make it again")
    return float(measured["top1"])


def _of_timm(name: str) -> Path:
    import timm
    import torch

    known = timm.list_models("*tnt_*")
    config = timm.get_pretrained_cfg(name) if name.split(".")[0] in known else None
    if config is None or not config.hf_hub_id:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise UserError(f"timm has no weights of a TNT named {name!r}{hint}: valid are {', '.join(known)}")
    own = Path(torch.hub.get_dir()) / "checkpoints" / f"{name}.safetensors"
    return own if own.exists() else _fetched(name, config.hf_hub_id, own)


def _fetched(name: str, repository: str, own: Path) -> Path:
    """From the hub's cache, or the hub; `own` is where a file may be put by hand."""
    from huggingface_hub import constants, hf_hub_download, hf_hub_url, try_to_load_from_cache

    url = hf_hub_url(repository, FILE)
    try:
        if not isinstance(try_to_load_from_cache(repository, FILE), str):
            if constants.HF_HUB_OFFLINE:
                raise OSError("HF_HUB_OFFLINE is set")
            print(f"fetching {url}", file=sys.stderr)
            with urlopen(
                Request(url, method="HEAD"), timeout=20
            ):  # the hub itself would try for half a minute
                pass
        return Path(hf_hub_download(repository, FILE))
    except (OSError, ValueError) as error:
        raise UserError(
            f"timm:{name} could not be fetched ({getattr(error, 'reason', error)}); where there is a net, "
            f"fetch {url} and put it here as {own}"
        ) from error
