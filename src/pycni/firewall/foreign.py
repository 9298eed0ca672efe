"""Rules that others made, read as far as needed: could this one accept new traffic from a link of ours?

Expressions are nf_tables' own (enum nft_*_attributes in include/uapi/linux/netfilter/nf_tables.h). In doubt the answer
is yes: a firewall is only called closed when no rule can open it.
"""

from __future__ import annotations

from sys import byteorder

from pycni.firewall.elements import each_attribute

ACCEPT, JUMP, GOTO = 1, -3, -4  # verdict codes: NF_ACCEPT, NFT_JUMP, NFT_GOTO
META_IIFNAME, META_OIFNAME = 6, 7  # nft_meta_keys
CT_STATE, NEW_BIT = 0, 8  # nft_ct_keys; NF_CT_STATE_BIT(IP_CT_NEW)


def can_accept(expressions: bytes, link: str, *, towards: bool = False) -> bool:
    """Whether a rule of these NFTA_RULE_EXPRESSIONS may accept a new connection that comes in by *link*, or that goes
    out by it and comes from elsewhere."""
    opens = False
    register_holds = ""
    for kind, expression in each_attribute(expressions):
        parts = dict(each_attribute(expression)) if kind == 1 else {}
        name = parts.get(1, b"").rstrip(b"\0").decode()
        data = dict(each_attribute(parts.get(2, b"")))
        if name in ("meta", "ct"):
            key = _number(data.get(2, b""))
            held = {("meta", META_IIFNAME): "in", ("meta", META_OIFNAME): "out", ("ct", CT_STATE): "state"}
            register_holds = held.get((name, key), "")
        elif name == "bitwise" and register_holds == "state":
            mask = _value(data.get(4, b""))
            if mask and not int.from_bytes(mask, byteorder) & NEW_BIT:
                return False  # "ct state established,related": only the answers
        elif name == "cmp" and register_holds in ("in", "out") and _number(data.get(2, b"")) == 0:
            names = _value(data.get(3, b"")).rstrip(b"\0")
            of_link = (link.encode() + b"\0").startswith(names)
            if register_holds == ("out" if towards else "in") and not of_link:
                return False  # another interface's rule
            if towards and register_holds == "in" and of_link:
                return False  # for the other way
        elif name == "lookup" and 3 in data:  # NFTA_LOOKUP_DREG: a map, perhaps of verdicts
            opens = True
        elif name == "immediate":
            opens = _verdict(data.get(2, b"")) in (ACCEPT, JUMP, GOTO) or opens
        elif name in ("queue", "match", "target", "objref"):
            opens = True
    return opens


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _value(data: bytes) -> bytes:
    return dict(each_attribute(data)).get(1, b"")


def _verdict(data: bytes) -> int | None:
    code = dict(each_attribute(dict(each_attribute(data)).get(2, b""))).get(1)
    return None if code is None else int.from_bytes(code, "big", signed=True)
