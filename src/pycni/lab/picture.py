"""What a picture of a lab shows, as values: hosts, what they hold, and how all of it is wired."""

from __future__ import annotations

from pycni.cni.value import Value


class Wire(Value):
    """A cable from a host, router or etcd member to a segment of the underlay.

    *notes* are what is odd about it, in words ("loss 20 %", "mtu 1400"); *cut*: nothing passes.
    """

    segment: str
    ifname: str
    addresses: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    cut: bool = False


class Plug(Value):
    """An interface of a container in a network; *ports*: what leads there from outside, as "8080→80/tcp"."""

    network: str
    ifname: str
    addresses: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()


class PictureContainer(Value):
    """*trouble* is empty, or says in a word what is wrong: "dead", "detached"."""

    name: str
    plugs: tuple[Plug, ...] = ()
    trouble: str = ""
    tip: str = ""


class PictureHost(Value):
    """*words* stand under the name: the agent's state and the like; *trouble* as that of a container."""

    name: str
    wires: tuple[Wire, ...] = ()
    containers: tuple[PictureContainer, ...] = ()
    words: str = ""
    trouble: str = ""


class Station(Value):
    """What is on the underlay and has no containers: *kind* is "router" or "etcd"."""

    name: str
    kind: str
    wires: tuple[Wire, ...] = ()
    trouble: str = ""


class Segment(Value):
    """One L2 segment of the underlay; *words* are its prefixes and MTU, a line each."""

    name: str
    words: tuple[str, ...] = ()


class PictureNetwork(Value):
    """A CNI network.

    *spans*: it is one network over all hosts, otherwise each host has its own of that name. *isolated*: nobody on
    another network can talk to its containers.
    """

    name: str
    words: tuple[str, ...] = ()
    spans: bool = False
    isolated: bool = False


class Picture(Value):
    """A lab. Every `Wire.segment` is the name of one of *segments*, every `Plug.network` of one of *networks*.

    *notes* are what is wrong with more than one machine, in words.
    """

    name: str
    segments: tuple[Segment, ...] = ()
    stations: tuple[Station, ...] = ()
    hosts: tuple[PictureHost, ...] = ()
    networks: tuple[PictureNetwork, ...] = ()
    notes: tuple[str, ...] = ()
