"""Names: which ones the protocol allows, and those that we derive from an attachment."""

from __future__ import annotations

import sys

from pycni.cni.errors import CniError, Code, shown
from pycni.cni.value import Value

IFNAME_BYTES = 15  # IFNAMSIZ is 16 with the final NUL (linux/if.h)
ALIAS_BYTES = 255  # IFALIASZ is 256 with the final NUL (linux/if.h)
_ALPHANUMERIC = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


class Attachment(Value):
    """One interface of one container on one network: what the specification makes ADD and DEL agree on.

    *part*: "" for the plugin that makes the interface, the name of a chained one ("portmap") for what that adds to it.
    """

    network: str
    container_id: str
    ifname: str
    part: str = ""

    @property
    def owner(self) -> str:
        """network/container_id/ifname[/part]: unique, since none of them may contain a slash."""
        owner = f"{self.network}/{self.container_id}/{self.ifname}"
        return f"{owner}/{self.part}" if self.part else owner

    @classmethod
    def parse(cls, owner: str) -> Attachment | None:
        """The attachment whose `owner` this is, None for any other text."""
        fields = owner.split("/")
        return cls(*fields) if len(fields) in (3, 4) and all(fields) else None


def host_link_name(attachment: Attachment) -> str:
    """The host end of the attachment's veth pair: `veth` and 11 hexadecimal digits, found again without any state."""
    name = "\0".join((attachment.network, attachment.container_id, attachment.ifname))
    return "veth" + sha256_hex(name.encode("utf-8", "surrogateescape"))[:11]


def alias(attachment: Attachment) -> str:
    """The ifalias that tells people whose link it is: `pycni ` and the owner, cut to what the kernel holds."""
    return f"pycni {attachment.owner}".encode("utf-8", "replace")[:ALIAS_BYTES].decode("utf-8", "ignore")


def bridge_alias(network: str) -> str:
    """The ifalias of a bridge that was made for *network*: GC removes such a one when nothing is on it any more."""
    return f"pycni {network}".encode("utf-8", "replace")[:ALIAS_BYTES].decode("utf-8", "ignore")


def check_container_id(text: str) -> None:
    """CniError 4 unless *text* is a container id of the specification (alphanumeric, then also `_`, `.` and `-`)."""
    if not text:
        raise CniError(Code.ENVIRONMENT, "missing containerID", "set CNI_CONTAINERID")
    if not _is_identifier(text):
        raise CniError(
            Code.ENVIRONMENT,
            f"invalid characters in containerID: CNI_CONTAINERID is {shown(text)}; allowed are A-Z a-z 0-9 at the"
            " start and also _ . - after it",
        )


def check_network(text: str) -> None:
    """CniError 7 unless *text* is a network name of the specification (the same rule as for a container id)."""
    if not text:
        raise CniError(Code.INVALID_CONFIG, "missing network name", 'give the network config a "name"')
    if not _is_identifier(text):
        raise CniError(
            Code.INVALID_CONFIG,
            f"invalid characters found in network name: name is {shown(text)}; allowed are A-Z a-z 0-9 at the start"
            " and also _ . - after it",
        )


def check_ifname(text: str, *, where: str = "CNI_IFNAME", code: int = Code.ENVIRONMENT) -> None:
    """CniError *code* unless the kernel can give an interface the name *text*; *where* is the key it came from."""
    problem = "interface name is empty" if not text else _ifname_problem(text)
    if problem:
        raise CniError(code, f"{problem}: {where} is {shown(text)}")


def check_plugin_type(text: str, *, where: str = "type") -> None:
    """CniError 7 unless *text* is a bare file name: it is looked up in CNI_PATH and must not leave it."""
    if not text:
        raise CniError(Code.INVALID_CONFIG, f'{where} is empty: name a plugin, as in "bridge"')
    if "/" in text or "\0" in text or text in (".", ".."):
        raise CniError(
            Code.INVALID_CONFIG,
            f"{where} is {shown(text)}, a path: give the plugin's file name and its directory in CNI_PATH",
        )


def _is_identifier(text: str) -> bool:
    # strip() stops at the first character that is not allowed, so only a clean text is used up.
    return text[0] in _ALPHANUMERIC and not text.strip(_ALPHANUMERIC + "_.-")


def _ifname_problem(text: str) -> str:
    """What the kernel (dev_valid_name and dev_alloc_name, net/core/dev.c) or the specification has against *text*."""
    try:
        length = len(text.encode())
    except UnicodeEncodeError:  # environment bytes that were no UTF-8: the result could not repeat them in JSON
        return "interface name is not UTF-8"
    if length > IFNAME_BYTES:
        return f"interface name is too long: {length} bytes, the kernel takes {IFNAME_BYTES}"
    if text in (".", ".."):
        return "interface name is . or .."
    if any(char in "/:\0" or char.isspace() for char in text):
        return "interface name contains / or : or whitespace characters"
    if "%" in text:  # dev_alloc_name: "eth%d" is a pattern, and the link would get another name than asked for
        return "interface name contains %, which the kernel takes for a pattern"
    return ""


def sha256_hex(data: bytes) -> str:
    # hashlib loads OpenSSL: 3 ms of a call that has about 20. The interpreter's own module is the same function; its
    # name is asked by version, because an import that fails searches all of sys.path every time.
    try:
        if sys.version_info >= (3, 12):
            from _sha2 import sha256
        else:
            from _sha256 import sha256
    except ImportError:  # an interpreter built without its own hashes
        from hashlib import sha256
    digest: str = sha256(data).hexdigest()
    return digest
