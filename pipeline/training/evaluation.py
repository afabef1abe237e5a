"""Top-1, top-5, loss and confusion of a network on a split: each image once, on any number of ranks."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from pipeline.data.augmentation.batch import finish_evaluation
from pipeline.data.augmentation.settings import Augmentation
from pipeline.data.labels import Answers
from pipeline.data.loading.loader import EvaluationLoader
from pipeline.processes.ranks import Ranks
from pipeline.runs.records import Measures

Network = Callable[[Tensor], Tensor]
NAMED = 40  # more classes than these have no room for names


class EvaluationStopped(Exception):
    """All ranks were asked to end before the last batch."""


@dataclass(frozen=True, eq=False)
class Measured:
    measures: Measures
    images_per_second: float  # all ranks together, reading included
    confusion: np.ndarray  # int64 [K, K]: images of a class (row; ReaL: the first allowed) by answer (column)

    def per_class(self) -> np.ndarray:
        """Percent of each class that is right; NaN where it has no images."""
        images = self.confusion.sum(1)
        with np.errstate(invalid="ignore"):
            return 100 * self.confusion.diagonal() / images


@torch.no_grad()
def measure(
    network: Network,
    loader: EvaluationLoader,
    answers: Answers,
    augmentation: Augmentation,
    ranks: Ranks,
    device: torch.device,
    precision: str,
    asked_to_end: Callable[[], bool] = lambda: False,
) -> Measured:
    """Every rank calls it and gets the same; the network must be in evaluation mode.

    `asked_to_end` is called once a batch and says the same on all ranks; if so, EvaluationStopped is raised.
    """
    K = answers.outputs
    counts = np.zeros(4)  # images, right, right among five, loss
    confusion = np.zeros((K, K))
    started = time.monotonic()
    for batch in loader:
        loader.agree(batch, ranks)  # what cannot be read ends the evaluation of all ranks together
        if asked_to_end():
            raise EvaluationStopped
        right = torch.from_numpy(answers.right(batch.sample))  # B, K
        images = finish_evaluation(batch.images, augmentation, device)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            logits = network(images)
        logits = logits.float().cpu()  # B, K
        best = logits.topk(min(5, K), dim=1).indices
        hits = right.gather(1, best)
        first, five = int(hits[:, 0].sum()), int(hits.any(1).sum())
        counts += np.array([int(right.any(1).sum()), first, five, _loss(logits, right)])
        seen = right.any(1).numpy()
        np.add.at(confusion, (_shown(right, best)[seen], best[:, 0].numpy()[seen]), 1)
    totals = ranks.sum([*counts.tolist(), *confusion.ravel().tolist()])
    seconds = max(ranks.gather(time.monotonic() - started))
    n = int(totals[0])
    measures = Measures(100 * totals[1] / n, 100 * totals[2] / n, totals[3] / n, n)
    table = np.array(totals[4:]).reshape(K, K).astype(np.int64)
    return Measured(measures, n / seconds, table)


def _loss(logits: Tensor, right: Tensor) -> float:
    """Cross-entropy, summed in float64; with several right answers, of the likeliest of them."""
    rows = right.any(1)
    logits, right = logits[rows].double(), right[rows]
    target = logits.masked_fill(~right, -torch.inf).argmax(1)
    return cross_entropy(logits, target, reduction="sum").item()


def _shown(right: Tensor, best: Tensor) -> np.ndarray:
    """The class under which an image is counted: its answer where that is right, else the first allowed."""
    answer = best[:, :1]
    return torch.where(right.gather(1, answer)[:, 0], answer[:, 0], right.int().argmax(1)).numpy()


def draw_confusion(confusion: np.ndarray, classes: Sequence[str], path: Path) -> None:
    """Rows are classes, columns answers, colours the share of the row."""
    from tnt.figures.canvas import HEAT_COLOURS, new_figure, save, style

    share = confusion / np.maximum(1, confusion.sum(1, keepdims=True))
    with style():
        figure = new_figure(5.5, 4.8)
        figure.set_layout_engine("constrained")
        axes = figure.add_subplot()
        picture = axes.imshow(share, cmap=f"{HEAT_COLOURS}_r", vmin=0, vmax=1, interpolation="nearest")
        if len(classes) <= NAMED:
            axes.set_xticks(range(len(classes)), classes, rotation=90)
            axes.set_yticks(range(len(classes)), classes)
        axes.set_xlabel("answer")
        axes.set_ylabel("class")
        figure.colorbar(picture, label="share of the class's images")
        save(figure, path, dpi=150)
