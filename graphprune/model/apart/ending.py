"""What is said of a model that ends the process which runs it."""

from __future__ import annotations

from graphprune.errors import KilledError
from graphprune.model import limits
from graphprune.model.apart.asking import Answer, Job


def see(answer: Answer, job: Job, name: str, where: str = "") -> None:
    """Raise KilledError where a run has ended the process, or would have ended this one.

    Args:
        answer: what came of it.
        job: the run.
        name: of the model.
        where: at what inputs it ran.
    """
    if answer.late:
        raise KilledError(f"{name}: one run{where} took more than {job.seconds:.3g} s; --run-time allows more")
    if answer.room:
        most = limits.told(job.memory)
        raise KilledError(f"{name}: one run{where} wants more memory than the {most} allowed; --memory allows more")
    if answer.killed:
        raise KilledError(
            f"{name}: ONNX Runtime was ended by {answer.killed} when it ran the model{where}: a fault of its own that "
            "this model reaches; another version of onnxruntime may not have it"
        )
