"""What strangers wrote: files that are read by one door, names that are shown by one escape."""
