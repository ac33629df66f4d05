"""Which whole blocks go."""
