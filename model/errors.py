"""What callers of the evaluators may want to tell apart from a bug."""


class EvaluatorError(ValueError):
    """An evaluator does not exist, or cannot be computed from these references."""
