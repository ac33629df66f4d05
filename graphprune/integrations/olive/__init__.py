"""A pass of Olive: ``prune`` has it, and needs olive-ai; ``package`` tells Olive of it, and needs nothing."""
