"""A step on all ranks: DeepSpeed behind one door, and its checkpoints cut anew for other numbers of ranks."""
