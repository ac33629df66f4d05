"""Plan and model in, model out. Chooses nothing."""
