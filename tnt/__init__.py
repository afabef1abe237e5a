"""Transformer in Transformer (Han et al., 2021, arXiv 2103.00112) in PyTorch."""

from typing import TYPE_CHECKING, Any

from tnt.config import VARIANTS, TNTConfig, get_config

if TYPE_CHECKING:
    from tnt.model import TNT, Embeddings, create_model

__all__ = ["TNT", "VARIANTS", "Embeddings", "TNTConfig", "create_model", "get_config"]


def __getattr__(name: str) -> Any:
    """The network comes when it is asked for: what a config says can be read without loading torch."""
    if name not in __all__:
        raise AttributeError(f"module 'tnt' has no attribute {name!r}")
    import tnt.model

    return getattr(tnt.model, name)
