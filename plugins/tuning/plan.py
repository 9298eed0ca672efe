"""What one ADD of the tuning plugin does, what it keeps for DEL, and what a DEL does with that; from values alone."""

from __future__ import annotations

from pycni.change.tuning import KeepFile, TuneLink, TuneSysctl
from pycni.cni import json_text
from pycni.cni.errors import CniError, Code
from pycni.cni.keys import Keys
from pycni.cni.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from pycni.change.ops import Op
    from pycni.cni.addresses import Interface as AddressWithPrefix
    from pycni.cni.env import Call
    from pycni.cni.result import Result
    from pycni.host.link_facts import Link
    from pycni.plugins.tuning.conf import TuningConf

ALLOWLIST = "/etc/cni/tuning/allowlist.conf"
IPV6_MIN_MTU = 1280  # bytes; below it the kernel takes IPv6 off the link (addrconf_notify, addrconf.c)
# Classes of RE2, the reference's language of regular expressions, that Python's has not.
CLASSES = {
    "[:alnum:]": "0-9A-Za-z",
    "[:alpha:]": "A-Za-z",
    "[:digit:]": "0-9",
    "[:lower:]": "a-z",
    "[:upper:]": "A-Z",
    "[:word:]": "0-9A-Za-z_",
    "[:xdigit:]": "0-9A-Fa-f",
}
OURS = "pycni"  # the key of a kept file that holds what the reference's plugin does not keep


class Kept(Value):
    """What was there before the first tuning of an attachment: the kept file.

    Mac, mtu, promisc, allmulti and txQLen stand in it as the reference's plugin writes them, so that its DEL restores
    them, and ours what it wrote; sysctls, which that one does not restore, beside them.
    """

    owner: str = ""  # Attachment.owner; "": written by the reference's plugin
    netns_id: str = ""  # "device:inode" of the namespace
    boot_id: str = ""
    since: int = 0  # nanoseconds of the boot's clock at the first tuning; 0: not told
    mac: bytes = b""
    mtu: int = 0  # bytes
    promiscuous: bool | None = None
    all_multicast: bool | None = None
    tx_queue: int | None = None
    sysctls: tuple[tuple[str, str], ...] = ()
    became: tuple[tuple[str, str], ...] = ()  # what the kernel shows for a value that it writes in another way

    def render(self) -> str:
        """As JSON."""
        reference = {
            "mac": self.mac.hex(":") or None,
            "promisc": self.promiscuous,
            "mtu": self.mtu or None,
            "allmulti": self.all_multicast,
            "txQLen": self.tx_queue,
        }
        ours = {
            "attachment": self.owner,
            "netns": self.netns_id,
            "boot": self.boot_id,
            "since": self.since,
            "sysctl": dict(self.sysctls),
            "became": dict(self.became),
        }
        said = {key: value for key, value in reference.items() if value is not None}
        return json_text.dumps({**said, OURS: ours}, indent=1)


def parse_kept(text: str | None) -> Kept | None:
    """What a kept file says; None for no file, or one that is no use (a crash may leave an empty one)."""
    try:
        decoded = json_text.loads(text or "")
        keys = Keys(decoded if isinstance(decoded, dict) else {})
        ours = keys.object(OURS)
        mac = keys.text("mac")
        return Kept(
            owner=ours.text("attachment"),
            netns_id=ours.text("netns"),
            boot_id=ours.text("boot"),
            since=ours.integer("since", 0, 2**63 - 1) or 0,
            mac=bytes.fromhex(mac.replace(":", "")),
            mtu=keys.integer("mtu", 0, 2**31 - 1) or 0,
            promiscuous=keys.boolean("promisc") if keys.has("promisc") else None,
            all_multicast=keys.boolean("allmulti") if keys.has("allmulti") else None,
            tx_queue=keys.integer("txQLen", 0, 2**31 - 1),
            sysctls=_texts(ours.object("sysctl")),
            became=_texts(ours.object("became")),
        )
    except (CniError, RecursionError, ValueError):
        return None


def _texts(keys: Keys) -> tuple[tuple[str, str], ...]:
    return tuple((key, keys.text(key)) for key in keys.as_dict())


def kept_path(data_dir: str, container_id: str, ifname: str) -> str:
    """The kept file of an attachment; the reference's name."""
    return f"{data_dir}/{container_id}_{ifname}.json"


def keep(whose: Kept, conf: TuningConf, link: Link, sysctls: dict[str, str | None]) -> Kept:
    """*whose* with what there is now of all that *conf* changes. *sysctls*: their values, None for none."""
    return whose.replace(
        mac=link.mac if conf.mac else b"",
        mtu=link.mtu if conf.mtu else 0,
        promiscuous=link.promiscuous if conf.promiscuous else None,
        all_multicast=link.all_multicast if conf.all_multicast is not None else None,
        tx_queue=link.tx_queue if conf.tx_queue is not None else None,
        sysctls=tuple((key, value) for key, value in sysctls.items() if value is not None),
    )


def merge(now: Kept, before: Kept | None) -> Kept:
    """*now* with what an earlier tuning of the same attachment kept: a list may name the plugin twice."""
    if before is None or (before.owner, before.netns_id) != (now.owner, now.netns_id):
        return now
    return now.replace(
        since=before.since,
        mac=before.mac or now.mac,
        mtu=before.mtu or now.mtu,
        promiscuous=now.promiscuous if before.promiscuous is None else before.promiscuous,
        all_multicast=now.all_multicast if before.all_multicast is None else before.all_multicast,
        tx_queue=now.tx_queue if before.tx_queue is None else before.tx_queue,
        sysctls=tuple({**dict(now.sysctls), **dict(before.sysctls)}.items()),
        became=before.became,
    )


def divide(kept: Kept, others: Mapping[str, Kept]) -> tuple[Kept, dict[str, Kept]]:
    """What a DEL with *kept* puts back, and which of *others*, the container's other kept files by path, are to be
    written anew.

    A sysctl is the whole namespace's. What another interface's tuning set after this one stays, and with that one goes
    what was there before both.
    """
    mine = dict(kept.sysctls)
    inherited: dict[str, Kept] = {}
    for path, other in sorted(others.items(), key=lambda each: each[1].since):
        if (other.netns_id, other.boot_id) != (kept.netns_id, kept.boot_id) or other.since <= kept.since:
            continue
        left = {key: mine.pop(key) for key, _ in other.sysctls if key in mine}
        if left:
            inherited[path] = other.replace(sysctls=tuple({**dict(other.sysctls), **left}.items()))
    return kept.replace(sysctls=tuple(mine.items())), inherited


def plan_add(conf: TuningConf, call: Call, kept: Kept) -> tuple[Op, ...]:
    """Every operation of the ADD in order, the file first: whatever happens then, DEL knows what was there."""
    path = kept_path(conf.data_dir, call.container_id, call.ifname)
    ops: list[Op] = [KeepFile(path, kept.render())]
    ops += [TuneSysctl(sysctl.key, sysctl.value) for sysctl in conf.sysctls]
    ops += link_ops(
        call.ifname,
        Kept(
            mac=conf.mac,
            promiscuous=conf.promiscuous or None,
            mtu=conf.mtu,
            all_multicast=conf.all_multicast,
            tx_queue=conf.tx_queue,
        ),
    )
    return tuple(ops)


def plan_restore(ifname: str, kept: Kept) -> tuple[Op, ...]:
    """Every operation that puts back what was there, independent of one another."""
    return (*link_ops(ifname, kept), *(TuneSysctl(key, value) for key, value in reversed(kept.sysctls)))


def link_ops(ifname: str, wanted: Kept) -> list[Op]:
    """One operation for each setting: the kernel does not take back the first of two when it refuses the second."""
    ops: list[Op] = []
    if wanted.mac:
        ops.append(TuneLink(ifname, mac=wanted.mac))
    if wanted.promiscuous is not None:
        ops.append(TuneLink(ifname, promiscuous=wanted.promiscuous))
    if wanted.mtu:
        ops.append(TuneLink(ifname, mtu=wanted.mtu))
    if wanted.all_multicast is not None:
        ops.append(TuneLink(ifname, all_multicast=wanted.all_multicast))
    if wanted.tx_queue is not None:
        ops.append(TuneLink(ifname, tx_queue=wanted.tx_queue))
    return ops


def changed_result(conf: TuningConf, ifname: str, previous: Result) -> Result:
    """The earlier plugin's result with the MAC, and the MTU where it said one, that the interface has now."""
    interfaces = [
        interface.replace(
            mac=conf.mac.hex(":") if conf.mac else interface.mac,
            mtu=conf.mtu if conf.mtu and interface.mtu else interface.mtu,
        )
        if interface.name == ifname and interface.sandbox
        else interface
        for interface in previous.interfaces
    ]
    return previous.replace(interfaces=tuple(interfaces))


def is_too_small_for_ipv6(mtu: int) -> bool:
    return 0 < mtu < IPV6_MIN_MTU


def refuse_to_lose(addresses: tuple[AddressWithPrefix, ...], conf: TuningConf) -> None:
    """CniError 7 where *addresses* of the interface would go with the MTU: no DEL and no undo could bring them back."""
    lost = next((each for each in addresses if each.version == 6 and not each.is_link_local), None)
    if lost is not None:
        raise CniError(
            Code.INVALID_CONFIG,
            f"mtu is {conf.mtu}, and IPv6 needs {IPV6_MIN_MTU} (RFC 8200, section 5): the kernel would remove {lost}",
            "set a larger mtu, or give the network no IPv6 range",
        )


def refuse_unlisted(conf: TuningConf, allowlist: str | None) -> None:
    """CniError 7 unless some line of *allowlist*, a regular expression each, is found in every key as it is written.

    None: there is no such file, and everything below net is allowed (reference: validateSysctlConf).
    """
    if allowlist is None or not conf.sysctls:
        return
    import re  # 4 ms that only hosts with an allowlist pay

    lines = [line.strip() for line in allowlist.splitlines() if line.strip()]
    try:
        patterns = [re.compile(_without_classes(line), re.ASCII) for line in lines]
    except re.error as failure:
        raise CniError(
            Code.INVALID_CONFIG, f"{ALLOWLIST}: {failure.pattern!r} is no regular expression: {failure}"
        ) from None
    for sysctl in conf.sysctls:
        if not any(pattern.search(sysctl.written) for pattern in patterns):
            raise CniError(
                Code.INVALID_CONFIG,
                f"Sysctl {sysctl.written} is not allowed. Only the following sysctls are allowed: {' '.join(lines)}",
                f"{ALLOWLIST} is the host's choice: add a line for the key there, or remove it from the network",
            )


def _without_classes(pattern: str) -> str:
    for name, characters in CLASSES.items():
        pattern = pattern.replace(name, characters)
    return pattern
