"""Making sets of shards: from a source's images to tar files and their manifest."""
