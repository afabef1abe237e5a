"""Weights in every form in which TNT and PyramidTNT were published: recognised, checked, translated."""

from tnt.weights.models import Weights, load, open_model, read, save
from tnt.weights.networks import name_of, network

__all__ = ["Weights", "load", "name_of", "network", "open_model", "read", "save"]
