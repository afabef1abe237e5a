"""Weights in every form in which TNT was published: recognised, checked, translated."""

from tnt.weights.models import Weights, load, name_of, open_model, read, save

__all__ = ["Weights", "load", "name_of", "open_model", "read", "save"]
