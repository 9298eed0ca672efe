"""Whether the kernel could encrypt tunnels; iproute2 is the second opinion."""

from __future__ import annotations

import pytest

from netns_fixtures import Namespace
from pycni.host import esp

pytestmark = pytest.mark.needs("root", "tool:ip")


@pytest.mark.parametrize(("version", "address"), [(4, "127.0.0.1"), (6, "::1")])
def test_asked_by_trying(make_namespace: type[Namespace], version: int, address: str) -> None:
    """The answer is what `ip xfrm state add` comes to, and nothing stays of the trial."""
    place = make_namespace("xfrm")
    end = f"src {address} dst {address} proto esp spi 0x1234 mode transport"
    key = f"0x{bytes(20).hex()}"
    added = place.run(["ip", *f"xfrm state add {end} aead rfc4106(gcm(aes)) {key} 128".split()], check=False)
    before = place.run(["ip", "xfrm", "state"], check=False).stdout
    assert place.in_namespace(lambda: esp.has_esp(version)) == (added.returncode == 0)
    assert place.run(["ip", "xfrm", "state"], check=False).stdout == before
