"""A namespace with a netlink socket in it, for the tests of pycni.host."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import Any

import pytest

from netns_fixtures import Namespace
from pycni.host import netns, rtnl


class Place:
    """A namespace, a descriptor of it and a socket in it."""

    def __init__(self, namespace: Namespace, stack: ExitStack) -> None:
        self.ns = namespace
        self.fd = netns.open_netns(namespace.path)
        stack.callback(os.close, self.fd)
        self.nl = stack.enter_context(rtnl.in_namespace(self.fd))

    def link(self, name: str) -> rtnl.Link:
        link = self.nl.link(name)
        assert link is not None, f"no link {name}"
        return link

    def shown(self, name: str) -> dict[str, Any]:
        """What `ip -d link` says of a link."""
        (link,) = self.ns.ip_json("-d", "link", "show", "dev", name)
        return link


def refused(place: Place, *requests: bytes) -> OSError:
    with pytest.raises(OSError) as failure:  # noqa: PT011 - the caller looks at the errno
        place.nl.request(*requests)
    return failure.value
