"""What differences can carry: the noise of runs and of images, effects, verdicts, and the seeds they need."""
