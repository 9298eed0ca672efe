"""The tuning plugin's configuration as a value."""

from __future__ import annotations

from pycni.cni import json_text
from pycni.cni.addresses import parse_mac
from pycni.cni.env import parse_args
from pycni.cni.errors import CniError, Code, shown
from pycni.cni.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call
    from pycni.cni.keys import Keys

DATA_DIR = "/run/cni/tuning"  # the reference's
MAX_MTU = 65535  # linux/if_ether.h ETH_MAX_MTU
MAX_TX_QUEUE = 2**31 - 1  # packets; the kernel refuses what does not fit an int (dev_change_tx_queue_len, dev.c)


class Sysctl(Value):
    """One key and value."""

    written: str  # the key as the configuration has it: what the allowlist is about
    key: str  # below /proc/sys, with slashes and the interface's name
    value: str


class TuningConf(Value):
    """What the configuration asks of the tuning plugin. Keys are explained in docs/chained.md."""

    sysctls: tuple[Sysctl, ...]
    mac: bytes  # b"", as the next four: leave it
    mtu: int  # bytes; 0
    promiscuous: bool  # False
    all_multicast: bool | None  # None
    tx_queue: int | None  # packets; None
    data_dir: str

    @property
    def changes(self) -> bool:
        """Whether there is anything to do."""
        settings = (self.sysctls, self.mac, self.mtu, self.promiscuous)
        return any(settings) or self.all_multicast is not None or self.tx_queue is not None

    @classmethod
    def parse(cls, conf: NetConf, call: Call) -> Self:
        """CniError 7 for a wrong value, a doubled key, or one that is not of the network."""
        own, args = conf.keys, conf.args_cni
        if own.has("sysctl"):
            _refuse_doubled(conf.raw)
        sysctls = {s.key: s for s in (*_sysctls(own, call.ifname), *_sysctls(args, call.ifname))}
        given = {key: args if args.has(key) else own for key in ("mtu", "promisc", "allmulti", "txQLen")}
        return cls(
            sysctls=tuple(sysctls.values()),
            mac=_mac(conf, call),
            mtu=given["mtu"].integer("mtu", 0, MAX_MTU) or 0,
            promiscuous=given["promisc"].boolean("promisc"),
            all_multicast=given["allmulti"].boolean("allmulti") if given["allmulti"].has("allmulti") else None,
            tx_queue=given["txQLen"].integer("txQLen", 0, MAX_TX_QUEUE),
            data_dir=data_dir(own),
        )


def data_dir(keys: Keys) -> str:
    """Where the old values are kept: all that DEL needs of the configuration."""
    path = keys.text("dataDir") or DATA_DIR
    if not path.startswith("/") or ".." in path.split("/"):
        raise keys.wrong("dataDir", f"is {shown(path)}: give an absolute path without ..")
    return path


def _sysctls(keys: Keys, ifname: str) -> list[Sysctl]:
    """The sysctls under *keys* in their order."""
    where = keys.object("sysctl")
    found: list[Sysctl] = []
    for written, value in where.as_dict().items():
        if not isinstance(value, str) or not value.strip() or "\0" in value:
            raise where.wrong(written, f"is {shown(value)}: a sysctl's value is a string that is not empty")
        found.append(Sysctl(written, sysctl_key(written, ifname), value))
    if len({one.key for one in found}) < len(found):
        raise _doubled(where.where)
    return found


def sysctl_key(written: str, ifname: str) -> str:
    """The path below /proc/sys of a key that is *written* with dots or slashes; CniError 7 unless it is below net/.

    Of both separators the first that occurs separates, the other one stands for a dot (sysctl(8)): so
    net/ipv4/conf/eth0.100/rp_filter and net.ipv4.conf.eth0/100.rp_filter are the same.
    """
    dotted = "/" not in written.partition(".")[0]
    path = written.translate({ord("."): "/", ord("/"): "."}) if dotted else written
    # Last of all, since the name may have a dot. An interface cannot be named "..", and its name has no slash.
    parts = [part for part in path.replace("IFNAME", ifname, 1).split("/") if part]
    if len(parts) < 2 or parts[0] != "net" or "." in parts or ".." in parts or "\0" in path:
        raise CniError(
            Code.INVALID_CONFIG,
            f"invalid net sysctl key: {shown(written)}",
            "tuning sets keys below net only, as net.core.somaxconn or net/ipv4/conf/IFNAME/arp_filter",
        )
    return "/".join(parts)


class _Pairs(dict[str, "Any"]):
    """An object of JSON that remembers whether a key came twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.doubled = len(self) < len(pairs)


def _refuse_doubled(raw: bytes) -> None:
    # Whoever wrote two values meant one of them, and JSON does not say which.
    top = json_text.loads(raw.decode(), object_pairs_hook=_Pairs)
    for name, value in top.items():
        if name.lower() == "sysctl" and isinstance(value, _Pairs) and value.doubled:
            raise _doubled(name)


def _doubled(where: str) -> CniError:
    return CniError(
        Code.INVALID_CONFIG, "duplicated sysctl keys are not allowed", f"{where} has a key twice: remove one of them"
    )


def _mac(conf: NetConf, call: Call) -> bytes:
    """Weakest first: the configuration, CNI_ARGS MAC, runtimeConfig.mac, args.cni.mac (reference: parseConf)."""
    args = parse_args(call.args, ("MAC", "IP", "GATEWAY"))  # runtimes give all plugins of a list the same text
    asked = (conf.args_cni.text("mac"), conf.runtime.text("mac"), args.get("MAC", ""), conf.keys.text("mac"))
    text = next(filter(None, asked), "")
    try:
        return parse_mac(text) if text else b""
    except ValueError as failure:
        raise CniError(Code.INVALID_CONFIG, str(failure)) from None
