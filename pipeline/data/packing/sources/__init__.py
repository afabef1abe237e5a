"""Sources of images: a module for each kind of published archive."""
