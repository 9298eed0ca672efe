"""Names that the protocol allows, and those derived from an attachment."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.cni.errors import CniError, Code
from pycni.cni.names import (
    Attachment,
    alias,
    check_container_id,
    check_ifname,
    check_network,
    check_plugin_type,
    host_link_name,
)

IDENTIFIER = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")
texts = st.one_of(st.text(max_size=20), st.text(alphabet="aZ09_.-/ é\n", max_size=20))


@given(texts)
def test_container_id_and_network_follow_the_specification(text: str) -> None:
    """Exactly the texts of the specification's expression pass; others are code 4 and code 7."""
    allowed = IDENTIFIER.fullmatch(text) is not None
    for check, code in ((check_container_id, Code.ENVIRONMENT), (check_network, Code.INVALID_CONFIG)):
        if allowed:
            check(text)
        else:
            with pytest.raises(CniError) as refused:
                check(text)
            assert refused.value.code == code


def test_empty_names_have_the_messages_that_users_know() -> None:
    """The wording is the reference's."""
    with pytest.raises(CniError, match=r"^missing containerID"):
        check_container_id("")
    with pytest.raises(CniError, match=r"^missing network name"):
        check_network("")


@pytest.mark.parametrize("text", ["eth0", "e", "a" * 15, "net1.100", "eth0@x", "été", "..."])
def test_ifnames_of_the_kernel_pass(text: str) -> None:
    """Up to 15 bytes of nearly anything is an interface name to Linux."""
    check_ifname(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "interface name is empty"),
        ("a" * 16, "interface name is too long: 16 bytes, the kernel takes 15"),
        ("é" * 8, "interface name is too long: 16 bytes"),
        (".", "interface name is . or .."),
        ("..", "interface name is . or .."),
        ("a/b", "contains / or :"),
        ("a:1", "contains / or :"),
        ("a b", "whitespace"),
        ("a\n", "whitespace"),
        ("a\u2003", "whitespace"),
        ("a\0", "contains"),
        ("eth%d", "contains %"),
        ("\udc80", "not UTF-8"),
    ],
)
def test_ifnames_that_the_kernel_or_the_specification_refuses(text: str, problem: str) -> None:
    """Each is code 4 with the reason, before anything is made; `%` because the kernel would choose another name."""
    with pytest.raises(CniError, match=problem) as refused:
        check_ifname(text)
    assert refused.value.code == Code.ENVIRONMENT
    assert "CNI_IFNAME is" in refused.value.msg


def test_ifname_from_a_config_is_refused_by_its_key() -> None:
    """The same rule serves names in the config, with its code and key."""
    with pytest.raises(CniError, match=r'bridge is "a/b"') as refused:
        check_ifname("a/b", where="bridge", code=Code.INVALID_CONFIG)
    assert refused.value.code == Code.INVALID_CONFIG


@pytest.mark.parametrize("text", ["bridge", "host-local", "my.plugin", "..."])
def test_plugin_types_are_file_names(text: str) -> None:
    """A bare file name passes."""
    check_plugin_type(text)


@pytest.mark.parametrize("text", ["", "/bin/sh", "../sh", "a/b", ".", "..", "a\0b"])
def test_plugin_types_cannot_leave_the_plugin_directories(text: str) -> None:
    """A path is code 7, under whichever key it came."""
    with pytest.raises(CniError, match=r"^ipam\.type is") as refused:
        check_plugin_type(text, where="ipam.type")
    assert refused.value.code == Code.INVALID_CONFIG


def test_host_link_name_never_changes() -> None:
    """It is derived alone from the attachment: a version that derived another would not find the links of this one."""
    assert host_link_name(Attachment("net", "ctr", "eth0")) == "vethf7f25a44644"


@given(st.lists(st.tuples(*[st.text(alphabet="ab/\u20ac\udc80", max_size=8)] * 3), unique=True, min_size=2, max_size=5))
def test_host_link_names_are_distinct_and_valid(triples: list[tuple[str, str, str]]) -> None:
    """Different attachments have different links, also where their texts run together; the kernel takes each name."""
    names = {host_link_name(Attachment(*triple)) for triple in triples}
    assert len(names) == len(triples)
    for name in names:
        check_ifname(name)


def test_owner_and_alias_spell_the_attachment_out() -> None:
    """People read the owner from `ip link`."""
    attachment = Attachment("net", "ctr", "eth0")
    assert attachment.owner == "net/ctr/eth0"
    assert attachment.replace(part="portmap").owner == "net/ctr/eth0/portmap"
    for one in (attachment, attachment.replace(part="portmap")):
        assert Attachment.parse(one.owner) == one
    for text in ("", "net", "net/ctr", "net//eth0", "a/b/c/d/e"):
        assert Attachment.parse(text) is None
    assert alias(attachment) == "pycni net/ctr/eth0"


@given(st.text(max_size=300), st.text(alphabet="é\udc80", max_size=15))
def test_alias_fits_the_kernel(container_id: str, ifname: str) -> None:
    """At most 255 bytes of valid UTF-8, whatever the names are."""
    assert len(alias(Attachment("net", container_id, ifname)).encode()) <= 255
