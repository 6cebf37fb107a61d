"""What completes prompts: one file each."""
