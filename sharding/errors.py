"""What a user can mend, and the one line that says so."""

import argparse
import sys
from typing import NoReturn


class PackError(ValueError):
    """A tree, a pack, or a request on them cannot be used; the message says what to do."""


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with a command's arguments, and exits with 2."""

    def error(self, message: str) -> NoReturn:
        """As ``argparse.ArgumentParser.error``, without the usage."""
        print(f"error: {message}; see {self.prog} --help", file=sys.stderr)
        raise SystemExit(2)
