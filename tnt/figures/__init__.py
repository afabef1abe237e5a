"""Pictures of a TNT at work: the paper's Figures 4 and 5, attention, and Grad-CAM."""
