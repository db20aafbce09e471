"""Errors that a user can act on: one line that says what, expected, got, and what to do next."""


class CifarFlowError(Exception):
    """An expected failure; its line replaces the traceback."""

    exit_code = 1

    def __init__(
        self, what: str, *, expected: str | None = None, got: str | None = None, advice: str | None = None
    ) -> None:
        super().__init__(what)
        self.what, self.expected, self.got, self.advice = what, expected, got, advice

    @property
    def problem(self) -> str:
        """The line without the advice."""
        expected = f": expected {self.expected}" if self.expected else ""
        got = f"{',' if expected else ':'} got {self.got}" if self.got else ""
        return f"{self.what}{expected}{got}"

    def __str__(self) -> str:
        return f"{self.problem}; {self.advice}" if self.advice else self.problem


class InputError(CifarFlowError):
    """The user's input cannot be used: a wrong setting, a damaged archive, a checksum that does not match."""

    exit_code = 2


class EnvironmentFailure(CifarFlowError):
    """The environment failed: network, disk, permissions, another process."""
