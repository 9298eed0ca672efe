"""The bridge plugin's configuration as a value: every key of the reference plugin, and ours beside it."""

from __future__ import annotations

from pycni.cni.addresses import parse_mac
from pycni.cni.env import parse_args
from pycni.cni.errors import CniError, Code
from pycni.cni.value import Value
from pycni.firewall.choose import check_backend

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from pycni.cni.conf import Keys, NetConf
    from pycni.cni.env import Call

MAX_VLAN = 4094  # IEEE 802.1Q: 0 and 4095 are reserved
MAX_MTU = 65535  # linux/if_ether.h ETH_MAX_MTU
MAX_IFNAME = 15  # linux/if.h IFNAMSIZ, less the final zero


class BridgeConf(Value):
    """What the network's configuration asks of the bridge plugin. Keys are explained in docs/bridge.md."""

    bridge: str
    mtu: int  # bytes; 0: as the uplink
    is_gateway: bool
    is_default_gateway: bool
    force_address: bool
    masquerade: bool
    backend: str  # of the firewall: "" chooses, "none" leaves it alone
    isolate: bool
    hairpin: bool
    promiscuous: bool
    vlan: int  # 802.1Q id; 0: untagged
    trunk: tuple[tuple[int, int], ...]  # tagged ids, low to high inclusive
    keep_default_vlan: bool
    port_isolation: bool
    mac_spoof_check: bool
    dad: bool
    container_up: bool
    mac: bytes  # of the container's end; b"": the kernel chooses
    ipam: str  # the IPAM plugin's type; "": layer 2 only

    @property
    def vlan_filtering(self) -> bool:
        return self.vlan != 0 or bool(self.trunk)

    @property
    def gateway_link(self) -> str:
        """The host interface that carries the gateway addresses."""
        return f"{self.bridge}.{self.vlan}" if self.vlan and self.is_gateway else self.bridge

    @classmethod
    def parse(cls, conf: NetConf, call: Call) -> Self:
        """CniError 7 for a value out of range or two keys that exclude each other."""
        keys = conf.keys
        default_gateway = keys.boolean("isDefaultGateway")
        parsed = cls(
            bridge=_link_name(keys.text("bridge") or "cni0"),
            mtu=keys.integer("mtu", 0, MAX_MTU) or 0,
            is_gateway=keys.boolean("isGateway") or default_gateway,
            is_default_gateway=default_gateway,
            force_address=keys.boolean("forceAddress"),
            masquerade=keys.boolean("ipMasq") and bool(conf.ipam.text("type")),
            backend=_backend(keys),
            isolate=keys.boolean("isolate", True),
            hairpin=keys.boolean("hairpinMode"),
            promiscuous=keys.boolean("promiscMode"),
            vlan=_vlan(keys),
            trunk=_trunk(keys),
            keep_default_vlan=keys.boolean("preserveDefaultVlan"),
            port_isolation=keys.boolean("portIsolation"),
            mac_spoof_check=keys.boolean("macspoofchk"),
            dad=keys.boolean("enabledad"),
            container_up=not keys.boolean("disableContainerInterface"),
            mac=_mac(conf, call),
            ipam=conf.ipam.text("type"),
        )
        parsed._refuse_contradictions()
        return parsed

    def _refuse_contradictions(self) -> None:
        if self.hairpin and self.promiscuous:
            raise CniError(
                Code.INVALID_CONFIG, "cannot set hairpin mode and promiscuous mode at the same time", "set one of them"
            )
        if self.ipam and not self.container_up:
            raise CniError(
                Code.INVALID_CONFIG,
                "cannot use IPAM when DisableContainerInterface flag is set",
                "remove ipam: addresses need an interface that is up",
            )
        if len(self.gateway_link) > MAX_IFNAME:
            raise CniError(
                Code.INVALID_CONFIG,
                f"the VLAN's gateway interface would be named {self.gateway_link!r}, longer than {MAX_IFNAME} bytes",
                "give the bridge a shorter name",
            )


def _link_name(name: str) -> str:
    # The kernel takes % for a pattern (dev_alloc_name), nft and iptables do so with the others.
    odd = any(c in '/:%"\\*+' or c.isspace() for c in name)
    if len(name.encode()) > MAX_IFNAME or name in (".", "..", "all", "default") or odd:
        raise CniError(
            Code.INVALID_CONFIG,
            f'bridge is {name!r}: an interface name has 1 to {MAX_IFNAME} bytes, none of / : % " \\ * + or blank',
            "all and default are no names either: they stand for the sysctls of every interface",
        )
    return name


def _backend(keys: Keys) -> str:
    """`backend` is ours and may switch the firewall off; `ipMasqBackend` is the reference's name for the choice."""
    ours = keys.text("backend")
    return check_backend(ours or keys.text("ipMasqBackend"), may_be_none=bool(ours))


def _vlan(keys: Keys) -> int:
    value = keys.integer("vlan", 0, MAX_VLAN, beyond=True) or 0
    if not 0 <= value <= MAX_VLAN:
        raise CniError(Code.INVALID_CONFIG, f"invalid VLAN ID {value} (must be between 0 and {MAX_VLAN})")
    return value


def _trunk(keys: Keys) -> tuple[tuple[int, int], ...]:
    """Every range of vlanTrunk; an `id` beside minID and maxID counts as one more (reference: collectVlanTrunk)."""
    ranges: list[tuple[int, int]] = []
    for entry in keys.objects("vlanTrunk"):
        low, high = _trunk_id(entry, "minID"), _trunk_id(entry, "maxID")
        if (low is None) != (high is None):
            missing = "minID" if low is None else "maxID"
            raise CniError(
                Code.INVALID_CONFIG, f"minID and maxID should be configured simultaneously, {missing} is missing"
            )
        if low is not None and high is not None:
            if low > high:
                raise CniError(Code.INVALID_CONFIG, f"minID is greater than maxID in trunk parameter: {low} > {high}")
            ranges.append((low, high))
        single = _trunk_id(entry, "id")
        if single is not None:
            ranges.append((single, single))
    return tuple(sorted(set(ranges)))


def _trunk_id(entry: Keys, key: str) -> int | None:
    value = entry.integer(key, 1, MAX_VLAN, beyond=True)
    if value is not None and not 1 <= value <= MAX_VLAN:
        what = "id" if key == "id" else key
        raise CniError(Code.INVALID_CONFIG, f"incorrect trunk {what} parameter: {value}, not in 1..{MAX_VLAN}")
    return value


def _mac(conf: NetConf, call: Call) -> bytes:
    """CNI_ARGS MAC, over it args.cni.mac, over that runtimeConfig.mac (reference: bridge.go, loadNetConf)."""
    args = parse_args(
        call.args, ("MAC", "IP", "GATEWAY")
    )  # the delegate's names are ours too, as it gets the same text
    text = conf.runtime.text("mac") or conf.args_cni.text("mac") or args.get("MAC", "")
    if not text:
        return b""
    try:
        return parse_mac(text)
    except ValueError as failure:
        raise CniError(Code.INVALID_CONFIG, str(failure)) from None
