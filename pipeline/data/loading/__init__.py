"""From a set on disk to batches in memory."""
