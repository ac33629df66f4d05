"""Pictures of a model's structure: what a group couples, what a block holds, the whole; and data for viewers."""
