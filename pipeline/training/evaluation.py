"""What networks answer on a split, and their top-1, top-5, loss: each image once, on any number of ranks."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
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
from pipeline.runs.answers import NOT_COUNTED, TOP, row_type
from pipeline.runs.records import Measures
from tnt.own.network import told

Network = Callable[[Tensor], Tensor]
NAMED = 40  # more classes than these have no room for names


class EvaluationStopped(Exception):
    """All ranks were asked to end before the last batch."""


@dataclass(frozen=True, eq=False)
class Measured:
    measures: Measures
    answers: np.ndarray  # a row for each image of the split: pipeline/runs/answers.py


@torch.no_grad()
def measure(
    networks: Mapping[str, Network],
    loader: EvaluationLoader,
    answers: Answers,
    augmentation: Augmentation,
    ranks: Ranks,
    device: torch.device,
    precision: str,
    asked_to_end: Callable[[], bool] = lambda: False,
) -> tuple[dict[str, Measured], float]:
    """Each network on the same batches, in evaluation mode; every rank calls it and gets the same.

    The second value is images/s, all ranks together, reading included. `asked_to_end` is called once a batch
    and says the same on all ranks; if so, EvaluationStopped is raised.
    """
    samples = [np.empty(0, np.int64)]  # a rank may have no batch
    rows = {name: [np.empty(0, _row_type(answers.outputs))] for name in networks}
    started = time.monotonic()
    for batch in loader:
        loader.agree(batch, ranks)  # what cannot be read ends the evaluation of all ranks together
        if asked_to_end():
            raise EvaluationStopped
        right = torch.from_numpy(answers.right(batch.sample))  # B, K
        images = finish_evaluation(batch.images, augmentation, device)
        samples.append(batch.sample)
        for name, network in networks.items():
            with told(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                logits = network(images)
            rows[name].append(_answered(logits.float().cpu(), right))
    mine = {name: np.concatenate(parts) for name, parts in rows.items()}
    parts = ranks.gather((np.concatenate(samples), mine))
    seconds = max(ranks.gather(time.monotonic() - started))
    found = {name: _measured([(sample, rows[name]) for sample, rows in parts]) for name in networks}
    return found, len(answers.classes) / seconds


def _row_type(classes: int) -> np.dtype:
    return np.dtype([("answer", row_type(classes)), ("loss", "<f8")])


def _answered(logits: Tensor, right: Tensor) -> np.ndarray:
    """A row for each image of a batch: logits and right answers, [B, K].

    The loss is the cross-entropy; with several right answers, of the likeliest of them.
    """
    K = logits.shape[1]
    rows = np.zeros(len(logits), _row_type(K))
    probabilities = logits.double().softmax(1)
    best = logits.topk(min(TOP, K), dim=1).indices
    hits = right.gather(1, best)
    target = logits.masked_fill(~right, -torch.inf).argmax(1)
    answer = rows["answer"]
    answer["classes"] = best
    answer["probabilities"] = probabilities.gather(1, best)
    answer["label_probability"] = probabilities.gather(1, target[:, None])[:, 0]
    place = torch.where(hits.any(1), hits.int().argmax(1), hits.shape[1])
    answer["place"] = torch.where(right.any(1), place, NOT_COUNTED)
    rows["loss"] = cross_entropy(logits.double(), target, reduction="none")
    return rows


def _measured(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> Measured:
    """All ranks' rows in the order of the samples, and what they say: the same on any number of ranks."""
    samples, rows = (np.concatenate(each) for each in zip(*parts, strict=True))
    rows = rows[samples >= 0][np.argsort(samples[samples >= 0])]
    counted = rows[rows["answer"]["place"] != NOT_COUNTED]
    place, n = counted["answer"]["place"], len(counted)
    top = rows["answer"]["classes"].shape[1]
    first, five = int((place == 0).sum()), int((place < top).sum())
    loss = math.fsum(counted["loss"]) / n
    return Measured(Measures(100 * first / n, 100 * five / n, loss, n), rows["answer"])


def confusion_of(answered: np.ndarray, answers: Answers) -> np.ndarray:
    """int64 [K, K]: how many images of a class (row) got which answer (column).

    An image with several right answers is of the class that it was taken for if that is one, else its first.
    """
    table = np.zeros((answers.outputs, answers.outputs), np.int64)
    for classes, row in zip(answers.classes, answered, strict=True):
        if classes:
            answer = row["classes"][0]
            table[answer if answer in classes else min(classes), answer] += 1
    return table


def per_class(confusion: np.ndarray) -> np.ndarray:
    """Percent of each class that is right; NaN where it has no images."""
    with np.errstate(invalid="ignore"):
        return 100 * confusion.diagonal() / confusion.sum(1)


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
