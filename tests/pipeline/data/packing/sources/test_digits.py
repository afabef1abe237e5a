"""scikit-learn's digits as a source."""

import numpy as np
import pytest

from pipeline.data.packing.sources.digits import digits
from pipeline.errors import UserError
from tests.pipeline.pictures import pixels


def test_digits_are_scikit_learns_split_by_class():
    source = digits()
    train, validation = (source.splits[split] for split in ("train", "validation"))
    assert (len(train.key), len(validation.key)) == (1437, 360)
    assert not set(train.key) & set(validation.key)
    assert np.bincount(validation.label).min() >= 34
    assert source.classes == tuple("0123456789")


@pytest.mark.parametrize("form", ["jpg", "png"])
def test_digits_are_rgb_of_the_asked_size_and_the_same_each_time(form):
    first, second = digits(48, form), digits(48, form)
    payload = first.read("train", 7)
    assert payload == second.read("train", 7)
    assert pixels(payload).shape == (48, 48, 3)
    assert payload.startswith(b"\x89PNG" if form == "png" else b"\xff\xd8")


def test_digits_refuse_what_they_cannot_be():
    with pytest.raises(UserError, match="valid are jpg, png"):
        digits(form="bmp")
    with pytest.raises(UserError, match="outside 8 to 1024"):
        digits(4)
