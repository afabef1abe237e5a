"""Anchors: published weights, measured here beside the figures that timm gives for them.

`python pipeline/launch.py ablation=anchors` evaluates what is there, weights and images, and names what is
not with the command that gets it. No training stands between such a figure and the code that reads, crops and
counts, so that it must come out to a few images. Where timm has a network of Table 4 that is not trained
here, its row becomes measured.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ablations.reporting.judging.verdicts import EXPECTED, NOT_RUN, UNEXPECTED
from ablations.reporting.tables import NONE, Check, Table
from pipeline.config.overrides import compose
from pipeline.data import dataset
from pipeline.errors import UserError
from pipeline.files import sha256
from pipeline.launching.arguments import LaunchRequest
from pipeline.runs import evaluations
from pipeline.runs.evaluations import Evaluation
from pipeline.terminal import show_table
from tnt.untrusted.reading import number

WITHIN = 0.02  # points; ten images of 50,000
FILE = "model.safetensors"


@dataclass(frozen=True)
class Anchor:
    """A file of weights on timm's hub, and what it is known to give: top-1 and top-5 by set of images."""

    name: str  # timm's, with its tag
    model: str  # as settings name the network
    known: Mapping[str, tuple[float, float]]
    row: str = ""  # of Table 4, if the paper reports it and we do not train it
    settings: tuple[str, ...] = ()

    def weights(self, folder: Path) -> Path:
        return folder / self.name / FILE

    def command(self, folder: Path) -> str:
        """That gets the weights."""
        return f"hf download timm/{self.name} {FILE} --local-dir {folder / self.name}"


def _anchor(
    name: str, imagenet: str, real: str, v2: str, model: str = "", row: str = "", size: int = 224
) -> Anchor:
    """Its figures as "top-1 top-5"."""
    texts = {"imagenet": imagenet, "imagenet_real": real, "imagenet_v2": v2}
    known = {}
    for data, text in texts.items():
        top1, top5 = (number(part, 0, 100) for part in text.split())
        known[data] = top1, top5
    settings = () if size == 224 else (f"data.image_size={size}",)
    return Anchor(name, model or f"timm:{name}", known, row, settings)


# results/results-imagenet.csv, -imagenet-real.csv and -imagenetv2-matched-frequency.csv of
# huggingface/pytorch-image-models at aa4b585 (August 2026). Of Table 4, timm has no GhostNet-A, no T2T-ViT
# and no ViT-B/16 that was trained on ImageNet-1k as in its paper.
ANCHORS = (
    _anchor("tnt_s_patch16_224.in1k", "81.506 95.766", "86.763 97.320", "70.170 89.510", "tnt_s"),
    _anchor(
        "tnt_s_legacy_patch16_224.in1k", "81.512 95.742", "86.908 97.365", "70.860 89.510", "tnt_s_legacy"
    ),
    _anchor("tnt_b_patch16_224.in1k", "82.864 96.230", "87.585 97.481", "72.370 90.590", "tnt_b"),
    _anchor("deit_small_patch16_224.fb_in1k", "79.856 95.056", "85.672 96.913", "68.530 88.170"),
    _anchor("deit_base_patch16_224.fb_in1k", "81.980 95.740", "86.833 97.062", "70.970 89.180"),
    _anchor("resnet50.tv_in1k", "76.156 92.866", "82.969 95.474", "63.190 84.640", row="ResNet-50"),
    _anchor("resnet152.tv_in1k", "78.330 94.046", "84.815 96.219", "67.040 87.460", row="ResNet-152"),
    _anchor("regnety_080.pycls_in1k", "79.874 94.834", "85.251 96.614", "68.510 87.970", row="RegNetY-8GF"),
    _anchor("regnety_160.pycls_in1k", "80.284 94.982", "85.492 96.624", "68.700 88.190", row="RegNetY-16GF"),
    _anchor(
        "tf_efficientnet_b3.aa_in1k", "81.648 95.724", "86.846 97.297", "70.410 89.290",
        row="EfficientNet-B3", size=300,
    ),
    _anchor(
        "tf_efficientnet_b4.aa_in1k", "83.040 96.298", "87.969 97.737", "72.180 90.510",
        row="EfficientNet-B4", size=380,
    ),
)  # fmt: skip


def run(request: LaunchRequest, anchors: Sequence[Anchor] = ANCHORS) -> int:
    """Measure what is there and was not measured yet, one after another, on this machine."""
    if request.action not in ("submit", "plan"):
        raise UserError(
            f"ablation=anchors trains nothing: action=plan shows what is there, not {request.action}"
        )
    folder, rows, verdicts = Path(request.weights), [], []
    cures: dict[str, None] = {}
    for anchor in anchors:
        for data, known in anchor.known.items():
            words = [f"model={anchor.model}", f"data={data}", *anchor.settings, *request.overrides]
            found, cure = _measured(anchor, data, folder, words, request.action == "plan")
            verdict = NOT_RUN if found is None else _verdict(found, known)
            figures = NONE if found is None else _figures(found.top1, found.top5)
            speed = NONE if found is None else f"{found.images_per_second:,.0f}"
            rows.append([anchor.name, data, _figures(*known), figures, speed, verdict])
            verdicts.append(verdict)
            if cure:
                cures[cure] = None
    lacking = verdicts.count(NOT_RUN)
    below = f"{len(rows) - lacking} of {len(rows)} measured, {verdicts.count(UNEXPECTED)} not as expected"
    heads = ("weights", "images", "known", "here", "images/s", "")
    show_table(heads, rows, "\n".join([below, *(["what is missing:"] if cures else []), *cures]))
    return int(UNEXPECTED in verdicts or lacking == len(rows))


def _measured(
    anchor: Anchor, data: str, folder: Path, words: Sequence[str], plan: bool
) -> tuple[Evaluation | None, str]:
    """What was measured, now or before; or the command, or the fault, that stands in the way."""
    from pipeline import evaluate

    config, weights = compose(words), anchor.weights(folder)
    if not weights.is_file():
        return None, anchor.command(folder)
    digest = sha256(weights)
    kept = evaluations.folder_of(config.paths.records)

    def known() -> Evaluation | None:
        mine = [
            each for each in evaluations.read_all(kept)[0] if (each.anchor, each.data) == (anchor.name, data)
        ]
        return next((each for each in mine if each.weights_sha256 == digest), None)

    found = known()
    if found or plan:
        return found, ""
    try:
        dataset.prepare(config.data)
        dataset.open_split(config.data, config.data.validation)
        evaluate.main([f"weights={weights}", f"anchor={anchor.name}", *words])
    except UserError as error:
        return None, f"{data}: {error}"
    return known(), ""


def _figures(top1: float, top5: float) -> str:
    return f"{top1:.3f} / {top5:.3f}"


def _verdict(found: Evaluation, known: tuple[float, float]) -> str:
    ours = found.top1, found.top5
    near = all(abs(one - other) <= WITHIN for one, other in zip(ours, known, strict=True))
    return EXPECTED if near else UNEXPECTED


def anchor_tables(found: Sequence[Evaluation], anchors: Sequence[Anchor] = ANCHORS) -> list[Table]:
    """One with a check for each figure that was measured; none where nothing was."""
    checks = tuple(_checks(found, anchors))
    if not checks:
        return []
    why = f"Published weights must give the figures that are known of them, within {WITHIN} points."
    title = "Anchors: published weights, measured here"
    return [Table("anchors", "", title, why, "paper", ("top1", "top5"), (), checks=checks)]


def _checks(found: Sequence[Evaluation], anchors: Sequence[Anchor]) -> Iterator[Check]:
    for anchor in anchors:
        for data, known in anchor.known.items():
            for each in found:
                if (each.anchor, each.data) == (anchor.name, data):
                    ours = f"{_figures(each.top1, each.top5)}, {each.images_per_second:,.0f} images/s"
                    yield Check(anchor.name, data, _figures(*known), ours, _verdict(each, known))


def measured_peers(found: Sequence[Evaluation], anchors: Sequence[Anchor] = ANCHORS) -> dict[str, Evaluation]:
    """By row of Table 4: what ImageNet gave."""
    rows = {anchor.name: anchor.row for anchor in anchors if anchor.row}
    return {rows[each.anchor]: each for each in found if each.anchor in rows and each.data == "imagenet"}
