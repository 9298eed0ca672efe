"""Hearing that somebody deleted or changed a bridge or VXLAN device, or took an address from a link.

For a process that has other work: containers that come and go are a dozen notices each, and a filter in the kernel
keeps them away.
"""

from __future__ import annotations

from pycni.host import messages
from pycni.host.inet_messages import RTM_DELADDR
from pycni.host.link_events import (
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV6_IFADDR,
    RTNLGRP_LINK,
    LinkEvents,
)
from pycni.host.messages import RTM_DELLINK, RTM_NEWLINK
from pycni.host.socket_filter import (
    DROP,
    JUMP_EQUAL,
    LOAD_BYTE,
    LOAD_HALF,
    LOAD_NUMBER,
    LOAD_WORD,
    LOAD_WORD_AT_X,
    LOAD_X,
    PASS,
    TO_X,
    as_loaded,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.host.socket_filter import Instruction

GROUPS = RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR
KINDS = b"bridge", b"vxlan"


def listen() -> LinkEvents:
    """In the calling thread's namespace."""
    return LinkEvents(GROUPS, bridges_program())


def bridges_program() -> list[Instruction]:
    """The filter, see socket_filter. Pure.

    Addresses that went pass, and links whose kind begins as one of KINDS. Of a port's own notices (AF_BRIDGE) none.
    The kernel finds an attribute by itself: from A on, of the type in X; where it is comes to A, 0: nowhere
    (SKF_AD_NLATTR and SKF_AD_NLATTR_NEST, linux/filter.h).
    """
    find, find_inside = 0xFFFFF000 + 12, 0xFFFFF000 + 16
    bridge, vxlan = (int.from_bytes(kind[:4], "big") for kind in KINDS)
    return [
        (LOAD_HALF, 0, 0, 4),  # nlmsg_type
        (JUMP_EQUAL, 15, 0, as_loaded(RTM_DELADDR)),
        (JUMP_EQUAL, 1, 0, as_loaded(RTM_NEWLINK)),
        (JUMP_EQUAL, 0, 14, as_loaded(RTM_DELLINK)),
        (LOAD_BYTE, 0, 0, 16),  # ifi_family
        (JUMP_EQUAL, 12, 0, messages.AF_BRIDGE),
        (LOAD_X, 0, 0, messages.IFLA_LINKINFO),
        (LOAD_NUMBER, 0, 0, 16 + messages.IFINFOMSG.size),
        (LOAD_WORD, 0, 0, find),
        (JUMP_EQUAL, 8, 0, 0),
        (LOAD_X, 0, 0, messages.IFLA_INFO_KIND),
        (LOAD_WORD, 0, 0, find_inside),
        (JUMP_EQUAL, 5, 0, 0),
        (TO_X, 0, 0, 0),
        (LOAD_WORD_AT_X, 0, 0, 4),
        (JUMP_EQUAL, 1, 0, bridge),
        (JUMP_EQUAL, 0, 1, vxlan),
        PASS,
        DROP,
    ]
