"""The names that completion offers, which the shells' scripts ask for: `pycni completion SHELL --names KIND`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from pycni.cli.cache import DEFAULT_CACHE_DIR, all_cached
from pycni.cli.failure import Failure
from pycni.cli.networks import DEFAULT_CONF_DIR, read_directory
from pycni.cli.state import see_all
from pycni.cli.target import NAMED_NETNS_DIR
from pycni.cni.errors import CniError
from pycni.lab import state
from pycni.lab.errors import LabError
from pycni.lab.running import all_labs


def names_of(kind: str) -> list[str]:
    """Sorted; without those that this user may not see."""
    found: set[str] = set()
    for look in _LOOKS[kind]:
        try:
            found.update(look())
        except (Failure, CniError, LabError, OSError):
            pass
    return sorted(found)


def _networks() -> Iterator[str]:
    return (network.name for network in read_directory(os.environ.get("NETCONFPATH") or DEFAULT_CONF_DIR)[0])


def _namespaces() -> list[str]:
    return os.listdir(NAMED_NETNS_DIR)


def _cached() -> Iterator[str]:
    for one in all_cached(DEFAULT_CACHE_DIR):
        yield from (one.container_id, *one.names)


def _recorded() -> Iterator[str]:
    return (seen.record.attachment.container_id for seen in see_all())


def _hosts() -> Iterator[str]:
    for lab in all_labs()[0]:
        yield from lab.machines


def _lab_containers() -> Iterator[str]:
    for lab in all_labs()[0]:
        yield from (container.path for container in lab.containers)


_LOOKS: dict[str, tuple[Callable[[], Iterator[str] | list[str]], ...]] = {
    "network": (_networks,),
    "namespace": (_namespaces,),
    "container": (_cached, _recorded, _namespaces),
    "lab": (state.names,),
    "host": (_hosts,),
    "place": (_hosts, _lab_containers),
}
