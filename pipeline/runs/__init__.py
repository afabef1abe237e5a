"""What a run leaves on disk: checkpoints, attempts, record and provenance."""
