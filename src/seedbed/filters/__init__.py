"""What keeps or drops a candidate, with a reason: one file each."""
