"""What can be wrong with the text of a relation."""


class NotationError(ValueError):
    """A line that cannot be read, whatever shapes it meets: a slip of whoever wrote it."""


class FitError(NotationError):
    """A line that is well formed, and does not fit the shapes that it meets."""
