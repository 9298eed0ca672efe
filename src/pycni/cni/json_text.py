"""JSON by the interpreter's own C functions, without the package around them.

`import json` is 6 ms of a call that has about twenty: it compiles regular expressions, for which it loads `re` and
`enum`. Reading is done by the scanner in C that `json` itself uses. Writing is a page of Python, since with indentation
`json` has no C either. Where the interpreter has no such scanner, `json` reads. tests/unit/test_json_text.py compares
both ways with `json`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MAX_BYTES = 16 * 1024 * 1024  # of a document that somebody hands us
_BLANK = " \t\n\r"
_WORDS = {None: "null", True: "true", False: "false"}
_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}  # no JSON, but what the library writes
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}


def loads(
    text: str,
    *,
    parse_float: Callable[[str], Any] = float,
    parse_constant: Callable[[str], Any] = float,
    object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None,
) -> Any:
    """The value that *text* is; ValueError says what is wrong where. *parse_float* and *parse_constant* ("NaN",
    "Infinity", "-Infinity") get the words of numbers, *object_pairs_hook* what is in an object, to make another value
    of it than a dict. RecursionError for what nests too deep."""
    try:
        from _json import make_scanner
    except ImportError:
        return _library_loads(text, parse_float, parse_constant, object_pairs_hook)
    start = len(text) - len(text.lstrip(_BLANK))
    try:
        rules: Any = _Rules(parse_float, parse_constant, object_pairs_hook)
        value, end = make_scanner(rules)(text, start)
    except SystemError:
        # Until Python 3.12 the scanner raises nothing where json.decoder, which has its exception, is not loaded.
        return _library_loads(text, parse_float, parse_constant, object_pairs_hook)
    except StopIteration as nothing:
        raise ValueError(f"Expecting value: char {nothing.value}") from None
    rest = text[end:].lstrip(_BLANK)
    if rest:
        raise ValueError(f"Extra data: char {len(text) - len(rest)}")
    return value


def _library_loads(
    text: str, parse_float: Callable[[str], Any], parse_constant: Callable[[str], Any], object_pairs_hook: Any
) -> Any:
    import json

    return json.loads(text, parse_float=parse_float, parse_constant=parse_constant, object_pairs_hook=object_pairs_hook)


class _Rules:
    """What the scanner asks of the decoder it serves (json.decoder.JSONDecoder)."""

    strict = True
    object_hook = array_hook = None
    parse_int = int

    def __init__(
        self, parse_float: Callable[[str], Any], parse_constant: Callable[[str], Any], object_pairs_hook: Any
    ) -> None:
        self.parse_float = parse_float
        self.parse_constant = parse_constant
        self.object_pairs_hook = object_pairs_hook


def dumps(value: Any, *, indent: int = 0, default: Callable[[Any], str] | None = None) -> str:
    """*value* as JSON on one line, or with each part on a line of its own, *indent* spaces deeper each time.

    Characters beyond ASCII stay as they are. *default*: a text in place of what is no JSON; else TypeError.
    """
    return _written(value, "\n" if indent else "", " " * indent, default)


def _written(value: Any, line: str, step: str, default: Callable[[Any], str] | None) -> str:
    deeper = line + step
    if isinstance(value, str):
        written = _quoted(value)
    elif isinstance(value, dict):
        pairs = [f"{_quoted(str(key))}: {_written(part, deeper, step, default)}" for key, part in value.items()]
        written = _joined("{", pairs, "}", line, deeper)
    elif isinstance(value, list | tuple):
        written = _joined("[", [_written(part, deeper, step, default) for part in value], "]", line, deeper)
    elif value is None or isinstance(value, bool):
        written = _WORDS[value]
    elif isinstance(value, int):
        written = int.__repr__(value)
    elif isinstance(value, float):
        written = float.__repr__(value)
        written = _NOT_FINITE.get(written, written)
    elif default is None:
        raise TypeError(f"{type(value).__name__} is not JSON")
    else:
        written = _quoted(default(value))
    return written


def _joined(begin: str, parts: list[str], end: str, line: str, deeper: str) -> str:
    if not parts:
        return begin + end
    return f"{begin}{deeper}{f',{deeper}'.join(parts)}{line}{end}" if line else f"{begin}{', '.join(parts)}{end}"


def _quoted(text: str) -> str:
    # Most strings hold nothing to escape, and isprintable() tells so in C (it refuses all control characters).
    if text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return '"' + "".join(_ESCAPES.get(c) or (c if c >= " " else f"\\u{ord(c):04x}") for c in text) + '"'
