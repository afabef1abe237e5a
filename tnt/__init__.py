"""Transformer in Transformer (Han et al., 2021, arXiv 2103.00112) in PyTorch."""

import importlib
from typing import TYPE_CHECKING, Any

from tnt.config import PYRAMIDS, VARIANTS, PyramidConfig, TNTConfig, get_config

if TYPE_CHECKING:
    from tnt.model import TNT, Embeddings
    from tnt.pyramid.model import PyramidTNT
    from tnt.weights.models import create_model

__all__ = [
    "PYRAMIDS",
    "TNT",
    "VARIANTS",
    "Embeddings",
    "PyramidConfig",
    "PyramidTNT",
    "TNTConfig",
    "create_model",
    "get_config",
]
__version__ = "0.1.0"
# What needs torch, and the module that it comes from.
NETWORK = {
    "TNT": "tnt.model",
    "Embeddings": "tnt.model",
    "PyramidTNT": "tnt.pyramid.model",
    "create_model": "tnt.weights.models",
}


def __getattr__(name: str) -> Any:
    """Import the network when it is first asked for: configs can be read without loading torch."""
    if name not in NETWORK:
        raise AttributeError(f"module 'tnt' has no attribute {name!r}")
    return getattr(importlib.import_module(NETWORK[name]), name)
