"""What gives candidates a distribution over targets: one file each."""
