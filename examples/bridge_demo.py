"""Two containers on a bridge: attached, pinged, masqueraded, published, shown, detached; all inside namespaces.

`make demo` runs it. Every command line it prints is one that works on a real host; here a "host" of its own (network,
mount and UTS namespaces with private /run, /var/lib and /etc/cni) stands in for the machine, which stays untouched.
"""

from __future__ import annotations

import os
import sys
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from netns_fixtures import EchoServer, Host, Namespace, Outside, can_ping, diff, snapshot, tcp_peer_seen

PYCNI = Path(sys.executable).with_name("pycni")
BIN = "/run/cni-bin"
NETWORK = "demo"
HOST_PORT, SERVICE_PORT = 8080, 7777
GATEWAYS = {4: "10.88.0.1", 6: "fd00:88::1"}
CONFLIST = """{
  "cniVersion": "1.1.0",
  "name": "demo",
  "plugins": [
    {
      "type": "pycni-bridge",
      "bridge": "demo0",
      "isDefaultGateway": true,
      "ipMasq": true,
      "ipam": {
        "type": "pycni-ipam",
        "ranges": [[{"subnet": "10.88.0.0/16"}], [{"subnet": "fd00:88::/64"}]]
      }
    },
    {"type": "pycni-portmap", "capabilities": {"portMappings": true}}
  ]
}
"""


def main() -> int:
    if os.geteuid() != 0:
        print("the demo makes network namespaces: run it as root", file=sys.stderr)
        return 1
    host = Host("demo")
    outside = Outside(host)
    try:
        return demonstrate(host, outside)
    finally:
        outside.delete()
        host.delete()


def demonstrate(host: Host, outside: Outside) -> int:
    one, two = host.container("one"), host.container("two")
    say("a host with an uplink, two empty containers, and a network called demo")
    shell(host, f"{PYCNI} install --bin-dir {BIN} --no-conf")
    host.file("/etc/cni/net.d").mkdir()
    host.file("/etc/cni/net.d/10-demo.conflist").write_text(CONFLIST)
    before = snapshot(host, one, two)

    say("attach both")
    pycni(host, "add", NETWORK, "one")
    pycni(host, "add", NETWORK, "two", f"--port {HOST_PORT}:{SERVICE_PORT}")
    say("who is attached")
    pycni(host, "list")
    pycni(host, "ipam", "usage")
    pycni(host, "ports")

    say("do they reach each other, and the outside?")
    passed = [
        reached("one pings two, IPv4", can_ping(one, address(two, 4))),
        reached("one pings two, IPv6", can_ping(one, address(two, 6))),
        masqueraded("one to the outside, IPv4", outside, one, 4),
        masqueraded("two to the outside, IPv6", outside, two, 6),
    ]
    say(f"does port {HOST_PORT} of the host lead to two?")
    with closing(EchoServer(two, SERVICE_PORT)):
        passed += [
            published("from outside, IPv4", outside, outside.host_address(4), outside.address(4)),
            published("from outside, IPv6", outside, outside.host_address(6), outside.address(6)),
            published("from the host, 127.0.0.1", host, "127.0.0.1", GATEWAYS[4]),
            published("from one, its neighbour", one, outside.host_address(4), GATEWAYS[4]),
        ]
    say("the state in the kernel: a constant number of rules, containers are elements")
    shell(host, "nft list set inet pycni masq4; nft list map inet pycni hp4")

    say("is everything as it was made?")
    pycni(host, "check", NETWORK, "one")

    say("detach both, forget the bridge")
    pycni(host, "del", NETWORK, "one")
    pycni(host, "del", NETWORK, "two")
    pycni(host, "gc", NETWORK)
    left = diff(before, snapshot(host, one, two), ignore=("*/sysctl/*", "*type=anycast", "*/file/var/lib/*"))
    passed.append(reached("nothing is left behind", not left, "; ".join(left)))
    print("\n" + ("all as it should be" if all(passed) else "something went wrong: see above"))
    return 0 if all(passed) else 1


def say(text: str) -> None:
    print(f"\n== {text}", flush=True)


def pycni(host: Host, *arguments: str) -> None:
    shell(host, f"{PYCNI} {' '.join(arguments)}" + (f" --plugin-dir {BIN}" if arguments[0] in WITH_PLUGINS else ""))


WITH_PLUGINS = ("add", "del", "check", "gc")


def shell(host: Host, command: str) -> None:
    print(f"$ {command.replace(str(PYCNI), 'pycni')}", flush=True)
    done = host.run(["sh", "-c", command], check=False)
    print((done.stdout + done.stderr).rstrip(), flush=True)
    if done.returncode:
        raise SystemExit(f"exit code {done.returncode}")


def address(container: Namespace, family: int) -> str:
    found = (text.split("/")[0] for text in container.addresses("eth0"))
    return next(text for text in found if (":" in text) == (family == 6) and not text.startswith("fe80"))


def reached(what: str, works: bool, why: str = "") -> bool:
    print(f"  {'yes' if works else 'NO '}  {what}{f': {why}' if why else ''}")
    return works


def masqueraded(what: str, outside: Outside, container: Namespace, family: int) -> bool:
    try:
        seen = outside.seen_from(container, family).address
    except OSError as failure:
        return reached(what, False, str(failure))
    return reached(what, seen == outside.host_address(family), f"seen as {seen}, the host's address")


def published(what: str, client: Namespace, at: str, wanted: str) -> bool:
    """Whether the port of the host answers, and whom the container saw."""
    try:
        seen = tcp_peer_seen(client, at, HOST_PORT).address
    except OSError as failure:
        return reached(what, False, str(failure))
    return reached(what, seen == wanted, f"seen as {seen}")


if __name__ == "__main__":
    sys.exit(main())
