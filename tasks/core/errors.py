"""Errors that a user can act on: each is one line saying what, expected, got, and what to do next."""


class ExpectedError(Exception):
    """A failure that needs its message only, not a traceback."""

    exit_code = 1


class InputError(ExpectedError):
    """The user's input cannot be used: a wrong setting, a damaged archive, a checksum that does not match."""

    exit_code = 2


class WorldError(ExpectedError):
    """The world does not play along: no network, a full disk, a broken transfer."""
