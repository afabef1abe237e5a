"""One run: data, training, evaluation, checkpoints, records; and the launcher."""
