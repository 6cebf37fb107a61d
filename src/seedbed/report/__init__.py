"""The page and the dataset card of a run."""
