"""What is drawn for each view of an image, and what the draws do to its pixels."""
