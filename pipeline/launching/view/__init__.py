"""Runs as they go on, looked at again and again; as a page in a browser of this machine."""
