"""A set on disk: tar files, and the manifest that says what they hold."""
