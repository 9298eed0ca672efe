"""NETNS|CONTAINER of the command line → the attachment it means.

ADD takes a namespace. DEL and CHECK also take a container, and must work when its namespace is gone: then the cache (or
our store) says what the attachment was.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from collections.abc import Iterator, Sequence

from pycni.cli.cache import CachedAttachment
from pycni.cli.failure import NOT_FOUND, USAGE, Failure
from pycni.cni.value import Value

NAMED_NETNS_DIR = "/run/netns"  # where `ip netns add` puts them; /var/run is a link to /run
SHORTEST_PREFIX = 4  # fewer characters of a container id are not taken for one
_CONTAINER_ID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*\Z", re.ASCII)


class Namespace(Value):
    """A network namespace by path, and the container id an attachment made by hand gets."""

    path: str
    container_id: str


def resolve_namespace(text: str) -> tuple[Namespace | None, list[str]]:
    """The namespace *text* names, and what was tried: a path, a name under /run/netns, a PID, in this order.

    A path is taken as it is: on DEL it may be gone. None when nothing fits.
    """
    if os.sep in text:
        return Namespace(path=text, container_id=derived_container_id(text)), []
    tried = []
    named = os.path.join(NAMED_NETNS_DIR, text)
    tried.append(f"namespace {named}")
    if text not in ("", ".", "..") and os.path.exists(named):
        return Namespace(path=named, container_id=derived_container_id(named)), tried
    if text.isascii() and text.isdigit():
        of_process = f"/proc/{text}/ns/net"
        tried.append(f"process {of_process}")
        if os.path.exists(of_process):
            return Namespace(path=of_process, container_id=derived_container_id(of_process)), tried
    return None, tried


def derived_container_id(path: str) -> str:
    """The id of an attachment made without --container-id.

    It depends on the path alone, so that DEL finds it when the namespace is gone: the name of one of `ip netns`,
    `pid-N` for a process, else `netns-` and a hash.
    """
    for directory in (NAMED_NETNS_DIR, "/var/run/netns"):
        name = path.removeprefix(directory + "/")
        if name != path and _CONTAINER_ID.match(name):
            return name
    of_process = re.fullmatch(r"/proc/(\d+)/ns/net", path)
    if of_process:
        return f"pid-{of_process[1]}"
    return "netns-" + hashlib.sha256(os.path.normpath(path).encode()).hexdigest()[:12]


def is_container_id(text: str) -> bool:
    """Whether the specification allows a container that id."""
    return _CONTAINER_ID.match(text) is not None


def same_path(one: str, other: str) -> bool:
    """Whether two namespace paths are the same text, /var/run being /run."""
    norm = [os.path.normpath(path) for path in (one, other)]
    return (
        bool(one) and len({path.removeprefix("/var") if path.startswith("/var/run/") else path for path in norm}) == 1
    )


def _matches(text: str, known: Sequence[CachedAttachment]) -> Iterator[list[CachedAttachment]]:
    """Candidates from the most to the least exact reading of *text*."""
    yield [one for one in known if one.container_id == text]
    yield [one for one in known if text in one.names]
    yield [one for one in known if len(text) >= SHORTEST_PREFIX and one.container_id.startswith(text)]


def find_attachments(text: str, known: Sequence[CachedAttachment]) -> list[CachedAttachment]:
    """The attachments of the one container that *text* names: its id, its name, or the beginning of its id.

    Failure when the text fits several containers; an empty list when none.
    """
    for candidates in _matches(text, known):
        containers = sorted({one.container_id for one in candidates})
        if len(containers) > 1:
            raise Failure(
                f"{text!r} names {len(containers)} containers",
                exit_code=USAGE,
                facts=[("candidates", "\n".join(containers))],
                next_step="give the whole container id",
            )
        if candidates:
            return candidates
    return []


def choose_attachment(text: str, candidates: Sequence[CachedAttachment], ifname: str | None) -> CachedAttachment:
    """The one of *candidates* (all of one network) with that ifname; Failure if that leaves several or none."""
    fitting = [one for one in candidates if ifname in (None, one.ifname)]
    if len(fitting) == 1:
        return fitting[0]
    found = ", ".join(f"{one.container_id}/{one.ifname}" for one in candidates)
    if fitting:
        step = "say which with --ifname or --container-id"
        raise Failure(f"{text!r} names several attachments", exit_code=USAGE, facts=[("found", found)], next_step=step)
    message = f"{text!r} has no interface {ifname} on this network"
    raise Failure(message, exit_code=NOT_FOUND, code=3, facts=[("found", found)])


class Unknown(Failure):
    """A text that is neither a namespace nor a known container; *near* is a known name like it, or ""."""

    def __init__(self, text: str, tried: Sequence[str], known: Sequence[CachedAttachment], where: str) -> None:
        names = sorted({one.container_id for one in known} | {name for one in known for name in one.names})
        self.near = next(iter(difflib.get_close_matches(text, names, 1)), "")
        looked = [*tried, f"container ids, names and id prefixes in {where}"]
        there = "`pycni list` and `ip netns list` show what there is"
        super().__init__(
            f"no network namespace or container called {text!r}",
            exit_code=NOT_FOUND,
            code=3,
            facts=[("tried", "\n".join(looked))],
            next_step=f"did you mean {self.near}?" if self.near else there,
        )
