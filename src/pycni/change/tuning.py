"""Operations on settings of a container that others made (see ops): each one's inverse puts back what was there."""

from __future__ import annotations

from pycni.change.ops import Op


class KeepFile(Op):
    """A file of the host with this text, whole or not at all; its directory is made (mode 0700) where it is missing."""

    path: str
    text: str


class DropFile(Op):
    """Takes back a KeepFile; already gone is fine."""

    path: str


class TuneSysctl(Op):
    """A sysctl of the container. What the kernel makes of the value may be another text, or a rounded number."""

    key: str
    value: str


class TuneLink(Op):
    """One setting of the container's interface: the one that is given."""

    link: str
    mac: bytes = b""
    mtu: int = 0  # bytes
    promiscuous: bool | None = None
    all_multicast: bool | None = None
    tx_queue: int | None = None  # packets


def same_value(wanted: str, have: str | None) -> bool:
    """Whether the kernel's text *have* of a sysctl says what *wanted* does: blanks and the base of numbers do not
    count."""
    return have is not None and _words(wanted) == _words(have)


def _words(value: str) -> list[str | int]:
    return [_number(word) for word in value.split()]


def _number(word: str) -> str | int:
    # As the kernel reads a number (strtoul_lenient, sysctl.c): 0x10 and 010 are 16 and 8.
    digits = word.removeprefix("-")
    base = 16 if digits[:2] in ("0x", "0X") else 8 if digits[:1] == "0" else 10
    try:
        return int(word, base)
    except ValueError:
        return word
