"""Who has which port of the host: checked at every ADD, and held for as long as an agent runs.

An ADD reserves before it makes rules, and activates when they are live and stale connections are forgotten; a DEL
releases after its rules are gone. The kernel decides what excludes what: a port on every address excludes the same port
on each single one, the families and protocols are apart.

Without an agent nobody is there who could hold a socket: a port is taken, found free, and given back. Conflicts between
attachments are settled by the records in the store, in either case.

podman listens on the ports of its containers itself, from a moment after the ADD on (its conmon holds the sockets), and
still does when it calls DEL and ADD for `network reload`. So nobody holds these ports for it, and a process that has
the container's id among its arguments is none that takes them.
"""

from __future__ import annotations

import _socket
import errno
import os
from itertools import pairwise

from pycni.cni.errors import CniError, Code, shown
from pycni.cni.names import Attachment
from pycni.cni.value import Value
from pycni.host import listeners

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pycni.firewall.rules import PortMapping
    from pycni.host.sock_diag import Listener
    from pycni.portmap.proxy.client import ProxyClient

HELD_PORTS = 64  # a longer run of ports that the kernel maps is not held, and checked with one question
PROXY_SOCKET = "/run/pycni/proxy.sock"
ID_DIGITS = 12  # of a container's id at least, where runtimes shorten it
PROXY_PROGRAM = "/portmap/proxy/__main__.py"


class Binding(Value):
    """Host ports `port` … `port + count - 1` of one family, and where they lead: `target` + n at `address`.

    The proxied ones are served by the userland proxy, the others by the kernel; both are owned by sockets.
    """

    family: int  # 4 or 6, of the host's side
    proto: str  # "tcp", "udp", "sctp"
    host_ip: str  # one address of the host, "" for all of the family
    port: int
    address: str  # of the container, of either family where it is proxied
    target: int
    proxied: bool = False
    proxy_protocol: bool = False  # the proxy begins each connection with a header of version 2
    count: int = 1

    @property
    def held(self) -> bool:
        """Whether sockets own these ports: not those of a protocol without sockets, nor of a long run."""
        return self.proto in listeners.PROTOCOLS and (self.proxied or self.count <= HELD_PORTS)

    def shown(self) -> str:
        """The host's side for people: "80/tcp", "127.0.0.1:80-89/udp"."""
        host = f"[{self.host_ip}]:" if ":" in self.host_ip else f"{self.host_ip}:" if self.host_ip else ""
        last = f"-{self.port + self.count - 1}" if self.count > 1 else ""
        return f"{host}{self.port}{last}/{self.proto}"


def listens_itself(cni_args: str) -> bool:
    """Whether the runtime that sent these CNI_ARGS listens on the ports of its containers: podman, which names a pod
    and no namespace of Kubernetes, while Kubernetes' runtimes name both."""
    names = [pair.partition("=")[0] for pair in cni_args.split(";")]
    return "K8S_POD_NAME" in names and "K8S_POD_NAMESPACE" not in names


def of_mapping(mapping: PortMapping) -> Binding:
    """What is to be held for host ports that the kernel maps."""
    family = 6 if ":" in mapping.address else 4
    count = mapping.high - mapping.low + 1
    return Binding(family, mapping.proto, mapping.host_ip, mapping.low, mapping.address, mapping.port, count=count)


class Holder:
    """Keeps ports for attachments; *owner* is `Attachment.owner`. Every method may be repeated."""

    serves_proxy = False

    def reserve(self, owner: str, bindings: Sequence[Binding]) -> None:
        """Take all of *bindings* or none; CniError: 100 for one that is taken, 7 for an address that is not here.

        What comes to them is dropped until activate().
        """
        raise NotImplementedError

    def activate(self, owner: str) -> None:
        """The rules are live: let the proxy serve what is its own. The other ports go on dropping what gets past the
        rules."""
        raise NotImplementedError

    def release(self, owner: str) -> None:
        """Give back what *owner* has; nothing where it has none."""
        raise NotImplementedError


class Standalone(Holder):
    """What a process can do that ends with its call: look."""

    def reserve(self, owner: str, bindings: Sequence[Binding]) -> None:
        for binding in bindings:
            if binding.held:
                try_all(binding, owner)
            else:
                check_run(binding, owner)

    def activate(self, owner: str) -> None:
        pass

    def release(self, owner: str) -> None:
        # The proxy serves on when its agent has ended, so that connections live through a restart of the agent.
        if not proxy_listens():
            return
        from pycni.portmap.proxy.client import ProxyClient, ProxyError

        try:
            with ProxyClient(PROXY_SOCKET) as proxy:
                remove_from(proxy, owner)
        except (FileNotFoundError, ConnectionRefusedError):
            pass  # it has just ended
        except ProxyError as failure:
            raise CniError(
                Code.TRY_AGAIN, f"the userland proxy does not give back the ports of {owner}: {failure}"
            ) from None


def remove_from(proxy: ProxyClient, owner: str) -> None:
    """End what the proxy serves for *owner*; its sockets are closed when this returns.

    It closes them at the end of the turn in which it answers. The answer to anything else comes in a later one.
    """
    proxy.remove(owner)
    proxy.set()


def proxy_listens() -> bool:
    """Whether a proxy runs: asked by every DEL, and so without the client and what that loads."""
    probe = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    try:
        probe.connect(PROXY_SOCKET)
    except OSError:
        return False
    finally:
        probe.close()
    return True


def try_all(binding: Binding, owner: str) -> None:
    """Take every port and give it back; CniError, see refuse()."""
    for port in range(binding.port, binding.port + binding.count):
        try:
            listeners.hold(binding.family, binding.proto, binding.host_ip, port).close()
        except OSError as failure:
            refuse(binding, port, failure, owner)


def check_run(binding: Binding, owner: str) -> None:
    """CniError 100 if a foreign process listens on one of the ports (of SCTP we do not ask), 7 for an address that is
    not here."""
    if binding.host_ip:
        try:
            listeners.hold(binding.family, "udp", binding.host_ip, 0).close()
        except OSError as failure:
            if failure.errno == errno.EADDRNOTAVAIL:
                refuse(binding, binding.port, failure, owner)
    if binding.proto not in listeners.PROTOCOLS:
        return
    from pycni.host import sock_diag

    high = binding.port + binding.count - 1
    found = sock_diag.conflicting(binding.family, binding.proto, binding.host_ip, binding.port, high)
    _refuse_foreign(binding, found, owner)


def refuse(binding: Binding, port: int, failure: OSError, owner: str) -> None:
    """Raise what *failure* to take *port* for *owner* means, naming who has it; nothing where it does no harm.

    Our own agent and proxy do none: what they have besides the attachments of the store is left from one whose DEL
    they have not heard of, and they give it back when they compare.
    """
    if failure.errno == errno.EAFNOSUPPORT:
        return  # a host without IPv6, where nobody else can have the port either
    one = binding.replace(port=port, count=1)
    if failure.errno == errno.EADDRNOTAVAIL:
        sysctl = f"net.ipv{binding.family}.ip_nonlocal_bind"
        raise CniError(
            Code.INVALID_CONFIG,
            f"host port {one.shown()} cannot be published: this host has no address {binding.host_ip}",
            f"give the host that address, or set {sysctl}=1 for one that comes and goes",
        )
    if failure.errno != errno.EADDRINUSE:
        raise OSError(failure.errno, f"host port {one.shown()} cannot be published: {failure.strerror}")
    from pycni.host import sock_diag

    found = sock_diag.conflicting(binding.family, binding.proto, binding.host_ip, port, port, connected=True)
    _refuse_foreign(one, found, owner)
    if not found:
        # A TCP socket that is bound and does not listen is in no list of the kernel before 6.8.
        raise _taken(one, "a process that has bound it without listening", "`ss -tulpen` may show which")


def _refuse_foreign(binding: Binding, found: Iterable[Listener], owner: str) -> None:
    from pycni.host import sock_diag

    attachment = Attachment.parse(owner)
    by_own_runtime = False
    for one in sorted(found, key=lambda one: (one.ended, not one.inode)):
        port = binding.replace(port=one.port, count=1)
        process = sock_diag.process_of(one)
        if process is None:
            if by_own_runtime:
                continue  # a connection to that socket, which nobody has accepted
            who = "a process that cannot be seen from here" if one.inode else "the kernel"
            if one.ended:
                who = "a connection that has just ended, for a minute"
            raise _taken(port, who, f"the socket is {one}, inode {one.inode}")
        if attachment is not None and is_runtimes(process.arguments, attachment.container_id):
            by_own_runtime = True
        elif not is_ours(process.arguments):
            raise _taken(port, str(process), f"the socket is {one}, the command {shown(' '.join(process.arguments))}")


def is_runtimes(arguments: Sequence[str], container_id: str) -> bool:
    """Whether that command line is one of the container's own runtime: it names the container by an id as runtimes
    make them. A shorter one, or a name, may be a word of anybody's: `python3 -m http.server` is no runtime of a
    container called http.server."""
    made = len(container_id) >= ID_DIGITS and not container_id.strip("0123456789abcdef")
    return made and container_id in arguments


def is_ours(arguments: Sequence[str]) -> bool:
    """Whether that command line is an agent's ("python -m pycni agent", "/usr/bin/pycni agent") or our proxy's."""
    words = [os.path.basename(word) for word in arguments]
    return ("pycni", "agent") in pairwise(words) or any(word.endswith(PROXY_PROGRAM) for word in arguments)


def _taken(binding: Binding, by: str, details: str) -> CniError:
    return CniError(
        Code.PORT_TAKEN, f"host port {binding.shown()} is taken by {by}: choose another one, or stop that", details
    )


_holder: Holder = Standalone()


def install(holder: Holder) -> None:
    """From now on holder() is that one: for the agent."""
    global _holder  # noqa: PLW0603 - a property of the process: the agent is resident, an executable is not
    _holder = holder


def holder() -> Holder:
    """Who keeps ports for calls of this process."""
    return _holder
