"""What strangers wrote: files that are read by one door, names that are shown by one escape; and disks that
refuse what we write."""
