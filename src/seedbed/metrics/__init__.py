"""What measures the kept rows against real ones: one file each."""
