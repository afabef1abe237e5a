"""Images, from published archives to batches; `dataset.py` is the one door for everybody else."""
