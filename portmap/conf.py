"""The portmap plugin's configuration as a value: every key of the reference plugin, and ours beside it.

Everything is checked here, before anything is done: the reference leaves ports above 65535, protocols and host
addresses to iptables or nft, which find the fault when half of the rules are there.
"""

from __future__ import annotations

from pycni.cni.addresses import parse_address, parse_prefix
from pycni.cni.errors import CniError, Code, shown
from pycni.cni.names import check_ifname
from pycni.cni.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from pycni.cni.addresses import Address
    from pycni.cni.conf import Keys, NetConf

MAX_PORT = 65535
PROTOCOLS = ("tcp", "udp", "sctp")
PROXY_MODES = ("auto", "always", "never")
BACKENDS = ("nftables", "iptables")
MARK_MASQ_BIT = 13  # the reference's default


class Mapping(Value):
    """Host ports `low`..`high` to the container's `port` and those behind it, as the runtime asked."""

    proto: str  # "tcp", "udp", "sctp"
    low: int  # 0, as `high`: the plugin chooses one
    high: int
    port: int
    family: int = 0  # 4 or 6: only that family of host addresses; 0: both
    host_ip: str = ""  # one address of the host, of `family`; "": all
    sources: tuple[str, ...] = ()  # "192.0.2.0/24": clients that are let in; (): all
    proxy_protocol: bool = False


class PortmapConf(Value):
    """What the configuration asks of the portmap plugin. Keys are explained in docs/portmap.md."""

    mappings: tuple[Mapping, ...]
    backend: str  # of the firewall: "" chooses
    proxy: str  # one of PROXY_MODES
    snat: bool
    masq_all: bool
    mark_masq_bit: int
    external_set_mark_chain: str
    conditions4: tuple[str, ...]
    conditions6: tuple[str, ...]
    direct_access: bool
    trusted: tuple[str, ...]  # interfaces

    @property
    def asks_nothing(self) -> bool:
        """Whether there is nothing to do: no port, and no container to guard."""
        return not self.mappings and self.direct_access

    @classmethod
    def parse(cls, conf: NetConf) -> Self:
        """CniError 7 for a value out of range or keys that exclude each other."""
        keys = conf.keys
        default_ip = _host_ip(keys, "hostIP")
        return cls(
            mappings=_mappings(conf.runtime, default_ip),
            backend=_backend(keys),
            proxy=_choice(keys, "proxy", PROXY_MODES),
            snat=keys.boolean("snat", True),
            masq_all=keys.boolean("masqAll"),
            mark_masq_bit=_mark_masq_bit(keys),
            external_set_mark_chain=_chain(keys),
            conditions4=_conditions(keys, "conditionsV4"),
            conditions6=_conditions(keys, "conditionsV6"),
            direct_access=keys.boolean("directAccess", True),
            trusted=_interfaces(keys),
        )


def _mappings(runtime: Keys, default_ip: Address | None) -> tuple[Mapping, ...]:
    """The distinct mappings in the order given; runtimes that merge image and command line send some twice."""
    parsed = dict.fromkeys(_mapping(each, default_ip) for each in runtime.objects("portMappings"))
    return tuple(parsed)


def _mapping(keys: Keys, default_ip: Address | None) -> Mapping:
    port = _port(keys, "containerPort", "container")
    low = _port(keys, "hostPort", "host", chosen=keys.has("hostPort"))
    high = _range_end(keys, low, port)
    host_ip = _host_ip(keys, "hostIP") or default_ip
    proto = _protocol(keys)
    return Mapping(
        proto,
        low,
        high,
        port,
        host_ip.version if host_ip is not None else 0,
        "" if host_ip is None or host_ip.is_unspecified else str(host_ip),
        _sources(keys),
        _proxy_protocol(keys, proto),
    )


def _port(keys: Keys, key: str, whose: str, *, chosen: bool = False) -> int:
    """The port under *key*; 0 is one where the plugin may choose (*chosen*). Words as in the reference."""
    least = 0 if chosen else 1
    value = keys.integer(key, least, MAX_PORT, beyond=True) or 0
    if not least <= value <= MAX_PORT:
        hint = "" if key != "hostPort" else "; an explicit 0 lets the plugin choose one"
        raise CniError(
            Code.INVALID_CONFIG,
            f"Invalid {whose} port number: {value}",
            f"{keys.path(key)} is one of 1 to {MAX_PORT}{hint}",
        )
    return value


def _range_end(keys: Keys, low: int, port: int) -> int:
    """hostPortEnd, `low` where absent."""
    if not keys.has("hostPortEnd"):
        return low
    if not low:
        raise keys.wrong("hostPortEnd", "is given with hostPort 0: a range needs its first port")
    high = keys.integer("hostPortEnd", low, MAX_PORT) or low
    if port + high - low > MAX_PORT:
        raise keys.wrong(
            "hostPortEnd", f"is {high}: containerPort {port} and the {high - low} behind it go beyond {MAX_PORT}"
        )
    return high


def _protocol(keys: Keys) -> str:
    """Lower case; tcp where absent, as with every runtime's own option."""
    proto = (keys.text("protocol") or "tcp").lower()
    if proto not in PROTOCOLS:
        raise keys.wrong("protocol", f"is {shown(keys.text('protocol'))}, not one of {', '.join(PROTOCOLS)}")
    return proto


def _proxy_protocol(keys: Keys, proto: str) -> bool:
    wanted = keys.boolean("proxyProtocol")
    if wanted and proto != "tcp":
        raise keys.wrong("proxyProtocol", f"is true for {proto}: the PROXY protocol's header goes before a TCP stream")
    return wanted


def _host_ip(keys: Keys, key: str) -> Address | None:
    """An address of the host, also in brackets ("[::1]"), None where absent or empty."""
    text = keys.text(key)
    if not text:
        return None
    if text[0] == "[" and text[-1] == "]" and ":" in text:
        text = text[1:-1]
    try:
        address = parse_address(text)
    except ValueError as failure:
        raise keys.wrong(key, f"is wrong: {failure}") from None
    if address.is_multicast:
        raise keys.wrong(key, f"is {address}, the address of a group: name one of the host's own")
    if address.version == 6 and address.is_link_local:
        # bind(2) wants the link with it, and link-local clients are not translated.
        raise keys.wrong(key, f"is {address}, which holds for one link alone: name another address of the host")
    return address


def _sources(keys: Keys) -> tuple[str, ...]:
    """The prefixes under `sources`, host bits cleared; an address without length is itself alone. [] is nobody: an
    error, since whoever renders a list that came out empty did not mean everybody."""
    out = []
    for text in keys.texts("sources"):
        try:
            prefix = parse_prefix(text if "/" in text else f"{text}/{128 if ':' in text else 32}")
        except ValueError as failure:
            raise keys.wrong("sources", f"is wrong: {failure}") from None
        out.append(str(prefix))
    if not out and keys.has("sources"):
        raise keys.wrong("sources", "is empty: name the prefixes that may come in, or leave it out")
    return tuple(dict.fromkeys(out))


def _choice(keys: Keys, key: str, known: tuple[str, ...]) -> str:
    value = keys.text(key) or known[0]
    if value not in known:
        raise keys.wrong(key, f"is {shown(value)}, not one of {', '.join(known)}")
    return value


def _mark_masq_bit(keys: Keys) -> int:
    bit = keys.integer("markMasqBit", 0, 31, beyond=True)
    if bit is not None and keys.has("externalSetMarkChain"):
        raise CniError(Code.INVALID_CONFIG, "Cannot specify externalSetMarkChain and markMasqBit", "give one of them")
    if bit is not None and not 0 <= bit <= 31:
        raise CniError(Code.INVALID_CONFIG, "MasqMarkBit must be between 0 and 31", f"markMasqBit is {bit}")
    return MARK_MASQ_BIT if bit is None else bit


def _chain(keys: Keys) -> str:
    name = keys.text("externalSetMarkChain")
    # iptables: at most 28 characters (XT_EXTENSION_MAXNAMELEN less one), and a name that is no option
    if len(name.encode()) > 28 or name.startswith(("-", "!")) or any(c.isspace() or c in "\"'\\" for c in name):
        raise keys.wrong("externalSetMarkChain", f"is {shown(name)}, which iptables does not take for a chain")
    return name


def _conditions(keys: Keys, key: str) -> tuple[str, ...]:
    words = keys.texts(key)
    for word in words:
        if any(c in "\n\r;" for c in word):  # more than one condition: it would end the rule and begin another
            raise keys.wrong(key, f"has {shown(word)}, which is no word of a condition")
    text = " ".join(words)
    if ("{" in text or "}" in text) and not _has_whole_sets(text):
        raise keys.wrong(key, f"is {shown(text)}: braces stand around a set, with no set, # or open quote in it")
    return tuple(word for word in words if word)


def _has_whole_sets(text: str) -> bool:
    """Whether the braces in nft's words are those of sets: "{ 192.0.2.0/24, 198.51.100.7 }". One that stays open, or
    whose end nft takes for part of a string or a comment, would take in the commands behind the rule."""
    inside = quoted = False
    for char in text:
        if char == '"':
            quoted = not quoted
        elif char in "{}":
            if quoted or inside == (char == "{"):
                return False
            inside = char == "{"
        elif inside and char == "#":
            return False
    return not inside and not quoted


def _style(words: tuple[str, ...]) -> str:
    """Whose language *words* are (reference: detectBackendOfConditions), "" without any."""
    if not words:
        return ""
    return "iptables" if words[0][0] in "-!" else "nftables"


def _backend(keys: Keys) -> str:
    """The backend asked for, or the one whose language the other keys speak; "" where both would do."""
    asked = keys.text("backend")
    if asked and asked not in BACKENDS:
        raise CniError(Code.INVALID_CONFIG, f'unrecognized backend "{asked}"', f"known: {', '.join(BACKENDS)}")
    speaks = {key: _style(_conditions(keys, key)) for key in ("conditionsV4", "conditionsV6")}
    if keys.text("externalSetMarkChain"):
        speaks["externalSetMarkChain"] = "iptables"
    backend = asked or next(filter(None, speaks.values()), "")
    wrong = sorted(key for key, style in speaks.items() if style and style != backend)
    if wrong:
        other = speaks[wrong[0]]
        raise CniError(
            Code.INVALID_CONFIG,
            f"{backend} backend was requested but configuration contains {other}-specific options [{' '.join(wrong)}]",
            'set "backend" to the one whose options these are, or write them in the language of the other',
        )
    return backend


def _interfaces(keys: Keys) -> tuple[str, ...]:
    names = keys.texts("trustedInterfaces")
    for name in names:
        check_ifname(name, where=keys.path("trustedInterfaces"), code=Code.INVALID_CONFIG)
    return tuple(dict.fromkeys(names))
