"""A YAML or JSON file as nodes that know their line, and a reader that collects every error before it gives up.

Scalars mean what YAML 1.2 and JSON say: `no` is a text, `8080:53` is a text (YAML 1.1 has them as false and 485653).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from typing import Any

from pycni.cni.errors import Code
from pycni.cni.value import Value
from pycni.lab.errors import USAGE, LabError

Scalar = None | bool | int | float | str

_INT = re.compile(r"[-+]?[0-9]+\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_WORDS: dict[str, Scalar] = {"": None, "~": None, "null": None, "true": True, "false": False}
_NUMBERED = re.compile(r"(?P<before>[^\[\]]*)\[(?P<first>[0-9]+)-(?P<last>[0-9]+)\](?P<after>[^\[\]]*)\Z")
MOST_NUMBERED = 1000
MOST_VALUES = 100_000  # seven lines of aliases to aliases can stand for millions
LAB_FORMAT = "`pycni lab schema` prints the format as JSON schema; docs/lab.md explains it"


class Node(Value):
    """One value of the file; *where* is its way from the top ("hosts.h1.links[0]"), *line* counts from 1."""

    value: Any  # Scalar, tuple[Node, ...] or dict[str, Node]
    line: int
    where: str

    @property
    def plain(self) -> Any:
        """The value without lines, as JSON has it."""
        if isinstance(self.value, dict):
            return {key: node.plain for key, node in self.value.items()}
        if isinstance(self.value, tuple):
            return [node.plain for node in self.value]
        return self.value


class Problems:
    """Errors of one file, in the order of its lines."""

    def __init__(self, path: str, next_step: str = LAB_FORMAT) -> None:
        self.path = path
        self.next_step = next_step
        self._found: list[tuple[int, str]] = []

    def add(self, node: Node, text: str) -> None:
        """Something about *node* is wrong: `file:line: key: text`."""
        named = f"{node.where}: " if node.where else ""
        found = (node.line, f"{self.path}:{node.line}: {named}{text}")
        if found not in self._found:  # an entry such as h[1-3] is read three times
            self._found.append(found)

    def lines(self) -> list[str]:
        return [text for _, text in sorted(self._found, key=lambda found: found[0])]

    def check(self) -> None:
        """LabError with all of them, if there are any."""
        if self._found:
            number = len(self._found)
            raise LabError(
                f"{self.path} has {'an error' if number == 1 else f'{number} errors'}",
                self.lines(),
                next_step=self.next_step,
                exit_code=USAGE,
                code=Code.INVALID_CONFIG,
            )


def load(text: str, path: str) -> Node:
    """The file's top node. LabError for what is no YAML, for doubled keys and keys that are no text, all at once."""
    yaml = _yaml()
    if text.lstrip().startswith("{"):
        text = text.replace("\t", " ")  # JSON may be indented by them, YAML may not; inside texts neither allows them
    problems = Problems(path)
    try:
        root = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.MarkedYAMLError as failure:
        mark = failure.problem_mark or failure.context_mark
        problems.add(Node(None, mark.line + 1 if mark else 1, ""), str(failure.problem or failure))
        problems.check()
    except yaml.YAMLError as failure:  # characters that no YAML may hold
        problems.add(Node(None, 1, ""), str(failure).replace("\n", " "))
        problems.check()
    if root is None:
        return Node({}, 1, "")
    if _size(root, {}) > MOST_VALUES:
        problems.add(Node(None, 1, ""), f"more than {MOST_VALUES} values, aliases written out")
        problems.check()
    node = _converted(root, "", problems, ())
    problems.check()
    return node


def _yaml() -> Any:
    try:
        import yaml
    except ImportError:
        raise LabError(
            "labs are described in YAML, and PyYAML is not installed", next_step="pip install 'pycni[lab]'"
        ) from None
    return yaml


def _size(raw: Any, known: dict[int, int]) -> int:
    """How many values *raw* stands for; an alias inside of what it stands for counts once."""
    if id(raw) not in known:
        known[id(raw)] = 1
        parts = [] if raw.id == "scalar" else raw.value
        pairs = parts if raw.id == "mapping" else zip(parts)
        known[id(raw)] = 1 + sum(_size(part, known) for pair in pairs for part in pair)
    return known[id(raw)]


def _converted(raw: Any, where: str, problems: Problems, above: tuple[int, ...]) -> Node:
    line = raw.start_mark.line + 1
    if id(raw) in above:
        problems.add(Node(None, line, where), "an alias inside of what it stands for has no end")
        return Node(None, line, where)
    above = (*above, id(raw))
    if raw.id == "scalar":
        return Node(_scalar(raw), line, where)
    if raw.id == "sequence":
        parts = (_converted(each, f"{where}[{at}]", problems, above) for at, each in enumerate(raw.value))
        return Node(tuple(parts), line, where)
    found: dict[str, Node] = {}
    merged: list[Node] = []
    for key, value in raw.value:
        if key.id != "scalar":
            problems.add(Node(None, key.start_mark.line + 1, where), "a key must be a text")
            continue
        at = f"{where}.{key.value}" if where else key.value
        converted = _converted(value, at, problems, above)
        if key.value == "<<" and key.style is None:
            merged += converted.value if isinstance(converted.value, tuple) else [converted]
        elif key.value in found:
            first = found[key.value].line
            problems.add(Node(None, key.start_mark.line + 1, at), f"stands here for the second time, see line {first}")
        else:
            found[key.value] = converted
    for node in merged:
        if isinstance(node.value, dict):
            found = {**node.value, **found}
        else:
            problems.add(node, "only a mapping can be merged (<<)")
    return Node(found, line, where)


def _scalar(raw: Any) -> Scalar:
    text: str = raw.value
    if raw.style is not None:  # quoted, or a block
        return text
    if text.lower() in _WORDS and text in (text.lower(), text.upper(), text.capitalize()):
        return _WORDS[text.lower()]
    if _INT.match(text):
        return int(text)
    return float(text) if _FLOAT.match(text) else text


class Fields:
    """A mapping that is being read: what is asked for is checked, `finish` names the keys that nobody asked for.

    A wrong value is noted in *problems* and read as the default, so that one run finds all errors.
    """

    def __init__(self, node: Node, problems: Problems) -> None:
        self.node = node
        self.problems = problems
        self._raw: dict[str, Node] = {}
        self._known: list[str] = []
        if isinstance(node.value, dict):
            self._raw = node.value
        elif node.value is not None:  # `h1:` without anything is an empty mapping
            problems.add(node, f"must be a mapping, not {kind_of(node)}")

    def get(self, key: str) -> Node | None:
        """The node under *key*; None if it is absent or null."""
        self._known.append(key)
        node = self._raw.get(key)
        return None if node is None or node.value is None else node

    def has(self, key: str) -> bool:
        return key in self._raw

    def wrong(self, key: str, text: str) -> None:
        """Note an error at *key*, or at the mapping where the key is absent."""
        self.problems.add(self._raw.get(key, self.node), text)

    def text(self, key: str, default: str = "") -> str:
        node = self.get(key)
        if node is None:
            return default
        if node.value == "":
            self.problems.add(node, "is empty: leave it out")
        elif isinstance(node.value, str):
            return node.value
        else:
            self.problems.add(node, f"must be a text, not {kind_of(node)}; quote it if it is one")
        return default

    def word(self, key: str, words: Sequence[str], default: str) -> str:
        """One of *words*."""
        found = self.text(key, default)
        if found not in words:
            near = difflib.get_close_matches(found, words, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it is one of {', '.join(words)}"
            self.wrong(key, f"{found!r} is unknown: {hint}")
            return default
        return found

    def integer(self, key: str, low: int, high: int, default: int) -> int:
        node = self.get(key)
        if node is None:
            return default
        if type(node.value) is not int or not low <= node.value <= high:
            self.problems.add(node, f"{_shown(node)} is not a number in {low}..{high}")
            return default
        return node.value

    def flag(self, key: str, default: bool) -> bool:
        node = self.get(key)
        if node is None:
            return default
        if not isinstance(node.value, bool):
            self.problems.add(node, f"{_shown(node)} is neither true nor false")
            return default
        return node.value

    def items(self, key: str) -> tuple[Node, ...]:
        """The elements of a list; () if absent."""
        node = self.get(key)
        if node is None:
            return ()
        if not isinstance(node.value, tuple):
            self.problems.add(node, f"must be a list, not {kind_of(node)}")
            return ()
        return node.value

    def texts(self, key: str) -> tuple[str, ...]:
        """The elements of a list of texts."""
        found = []
        for node in self.items(key):
            if isinstance(node.value, str):
                found.append(node.value)
            else:
                self.problems.add(node, f"must be a text, not {kind_of(node)}; quote it if it is one")
        return tuple(found)

    def child(self, key: str) -> Fields | None:
        """The mapping under *key*; None if absent. `key: {}` is there, and so is `key:` alone."""
        self._known.append(key)
        node = self._raw.get(key)
        return None if node is None else Fields(node, self.problems)

    def numbered(self, key: str) -> Iterator[tuple[str, Node]]:
        """Name and node of every entry of the mapping under *key*; `h[1-3]` stands for h1, h2 and h3."""
        self._known.append(key)
        node = self._raw.get(key)
        if node is None or node.value is None:
            return
        if not isinstance(node.value, dict):
            self.problems.add(node, f"must be a mapping of names, not {kind_of(node)}")
            return
        seen: dict[str, Node] = {}
        for pattern, each in node.value.items():
            for name in self._names(pattern, each):
                if name in seen:
                    self.problems.add(each, f"{name!r} is already described in line {seen[name].line}")
                    continue
                seen[name] = each
                yield name, each

    def _names(self, pattern: str, node: Node) -> list[str]:
        match = _NUMBERED.match(pattern)
        if match is None:
            return [pattern]
        first, last = int(match["first"]), int(match["last"])
        if not first <= last < first + MOST_NUMBERED:
            self.problems.add(node, f"[{first}-{last}] must go up, over at most {MOST_NUMBERED} numbers")
            return []
        width = len(match["first"]) if match["first"].startswith("0") else 0  # h[01-10] gives h01 … h10
        return [f"{match['before']}{number:0{width}}{match['after']}" for number in range(first, last + 1)]

    def finish(self) -> None:
        """Name every key that nobody asked for."""
        for key, node in self._raw.items():
            if key not in self._known:
                near = difflib.get_close_matches(key, self._known, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(dict.fromkeys(self._known))}"
                self.problems.add(node, f"unknown key: {hint}")


def kind_of(node: Node) -> str:
    """What a node is, in words."""
    value = node.value
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, tuple):
        return "a list"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    return f"the number {value}" if isinstance(value, int | float) else f"the text {value!r}"


def _shown(node: Node) -> str:
    return repr(node.value) if isinstance(node.value, str | int | float) else kind_of(node)
