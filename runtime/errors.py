"""Errors that commands report in one line instead of a traceback."""


class UserError(Exception):
    """A mistake that the user can fix; the message says what is wrong and what to do."""


class PackError(UserError):
    """A source tree or a pack cannot be used, or not as requested."""


class ConfigError(UserError):
    """An option, a configuration or the machine does not allow what was asked for."""


class CheckpointError(UserError):
    """A checkpoint cannot be read, written or used."""


class TrainingError(Exception):
    """Training cannot continue, though nothing was wrong with the command."""


class PeerError(Exception):
    """Another process of the same run ended early; its own output says why."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has none.

    Of an OSError it is the system's message only, without error number and file name.
    """
    message = (isinstance(error, OSError) and error.strerror) or str(error).strip()
    return (message or type(error).__name__).splitlines()[0]
