"""The inner transformer in one pass over memory, forward and backward, written in Triton.

PyTorch's own kernels move twenty times the bytes of the block's input and output (benchmarks/LOG.md). Here a
program keeps a few patches on the chip from the first LayerNorm to the last residual, and backward computes
them again instead of reading what forward stored. `tnt/block.py` stays the definition: tests compare with it.

`ops.py` is what the network calls; the other files are imported, and with them Triton, when it first does.
"""
