"""Errors of our own, each with a message for a person.

A message says what is wrong (naming the file, series or volume) and what to do about it. It
never holds patient names or identifiers.
"""


class NPCSynthError(Exception):
    """Base of every error that NPCSynth raises on purpose. ``str(error)`` is fit to show a user."""

    exit_code = 5


class UsageError(NPCSynthError):
    """The request itself makes no sense, e.g. an unknown sequence or a target that is also a source."""

    exit_code = 2


class InputError(NPCSynthError):
    """An image, series or folder cannot be used."""

    exit_code = 3


class WeightsError(NPCSynthError):
    """The weights are missing, damaged or not the ones that the manifest describes."""

    exit_code = 3


class OutputError(NPCSynthError):
    """A result could not be written; nothing partial has been left behind."""

    exit_code = 5


class WorkerError(NPCSynthError):
    """The process that computes ended or failed; nothing was changed.

    Args:
        details: for the log of a developer; names no patient.
        cpu_may_help: whether the same job may succeed on the CPU.
    """

    def __init__(self, message: str, details: str = "", cpu_may_help: bool = False):
        super().__init__(message)
        self.details = details
        self.cpu_may_help = cpu_may_help


class Cancelled(NPCSynthError):
    """The user cancelled; nothing has been written."""

    exit_code = 4

    def __init__(self, message="Canceled. Nothing was changed."):
        super().__init__(message)
