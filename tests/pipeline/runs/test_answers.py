"""Answers for each image: as a file, and as the bits that a record holds."""

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.runs import answers


def some(images: int = 50_000, classes: int = 1000) -> np.ndarray:
    draws = np.random.default_rng(0)
    rows = np.zeros(images, answers.row_type(classes))
    rows["classes"] = draws.integers(0, classes, (images, 5))
    rows["probabilities"] = draws.random((images, 5))
    rows["label_probability"] = draws.random(images)
    rows["place"] = draws.choice(6, images, p=[0.81, 0.1, 0.03, 0.02, 0.01, 0.03])
    return rows


def test_a_file_gives_back_what_it_was_given_and_the_same_answers_the_same_bytes(tmp_path):
    both = {"raw": some(), "ema": some()[::-1]}
    for name in "ab":
        answers.publish(both, tmp_path / "answers" / name)
    held = answers.read(tmp_path / "answers" / "a")
    assert all(np.array_equal(held[name], both[name]) for name in both)
    assert (tmp_path / "answers" / "a").read_bytes() == (tmp_path / "answers" / "b").read_bytes()


def test_the_bits_of_imagenet_are_small_and_come_back(tmp_path):
    right = answers.right(some())
    text = answers.as_text(right)
    assert len(text) < 8500
    assert np.array_equal(answers.from_text(text, 50_000), right)


def test_images_without_a_right_answer_have_no_bit():
    rows = some(20)
    rows["place"][:3] = answers.NOT_COUNTED
    assert len(answers.right(rows)) == 17


def test_a_network_of_few_classes_has_fewer_answers():
    assert answers.row_type(3)["classes"].shape == (3,)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04torn", b"\x80\x04."])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.npz is damaged"):
        answers.read(tmp_path / "x.npz")
    with pytest.raises(UserError, match="no answers at"):
        answers.read(tmp_path / "y.npz")
