"""Triton up to 3.6 cannot interpret kernels with numpy 2.4 and later; a GPU does not need it to."""

import pytest
import torch

BROKEN = "only 0-dimensional arrays can be converted to Python scalars"  # numpy, called by that interpreter


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item):
    try:
        return (yield)
    except Exception as error:
        if BROKEN in str(error) and not torch.cuda.is_available():
            pytest.skip("this Triton's interpreter does not work with this numpy; a GPU does not need it")
        raise
