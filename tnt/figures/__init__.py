"""Figures of what a TNT computes: the paper's Figures 4 and 5, attention, and Grad-CAM."""
