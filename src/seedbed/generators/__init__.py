"""Ways to make a teacher: one file each."""
