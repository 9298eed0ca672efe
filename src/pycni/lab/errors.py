"""What went wrong with a lab, in words for the one who asked for it."""

from __future__ import annotations

from collections.abc import Sequence

NOT_FOUND = 3
USAGE = 2


class LabError(Exception):
    """*message* is one sentence, *details* lines below it, *next_step* what to do.

    *exit_code* is that of the command, *code* that of its error in JSON.
    """

    def __init__(
        self, message: str, details: Sequence[str] = (), *, next_step: str = "", exit_code: int = 1, code: int = 999
    ) -> None:
        super().__init__("\n".join((message, *details)))
        self.message = message
        self.details = tuple(details)
        self.next_step = next_step
        self.exit_code = exit_code
        self.code = code
