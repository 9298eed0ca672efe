"""One call's view of the cluster: who this host is, what it holds, how it gives back. Used by all commands on etcd."""

from __future__ import annotations

import os
import sys
import time
from itertools import islice

from pycni.cni import json_text
from pycni.cni.errors import CniError, Code
from pycni.etcd import requests
from pycni.etcd.claims import AlreadyHeld, Claimed, Fenced, Taker, claim, give_back, give_back_unread
from pycni.etcd.connect import open_client
from pycni.etcd.records import OwnEndpoint
from pycni.etcd.schema import Keys, SchemaError
from pycni.ipam.etcd_conf import parse_etcd
from pycni.ipam.etcd_pending import finish
from pycni.ipam.etcd_state import HostState, Pending
from pycni.ipam.reclaim import here, is_dead, namespace_of
from pycni.store.leases import Lease

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pycni.cni.addresses import Address
    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call
    from pycni.etcd.claims import Want
    from pycni.etcd.client import Client
    from pycni.etcd.requests import KeyValue
    from pycni.store import Store
    from pycni.store.leases import Pool

AT_ONCE = 16  # pending ones that a call finishes beside its own work
MOST_COUNTED = 48  # pieces of a range set: with two sets below etcd's limit of 128 operations


class Site:
    """The cluster as one call sees it; see the module."""

    def __init__(self, call: Call, conf: NetConf, store: Store) -> None:
        self.call = call
        self.network = conf.name
        self.store = store
        self.settings = parse_etcd(conf)
        self.connection = json_text.dumps(conf.ipam.object("etcd").as_dict())
        self.keys = Keys(self.settings.connection.prefix)
        self.state = HostState(os.path.dirname(store.path), self.keys.prefix)
        self.node = self.state.node()
        self.seen_from = here(store.boot_id)

    def client(self) -> Client:
        return open_client(self.settings.connection)

    def count(self, sets: Iterable[Iterable[tuple[str, str]]]) -> list[int]:
        """How many keys there are in each of *sets*, whose pieces go from one key to another (see Keys.…_range)."""
        pieces = [list(islice(each, MOST_COUNTED)) for each in sets]
        counts = [requests.get_range(*piece, count_only=True) for each in pieces for piece in each]
        with self.client() as client:
            answers = iter(client.txn(requests.txn([], counts)).parts)
        return [sum(next(answers).count for _ in each) for each in pieces]

    def pool(self) -> Pool | None:
        """This host's leases in its own store, which mirror what it has in etcd; None as long as there are none."""
        return self.store.leases.pool(self.settings.pool, self.network)

    def held(self, container_id: str, ifname: str) -> list[Lease]:
        pool = self.pool()
        return [] if pool is None else [each for each in pool.of_owner(container_id, ifname) if each.released is None]

    def release_here(self, leases: Sequence[Lease]) -> None:
        """End *leases* in this host's store."""
        with self.store.transaction():
            pool = self.pool()
            if pool is not None:
                pool.release(leases)

    def own_key(self, container_id: str, ifname: str) -> str:
        return self.keys.own_endpoint(self.node, self.network, container_id, ifname)

    def new_own(self) -> OwnEndpoint:
        """What a taking of this call writes, but for its addresses."""
        return OwnEndpoint(
            id=os.urandom(8).hex(),
            ips=(),
            created=time.time(),
            boot=self.seen_from.boot_id,
            netns=self.call.netns,
            netns_id=namespace_of(self.call),
            mount_ns=self.seen_from.mount_ns,
        )

    def take(self, client: Client, own: OwnEndpoint, wants: Sequence[Want]) -> tuple[Address, ...]:
        """One address for each want; whatever stood in the way and is of no use any more is settled first."""
        call = self.call
        for _ in range(3):
            taker = Taker(self.node, self.state.fence(), self.network, call.container_id, call.ifname, own)
            outcome = claim(client, self.keys, taker, wants, mac_of=self.settings.mac_of)
            if isinstance(outcome, Claimed):
                return outcome.ips
            if isinstance(outcome, AlreadyHeld):
                # This host's store knows nothing of it: an ADD that was killed, or the store was lost.
                if outcome.own.netns_id != own.netns_id and not self.is_over(outcome.own):
                    raise already_attached(outcome.own.ips[0], call)
                give_back(client, self.keys, self.network, outcome.key)
            else:
                self.return_home(client, outcome)
        raise CniError(Code.TRY_AGAIN, f"{call.container_id}: etcd changes faster than it is read", "try again")

    def is_over(self, own: OwnEndpoint) -> bool:
        """Whether the container of a taking of this host is surely gone."""
        lease = Lease(own.addresses[0], boot_id=own.boot, netns=own.netns, netns_id=own.netns_id, mount_ns=own.mount_ns)
        return is_dead(lease, self.seen_from)

    def return_home(self, client: Client, fenced: Fenced) -> None:
        """The host was declared dead meanwhile: keep what is still ours, in every network, and forget the rest."""
        from pycni.ipam.etcd_return import return_home

        networks = (self.network,)
        lost = return_home(client, self.keys, self.state, self.store, fence=fenced.revision, networks=networks)
        if lost is not None:
            told = f"lost {', '.join(lost)}" if lost else "lost nothing"
            print(f"pycni: this host ({self.node}) was declared dead in {self.keys.prefix}: {told}", file=sys.stderr)

    def broken(self, why: str) -> CniError:
        """CHECK's answer where an address is not the attachment's any more."""
        call = self.call
        return CniError(
            Code.BROKEN,
            f"the address of container {call.container_id} is lost: {why}",
            f"network {self.network}, interface {call.ifname}; attach the container anew",
        )

    # -- giving back ---------------------------------------------------------------------------------------------------

    def remember(self, container_id: str, ifname: str, *, id: str = "", created: float = 0.0) -> None:
        """Note that a taking is to be given back later: that of *id*, or that made at *created*."""
        now = time.time()
        self.state.add_pending(Pending(self.network, container_id, ifname, id, created, now, self.connection))

    def give_back(self, client: Client, key: KeyValue) -> bool:
        """End what *key*, which is this host's own, holds; also where what it says cannot be read."""
        network = self.keys.parse(key.key)[2]
        try:
            return give_back(client, self.keys, network, key)
        except SchemaError as damage:
            told = "given back is what was taken together with it"
            print(f"pycni: {key.key} cannot be read, {told}: {damage.msg}", file=sys.stderr)
            return give_back_unread(client, self.keys, network, key)

    def finish_pending(self, client: Client, most: int = AT_ONCE) -> None:
        """Give back what earlier calls could not."""
        finish(self.state, client, self.keys, most)


def already_attached(address: object, call: Call) -> CniError:
    return CniError(
        Code.ALREADY_ATTACHED,
        f"{address} has been allocated to {call.container_id}, duplicate allocation is not allowed",
        f"interface {call.ifname}: a DEL of it must come first",
    )
