"""Transformer in Transformer (Han et al., 2021, arXiv 2103.00112) in PyTorch."""

from tnt.config import VARIANTS, TNTConfig, get_config
from tnt.model import TNT, Embeddings, create_model

__all__ = ["TNT", "VARIANTS", "Embeddings", "TNTConfig", "create_model", "get_config"]
