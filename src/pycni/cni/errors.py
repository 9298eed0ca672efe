"""The one exception of a CNI command, and its codes."""

from __future__ import annotations

from pycni.cni import json_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

SHOWN_LENGTH = 80  # characters of a foreign value that a message repeats


class Code:
    """CNI error codes: 1..11, 50, 51 of the specification ("Error"), 8 and 999 of the reference, ours from 100.

    docs/errors.md says of each when it comes and what to do.
    """

    VERSION = 1
    UNSUPPORTED_FIELD = 2
    UNKNOWN_CONTAINER = 3
    ENVIRONMENT = 4
    IO = 5
    DECODE = 6
    INVALID_CONFIG = 7
    NETNS = 8
    TRY_AGAIN = 11
    NOT_AVAILABLE = 50
    LIMITED = 51
    PORT_TAKEN = 100
    EXHAUSTED = 101
    ADDRESS_TAKEN = 102
    FIREWALL = 103
    KERNEL_LACKS = 104
    ALREADY_ATTACHED = 105
    BROKEN = 106
    NEEDS_AGENT = 107
    INTERNAL = 999


class CniError(Exception):
    """What a CNI command answers instead of a result.

    *code* is a `Code`, or the number that a delegated plugin gave; *msg* names the value, the limit and the next
    step; *details* is whatever else helps, and is left out when empty.
    """

    def __init__(self, code: int, msg: str, details: str = "") -> None:
        super().__init__(code, msg, details)
        self.code = code
        self.msg = msg
        self.details = details

    def __str__(self) -> str:
        return f"{self.msg}: {self.details}" if self.details else self.msg

    def as_json(self) -> dict[str, Any]:
        """The error object of the specification, without cniVersion (callers ignore it, the reference omits it)."""
        error: dict[str, Any] = {"code": int(self.code), "msg": self.msg}
        if self.details:
            error["details"] = self.details
        return error


def broken(owner: str, wrong: Sequence[str]) -> CniError:
    """What CHECK answers for an attachment of which *wrong* is not as ADD left it."""
    return CniError(Code.BROKEN, f"{owner}: {'; '.join(wrong)}", "DEL and ADD the container to this network again")


def not_released(owner: str, failures: Sequence[str], *, recorded: bool = True) -> CniError:
    """What DEL answers for an attachment that could not be taken away wholly. *recorded*: there is a record of it."""
    return CniError(
        Code.INTERNAL,
        f"{owner} is not wholly released: {'; '.join(failures)}",
        "the record stays: DEL again, or let GC finish it" if recorded else "pycni has no record of it: DEL again",
    )


def shown(value: object) -> str:
    """*value* as one line of JSON for a message: at most `SHOWN_LENGTH` characters, all of which are valid Unicode."""
    if isinstance(value, str):
        value = value[: SHOWN_LENGTH + 1]
    text = json_text.dumps(value, default=repr)
    if len(text) > SHOWN_LENGTH:
        text = text[: SHOWN_LENGTH - 1] + "…"
    return text.encode("utf-8", "backslashreplace").decode()  # environment bytes may be lone surrogates
