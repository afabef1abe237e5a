"""What the GPU of this process has drawn, by NVIDIA's own counter; it takes the package nvidia-ml-py."""

import functools
from importlib.util import find_spec
from typing import Any


def joules() -> dict[str, float]:
    """Since the driver was loaded, as `joules`; a difference of two is what was drawn in between."""
    counter = _counter()
    return {"joules": counter()} if counter else {}


@functools.cache
def _counter() -> Any:
    import torch

    if not torch.cuda.is_available() or find_spec("pynvml") is None:
        return None
    import pynvml

    try:
        pynvml.nvmlInit()
        uuid = f"GPU-{torch.cuda.get_device_properties().uuid}"
        device = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        pynvml.nvmlDeviceGetTotalEnergyConsumption(device)
    except pynvml.NVMLError:  # the driver, or this device, has no such counter
        return None
    return lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(device) / 1000
