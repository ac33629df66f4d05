"""A process of its own for models that came from elsewhere, where what they do to it ends nothing else."""

from graphprune.model.apart.asking import Answer, Job, Made, ask, start, stop
from graphprune.model.apart.ending import see
from graphprune.model.apart.worker import no_room

__all__ = ["Answer", "Job", "Made", "ask", "no_room", "see", "start", "stop"]
