"""Errors that a user can act on: each is one line saying what, expected, got, and what to do next."""


class CifarFlowError(Exception):
    """A failure that needs its message only, not a traceback."""

    exit_code = 1


class InputError(CifarFlowError):
    """The user's input cannot be used: a wrong setting, a damaged archive, a checksum that does not match."""

    exit_code = 2


class EnvironmentFailure(CifarFlowError):
    """The world does not play along: no network, a full disk, a broken transfer."""
