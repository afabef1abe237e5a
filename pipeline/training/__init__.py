"""One run's steps: model, optimizer, engine, evaluation and log."""
