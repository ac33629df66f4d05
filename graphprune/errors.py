"""Errors that reach the user, each with its exit status."""

from __future__ import annotations


class GraphpruneError(Exception):
    """Base of all errors raised on purpose; the message is one line and says what to do."""

    exit_status = 2


class InputError(GraphpruneError):
    """The model, the plan or a request is wrong or cannot be met."""


class KilledError(GraphpruneError):
    """A model crashes ONNX Runtime, does not end, or fills the memory; no other size or way is tried."""


class ProofError(GraphpruneError):
    """The pruned model is not what the masked original is. Nothing was written."""

    exit_status = 1


class VerdictError(GraphpruneError):
    """The pruned model does not pass the validation that was asked for. Nothing was written."""

    exit_status = 1


class TargetError(GraphpruneError):
    """A target that was asked for cannot be met; the message says what can. Nothing was written, unless asked for."""

    exit_status = 1


class BackendError(GraphpruneError):
    """A backend that was asked for is not installed."""

    exit_status = 3


class UserCodeError(InputError):
    """A function that the user named (``module:function``) raised; the message says which one, and what."""


class FaultError(GraphpruneError):
    """A fault of the program itself, or of a rule that it was given: nothing that the user could mend in the model."""

    exit_status = 4
