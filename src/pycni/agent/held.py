"""What an attachment has of the host's ports: one socket for each, some of them served by the proxy."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pycni.cni.errors import CniError, Code
from pycni.host import listeners
from pycni.portmap import holding
from pycni.portmap.holding import Binding
from pycni.store import Record
from pycni.store.proxied import Proxied

if TYPE_CHECKING:
    from _socket import socket as Socket

    from pycni.portmap.proxy.client import ProxyClient

Key = tuple[int, str, str, int]  # family, protocol, address of the host or "", port


class Port:
    """One host port. *socket*: None where the proxy alone has it, or nobody can."""

    __slots__ = ("binding", "served", "socket")

    def __init__(self, binding: Binding, socket: Socket | None, *, served: bool = False) -> None:
        self.binding = binding
        self.socket = socket
        self.served = served  # by the proxy

    @property
    def owned(self) -> bool:
        return self.served or self.socket is not None


class Held:
    """What one attachment has."""

    def __init__(self) -> None:
        self.ports: dict[Key, Port] = {}
        self.active = False

    def continues(self, wanted: Mapping[Key, Binding]) -> bool:
        """Whether all it has is part of *wanted*."""
        return all(wanted.get(key) == port.binding for key, port in self.ports.items())

    def lacks(self, wanted: Mapping[Key, Binding]) -> bool:
        """Whether it is not exactly *wanted*, each port owned by a socket somewhere, and served where it should be."""
        return not (
            self.active
            and self.ports.keys() == wanted.keys()
            and self.continues(wanted)
            and all(port.served if port.binding.proxied else port.socket for port in self.ports.values())
        )


def key_of(binding: Binding) -> Key:
    return binding.family, binding.proto, binding.host_ip, binding.port


def single_ports(bindings: Iterable[Binding]) -> dict[Key, Binding]:
    """Each port that is held, as a binding of its own."""
    out = {}
    for run in bindings:
        for number in range(run.count if run.held else 0):
            one = run.replace(port=run.port + number, target=run.target + number, count=1)
            out[key_of(one)] = one
    return out


def bindings_of(record: Record, proxied: Iterable[Proxied] = ()) -> tuple[Binding, ...]:
    """What the record's attachment has published; *proxied*: what the store says of its ports that the proxy serves.

    The proxy may serve what the kernel maps as well, for the clients whom no rule reaches.
    """
    by_proxy = {key_of(binding): binding for binding in map(_of_proxied, proxied)}
    by_kernel = {key_of(binding): binding for binding in map(holding.of_mapping, record.attachment_rules.ports)}
    return tuple({**by_kernel, **by_proxy}.values())


def left_to_runtime(binding: Binding, cni_args: str) -> bool:
    """Whether the container's runtime listens on these ports itself: podman does, for IPv4 and for a given address."""
    own = not binding.proxied and (binding.family == 4 or bool(binding.host_ip))
    return own and holding.listens_itself(cni_args)


def mapped_by_kernel(record: Record) -> frozenset[Key]:
    """The first ports of the runs that rules of the record lead on."""
    return frozenset(key_of(holding.of_mapping(mapping)) for mapping in record.attachment_rules.ports)


def _of_proxied(one: Proxied) -> Binding:
    binding = Binding(one.family, one.proto, one.host_ip, one.low, one.address, one.port)
    return binding.replace(proxied=True, proxy_protocol=one.proxy_protocol, count=one.high - one.low + 1)


def of_served(mapping: dict[str, Any]) -> Binding:
    """A mapping as the proxy tells it (docs/proxy.md)."""
    address, target = mapping["to"]
    binding = Binding(mapping["family"], mapping["proto"], mapping["host_ip"], mapping["port"], address, target)
    return binding.replace(proxied=True, proxy_protocol=mapping["proxy_protocol"])


def as_proxied(binding: Binding) -> Proxied:
    """The form in which the store keeps a binding that the proxy serves."""
    high = binding.port + binding.count - 1
    where = binding.family, binding.proto, binding.host_ip, binding.port, high
    return Proxied(*where, binding.address, binding.target, binding.proxy_protocol)


def take(binding: Binding, owner: str) -> Socket:
    """The socket of a port; CniError, see refuse()."""
    try:
        return listeners.hold(*key_of(binding))
    except OSError as failure:
        refuse(binding, failure, owner)
        raise CniError(Code.KERNEL_LACKS, f"host port {binding.shown()}: {failure.strerror}") from None


def refuse(binding: Binding, failure: OSError, owner: str) -> None:
    """Raise what *failure* to take a port for *owner* means; nothing where there is no IPv6, and so nothing to take.

    CniError 100 for one that is taken, 7 for an address that is not here, 11 where the process has no descriptor left.
    """
    if failure.errno in (errno.EMFILE, errno.ENFILE):
        raise CniError(
            Code.TRY_AGAIN,
            f"host port {binding.shown()} cannot be held: {failure.strerror}",
            "raise the agent's limit of open files (LimitNOFILE= of its unit), or publish fewer ports",
        )
    holding.refuse(binding, binding.port, failure, owner)
    if failure.errno == errno.EADDRINUSE:
        raise CniError(
            Code.PORT_TAKEN,
            f"host port {binding.shown()} is taken by an agent or proxy of pycni",
            "its metrics port, or one that it gives back when it ends; `pycni reconcile` tries again",
        )


def close_all(ports: Mapping[Key, Port]) -> None:
    for port in ports.values():
        if port.socket is not None:
            port.socket.close()


def serve(proxy: ProxyClient, owner: str, ports: Iterable[Port]) -> None:
    for port in ports:
        binding = port.binding
        proxy.add(
            owner,
            family=binding.family,
            proto=binding.proto,
            host_ip=binding.host_ip,
            port=binding.port,
            to=(binding.address, binding.target),
            listener=port.socket.fileno() if port.socket is not None else -1,
            proxy_protocol=binding.proxy_protocol,
        )
        port.served = True
        if port.socket is not None:
            listeners.let_in(port.socket)
