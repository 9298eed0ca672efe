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
    as_loaded,
)
from pycni.host.messages import RTM_DELLINK, RTM_NEWLINK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.host.link_events import Instruction

GROUPS = RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR
KINDS = b"bridge", b"vxlan"


def listen() -> LinkEvents:
    """In the calling thread's namespace."""
    return LinkEvents(GROUPS, bridges_program())


def bridges_program() -> list[Instruction]:
    """The filter as classic BPF, see `link_events.wanted_program`. Pure.

    Addresses that went pass, and links whose kind begins as one of KINDS. Of a port's own notices (AF_BRIDGE) none.
    The kernel finds an attribute by itself: from A on, of the type in X; where it is comes to A, 0: nowhere
    (SKF_AD_NLATTR and SKF_AD_NLATTR_NEST, linux/filter.h).
    """
    load_word, load_half, load_byte, load_number, load_x = 0x20, 0x28, 0x30, 0x00, 0x01  # linux/bpf_common.h
    load_word_at_x, jump_equal, to_x, answer = 0x40, 0x15, 0x07, 0x06
    find, find_inside = 0xFFFFF000 + 12, 0xFFFFF000 + 16
    bridge, vxlan = (int.from_bytes(kind[:4], "big") for kind in KINDS)
    return [
        (load_half, 0, 0, 4),  # nlmsg_type
        (jump_equal, 15, 0, as_loaded(RTM_DELADDR)),
        (jump_equal, 1, 0, as_loaded(RTM_NEWLINK)),
        (jump_equal, 0, 14, as_loaded(RTM_DELLINK)),
        (load_byte, 0, 0, 16),  # ifi_family
        (jump_equal, 12, 0, messages.AF_BRIDGE),
        (load_x, 0, 0, messages.IFLA_LINKINFO),
        (load_number, 0, 0, 16 + messages.IFINFOMSG.size),
        (load_word, 0, 0, find),
        (jump_equal, 8, 0, 0),
        (load_x, 0, 0, messages.IFLA_INFO_KIND),
        (load_word, 0, 0, find_inside),
        (jump_equal, 5, 0, 0),
        (to_x, 0, 0, 0),
        (load_word_at_x, 0, 0, 4),
        (jump_equal, 1, 0, bridge),
        (jump_equal, 0, 1, vxlan),
        (answer, 0, 0, 0xFFFFFFFF),
        (answer, 0, 0, 0),
    ]
