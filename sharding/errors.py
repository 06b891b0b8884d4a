"""The one exception for what a user can mend."""


class PackError(ValueError):
    """A tree, a pack, or a request on them cannot be used; the message says what to do."""
