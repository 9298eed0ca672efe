"""`pycni networks create|remove`: a network's record in etcd, made by an operator ahead of its hosts, or taken away.

The first ADD makes it as well, where etcd's roles let hosts do that.
"""

from __future__ import annotations

import json
import os
import time
from argparse import Namespace

from pycni.cli.clusters import clusters_with, is_overlay
from pycni.cli.failure import NOT_FOUND, OK, Failure
from pycni.cli.networks import NetworkList, find_network
from pycni.cni.conf import NetConf, parse_conf
from pycni.cni.env import Call
from pycni.etcd.conf import EtcdConf
from pycni.etcd.connect import open_client
from pycni.etcd.networks import make_network, remove_network
from pycni.etcd.records import NetworkRecord
from pycni.etcd.schema import Keys
from pycni.plugins.overlay.conf import OverlayConf, with_etcd
from pycni.plugins.overlay.joining import subnets_of


def create(given: Namespace) -> int:
    """Make the record that the configuration asks for; one that is there and the same is left."""
    netconf, conf = _configuration(find_network(given.network, given.conf_dir))
    assert conf.etcd is not None
    wanted = NetworkRecord(conf.vni, conf.mode, subnets_of(netconf), conf.port, conf.mtu, created=time.time())
    with open_client(conf.etcd) as client:
        record = make_network(client, Keys(conf.etcd.prefix), netconf.name, wanted)
    about = {"name": netconf.name, "prefix": conf.etcd.prefix, **record.as_dict()}
    shown = (
        f"network {netconf.name} is in {conf.etcd.prefix}: {record.mode}, VNI {record.vni}, {', '.join(record.subnets)}"
    )
    print(json.dumps(about, indent=4) if given.json else shown)
    return OK


def remove(given: Namespace) -> int:
    """Take the record away, and its VNI; refused while a host takes part."""
    name, etcd = _recorded(given.network, given.conf_dir)
    with open_client(etcd) as client:
        remove_network(client, Keys(etcd.prefix), name)
    about = {"name": name, "prefix": etcd.prefix}
    print(json.dumps(about, indent=4) if given.json else f"network {name} is no more in {etcd.prefix}")
    return OK


def _recorded(wanted: str, conf_dir: str) -> tuple[str, EtcdConf]:
    """Name and cluster of a network: as configured here, else the one cluster of this host that has a record of it."""
    try:
        netconf, conf = _configuration(find_network(wanted, conf_dir))
    except Failure as failure:
        if failure.exit_code != NOT_FOUND or os.sep in wanted:
            raise
        holders = clusters_with(conf_dir, wanted)
        if len(holders) > 1:
            among = ", ".join(one.prefix for one in holders)
            step = "give the path of a .conflist that names the one that is meant"
            raise Failure(f"network {wanted} is in several clusters: {among}", code=7, next_step=step) from None
        if not holders:
            raise
        return wanted, holders[0]
    assert conf.etcd is not None
    return netconf.name, conf.etcd


def _configuration(network: NetworkList) -> tuple[NetConf, OverlayConf]:
    """The checked configuration of an overlay network whose record is in etcd."""
    first = network.plugins[0]
    if not is_overlay(first):
        step = "it is known to the host that has its configuration, and to nobody else"
        raise Failure(f"network {network.name} does not span hosts by etcd", code=7, next_step=step)
    whole = {**first, "name": network.name, "cniVersion": network.version}
    netconf = with_etcd(parse_conf(json.dumps(whole).encode(), "ADD"))
    conf = OverlayConf.parse(netconf, Call("ADD"))
    if conf.etcd is None:
        raise Failure(f"network {network.name} is multicast: it has no record", code=7)
    return netconf, conf
