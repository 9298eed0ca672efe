"""The overlay plugin's configuration as a value (docs/overlay.md explains every key). Pure."""

from __future__ import annotations

from pycni.cni.addresses import parse_mac
from pycni.cni.env import parse_args
from pycni.cni.errors import CniError, Code, shown
from pycni.cni.keys import Keys
from pycni.cni.names import check_ifname
from pycni.cni.value import Value
from pycni.etcd.conf import EtcdConf, renewed
from pycni.firewall.choose import check_backend

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

    from pycni.cni.addresses import Address, Network
    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call

L2, ROUTED, MULTICAST = MODES = "l2", "routed", "multicast"
OFFLOADS = "auto", "on", "off"
OUR_IPAM = "pycni-ipam", "host-local"
MAX_VNI = (1 << 24) - 1  # 24 bits (RFC 7348), 0 is "any"
MAX_MTU = 65535  # linux/if_ether.h ETH_MAX_MTU
LEAST_MTU = 1280  # of IPv6 (RFC 8200, section 5)
MAX_NAME = 200  # a file is named after the network, and a file name has 255 bytes
DEFAULT_PORT = 4789  # IANA's for VXLAN
DEFAULT_GATEWAY_BRIDGE = "pycni-gw"
DERIVED = "derived"  # to ipam: record the MAC that follows from the addresses


class GatewayBridge(Value):
    """The second interface: on which bridge of the host, what it is called, and where its addresses come from."""

    bridge: str
    ifname: str
    ranges: tuple[dict[str, Any], ...]  # as in the ipam object, one for each range set

    @property
    def network(self) -> str:
        """The name of the pool of addresses: that of the bridge, which networks may share."""
        return self.bridge

    @property
    def subnets(self) -> tuple[Network, ...]:
        """Those of `ranges`; CniError 7 for one that is none."""
        found = [Keys(each).prefix("subnet") for each in self.ranges]
        return tuple(each for each in found if each is not None)


class OverlayConf(Value):
    """What the network's configuration asks for."""

    mode: str
    vni: int  # 0: allocated in etcd
    port: int
    mtu: int  # bytes; 0: the uplink's, less the overhead
    interface: str  # the link of the underlay; "": see local
    local: Address | None  # the tunnel's own end; None: of `interface`, else what this host speaks to etcd from
    group: Address | None
    bridge: str  # "": named after the VNI
    is_default_gateway: bool
    masquerade: bool
    backend: str
    isolate: bool
    gateway: GatewayBridge | None
    offload: str
    mac: bytes  # of the container's end; b"": derived
    etcd: EtcdConf | None  # None: multicast
    ipam: str
    require_agent: bool
    encrypted: bool

    @property
    def has_gateway(self) -> bool:
        """Whether the network's own bridge carries gateway addresses: the way out, or to the blocks of other hosts."""
        return bool(self.ipam) and (self.gateway is None or self.mode == ROUTED)

    @classmethod
    def parse(cls, conf: NetConf, call: Call) -> Self:
        """CniError 7 for a value out of range or two keys that exclude each other. *conf*: with_etcd() of what came."""
        keys = conf.keys
        if len(conf.name.encode()) > MAX_NAME:
            raise CniError(
                Code.INVALID_CONFIG, f"name has {len(conf.name)} letters: an overlay's has at most {MAX_NAME}"
            )
        mode = _one_of(keys, "mode", MODES)
        gateway = _gateway_bridge(keys, call)
        parsed = cls(
            mode=mode,
            vni=keys.integer("vni", 0, MAX_VNI) or 0,
            port=keys.integer("port", 1, 65535) or DEFAULT_PORT,
            mtu=keys.integer("mtu", 0, MAX_MTU) or 0,
            interface=_link(keys, "interface"),
            local=keys.address("local"),
            group=keys.address("group"),
            bridge=_link(keys, "bridge"),
            is_default_gateway=keys.boolean("isDefaultGateway", gateway is None),
            masquerade=keys.boolean("ipMasq") and bool(conf.ipam.text("type")),
            backend=check_backend(keys.text("backend")),
            isolate=keys.boolean("isolate", True),
            gateway=gateway,
            offload=_one_of(keys, "checksumOffload", OFFLOADS),
            mac=_mac(conf, call),
            etcd=None if mode == MULTICAST else EtcdConf.parse(keys.object("etcd")),
            ipam=conf.ipam.text("type"),
            require_agent=keys.boolean("requireAgent"),
            encrypted=keys.boolean("encrypted"),
        )
        parsed._refuse_contradictions(keys)
        if parsed.etcd is not None and conf.ipam.has("etcd"):
            prefix = EtcdConf.parse(conf.ipam.object("etcd")).prefix
            if prefix != parsed.etcd.prefix:
                raise conf.ipam.object("etcd").wrong(
                    "prefix", f"is {prefix}, that of the network {parsed.etcd.prefix}: its addresses belong beside it"
                )
        return parsed

    def _refuse_contradictions(self, keys: Keys) -> None:
        if self.mtu and self.mtu < LEAST_MTU:
            raise keys.wrong("mtu", f"is {self.mtu}: IPv6 needs {LEAST_MTU} bytes, so use at least these")
        if self.mode == MULTICAST:
            if not self.vni:
                raise keys.wrong("vni", "is missing: without etcd nobody else can choose it")
            if self.group is None or not self.group.is_multicast:
                raise keys.wrong("group", f'is {shown(keys.text("group"))}: give a multicast address as "239.1.1.1"')
        elif self.group is not None:
            raise keys.wrong(
                "group", f'is for "mode": "{MULTICAST}" only: in mode {self.mode} hosts are known from etcd'
            )
        if self.local is not None and (self.local.is_multicast or self.local.is_loopback or self.local.is_unspecified):
            raise keys.wrong("local", f"is {self.local}, which no other host can send to")
        if self.group is not None and self.local is not None and self.group.version != self.local.version:
            raise keys.wrong("group", f"is {self.group}, not of the family of local, {self.local}")
        if self.gateway is not None and self.is_default_gateway:
            raise CniError(
                Code.INVALID_CONFIG,
                "isDefaultGateway and gatewayBridge are two ways out: only one can be the default route",
                "drop isDefaultGateway",
            )
        if self.gateway is not None and self.gateway.bridge == self.bridge:
            raise keys.wrong("gatewayBridge.bridge", f"is {self.bridge}, the bridge of the network itself")
        if self.mode != ROUTED and keys.has("blocks"):
            raise keys.wrong("blocks", f"are for mode {ROUTED} only: in mode {self.mode} hosts share one subnet")
        if self.gateway is not None and self.backend == "none":
            raise keys.wrong("backend", 'is "none": what leaves by the gatewayBridge has to be masqueraded')


def with_etcd(conf: NetConf, args: str = "") -> NetConf:
    """*conf* with one `etcd` object for both: the network's own and that of an IPAM plugin of ours.

    What is missing is taken from the other; ours gets to know beside it what the mode wants: blocks in `routed`, in
    `l2` the MAC to record. The text has all of it too, so that a record made of it releases what it took. *args*: the
    text of CNI_ARGS.
    """
    from pycni.cni import json_text

    own, inner = conf.keys.raw("etcd"), conf.ipam.raw("etcd")
    given = own if isinstance(own, dict) else inner if isinstance(inner, dict) else None
    if given is None or not isinstance(conf.keys.raw("mode") or L2, str):
        return conf
    told = {key: value for key, value in conf.keys.as_dict().items() if key.lower() not in ("etcd", "ipam")}
    told["etcd"] = given
    ipam = conf.ipam.as_dict()
    if conf.ipam.text("type") in OUR_IPAM:
        ipam = {key: value for key, value in ipam.items() if key.lower() != "etcd"}
        ipam["etcd"] = {**given, **(inner if isinstance(inner, dict) else {}), **_of_mode(conf, given, inner, args)}
    if ipam:
        told["ipam"] = ipam
    keys = Keys(told)
    return conf.replace(keys=keys, ipam=keys.object("ipam"), raw=json_text.dumps(told).encode())


def reached_as(conf: NetConf, now: NetConf) -> NetConf:
    """*conf*, that of an ADD long ago, with the connection to etcd of *now*, where both are of one cluster: its members
    and passwords may be others by now. Both of `with_etcd`."""
    from pycni.cni import json_text

    told, ipam = conf.keys.as_dict(), conf.ipam.as_dict()
    for old, new in ((told, now.keys.raw("etcd")), (ipam, now.ipam.raw("etcd"))):
        if isinstance(old.get("etcd"), dict) and isinstance(new, dict):
            old["etcd"] = renewed(old["etcd"], new)
    if ipam:
        told["ipam"] = ipam
    keys = Keys(told)
    return conf.replace(keys=keys, ipam=keys.object("ipam"), raw=json_text.dumps(told).encode())


def connection_of(conf: NetConf) -> dict[str, str]:
    """The `etcd` object of *conf* as JSON text, by its prefix; empty where there is none, or none that can be used."""
    from pycni.cni import json_text

    etcd = conf.keys.raw("etcd")
    if not isinstance(etcd, dict):
        return {}
    try:
        return {EtcdConf.parse(conf.keys.object("etcd")).prefix: json_text.dumps(etcd)}
    except CniError:
        return {}


def _of_mode(conf: NetConf, given: dict[str, Any], inner: Any, args: str) -> dict[str, Any]:
    mode = conf.keys.text("mode") or L2
    if mode == ROUTED:
        blocks = conf.keys.raw("blocks") or {}
        return {"blocks": (inner or {}).get("blocks") or given.get("blocks") or blocks}
    return {"mac": asked_mac(conf, args) or DERIVED} if mode == L2 else {}


def asked_mac(conf: NetConf, args: str = "") -> str:
    """The MAC that the caller asks for: runtimeConfig.mac, else args.cni.mac, else CNI_ARGS MAC; "" for none."""
    pairs = parse_args(args, ("MAC", "IP", "GATEWAY"))  # the delegate's names are ours too: it gets the same text
    return conf.runtime.text("mac") or conf.args_cni.text("mac") or pairs.get("MAC", "")


def _mac(conf: NetConf, call: Call) -> bytes:
    text = asked_mac(conf, call.args)
    try:
        return parse_mac(text) if text else b""
    except ValueError as failure:
        raise CniError(Code.INVALID_CONFIG, str(failure)) from None


def _one_of(keys: Keys, key: str, known: tuple[str, ...]) -> str:
    value = keys.text(key) or known[0]
    if value not in known:
        raise keys.wrong(key, f"is {shown(value)}, not one of {', '.join(known)}")
    return value


def _link(keys: Keys, key: str) -> str:
    name = keys.text(key)
    if name:
        check_ifname(name, where=keys.path(key), code=Code.INVALID_CONFIG)
        if name in ("all", "default") or any(char in '"\\*+' for char in name):
            raise keys.wrong(
                key, f'is {shown(name)}: sysctls and packet filters take all, default and " \\ * + for more'
            )
    return name


def _gateway_bridge(keys: Keys, call: Call) -> GatewayBridge | None:
    if not keys.has("gatewayBridge"):
        return None
    inner = keys.object("gatewayBridge")
    ranges = [each.as_dict() for each in inner.objects("ranges")]
    if inner.has("subnet"):
        ranges.insert(0, {"subnet": inner.text("subnet")})
    if not ranges:
        raise inner.wrong("subnet", 'is missing: give a network that is used nowhere else, as "172.30.0.0/20"')
    ifname = _link(inner, "ifname") or gateway_ifname(call.ifname)
    if ifname == call.ifname:
        raise inner.wrong("ifname", f"is {ifname}, the name of the interface on the overlay")
    return GatewayBridge(_link(inner, "bridge") or DEFAULT_GATEWAY_BRIDGE, ifname, tuple(ranges))


def gateway_of(conf: NetConf, call: Call) -> GatewayBridge | None:
    """The second interface that *conf* gives, None for a configuration that gives none or is broken: for DEL."""
    try:
        return _gateway_bridge(conf.keys, call)
    except CniError:
        return None


def gateway_ifname(ifname: str) -> str:
    """The name of the second interface beside *ifname*, cut to the 15 bytes that the kernel takes."""
    return f"gw-{ifname}".encode()[:15].decode(errors="ignore")
