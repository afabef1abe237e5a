"""Networks of one's own: found by their names, and made."""
