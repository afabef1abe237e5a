"""PyramidTNT (Han et al., 2022, arXiv 2201.00978): TNT's blocks in four stages of falling resolution."""
