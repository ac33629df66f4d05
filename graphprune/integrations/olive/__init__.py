"""A pass of Olive. ``prune`` has it, and needs olive-ai; ``package`` tells Olive that it is there, and needs nothing."""
