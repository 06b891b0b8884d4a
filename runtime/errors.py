"""Mistakes that a command reports in one line before it exits with 2."""


class ConfigError(ValueError):
    """The configuration is wrong, or does not fit this machine or this run."""


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged, or of another shape than the network."""


class TrainingError(RuntimeError):
    """Training cannot go on, though nothing was wrong with the command."""
