"""Errors that callers may report without a traceback; any other ValueError is a bug."""


class ModelError(ValueError):
    """A network, a preprocessing or an objective cannot be built from its settings."""


class EvaluatorError(ValueError):
    """An evaluator does not exist, or cannot be computed from these references."""
