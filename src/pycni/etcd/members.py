"""Which host takes part in which network, and where its end of the tunnels is: the `member` keys.

They are under no lease: what a host's peers send to it must not change because it, or etcd, is silent. Each key is
written by its own host only, whenever its address or MTU changes, and is deleted with its last attachment. A member key
that is older than its host's fence counts for nothing: nobody sends to that host or takes anything from it (`nodes`).

A host joins before it reads what the others are, so whoever frees a dead host's addresses either sees that it is there,
or knows that it has read of the death (`barrier`).
"""

from __future__ import annotations

from pycni.cni.errors import CniError, Code
from pycni.etcd import requests
from pycni.etcd.claims import Fenced
from pycni.etcd.records import Member
from pycni.etcd.schema import SchemaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.etcd.client import Client
    from pycni.etcd.requests import Answer, KeyValue, Request
    from pycni.etcd.schema import Keys

ATTEMPTS = 3  # each further one because an answer was lost, or this host writes its record from two places


def join(  # noqa: PLR0917 - who, behind which fence, where, as what: in the order in which they are said
    client: Client, keys: Keys, node: str, fence: int, network: str, member: Member, *, followed: int = 0
) -> int | Fenced:
    """Say that *node*, whose last fence is *fence* (0: never fenced), takes part in *network* as *member*; the create
    revision of the key. Nothing is written where `is_in_place` says so.

    Fenced where the host was declared dead meanwhile: it looks what it still has (`nodes.mark_anew`), then joins again.
    CniError 11 where another host of the network, not declared dead, has the tunnel address.

    followed: for a host that comes back, whose kernel still has what it had when it was fenced: the revision up to
    which it has followed by now. CniError 11 where somebody was declared dead since: that is to be followed first.
    """
    key = keys.member(node, network)
    looks = [requests.get(keys.fence(node)), requests.get(key), *_everybody(keys)]
    for _ in range(ATTEMPTS):
        fences, own, *others = client.txn(requests.txn([], looks)).parts
        if _revision(fences.found) != fence:
            return Fenced(_revision(fences.found))
        mine = own.found[0] if own.found else None
        former = _parsed(mine) if mine is not None else None
        dead = mine is not None and mine.mod_revision < fence
        claims = former is None or dead or former.vtep != member.vtep
        rival = _rival(keys, others, key, member.vtep)
        if rival is not None and (mine is None or claims or rival.create_revision < mine.create_revision):
            if mine is not None and not claims:  # written by an attempt that ended before it looked
                _withdraw(client, mine.key, mine.mod_revision)
            raise _refusal(keys, rival, member.vtep)
        if mine is not None and is_in_place(mine, fence, member):
            return mine.create_revision
        if former is not None:
            # An agent that is only away for a moment comes back; one that was missed until its host was dead may not.
            agent = member.agent or (former.agent and not dead)
            member = member.replace(created=former.created or member.created, agent=agent)
        if followed and any(kv.mod_revision > followed for kv in others[0].found):
            raise CniError(Code.TRY_AGAIN, f"a host was declared dead after revision {followed}", "follow that first")
        guards = [requests.unchanged(key, _revision(own.found)), requests.unchanged(keys.fence(node), fence)]
        if followed:
            guards.append(requests.none_since(keys.fences, followed))
        answer = client.txn(requests.txn(guards, [requests.put(key, member.render()), *_everybody(keys)]))
        if not answer.succeeded:
            continue
        # Of two hosts that claim one address at the same moment, the later one sees the other here.
        rival = _rival(keys, answer.parts[1:], key, member.vtep) if claims else None
        if rival is not None:
            _withdraw(client, key, answer.revision)
            raise _refusal(keys, rival, member.vtep)
        return mine.create_revision if mine is not None else answer.revision
    raise CniError(Code.TRY_AGAIN, f"{key} changes while it is written", f"is the id of host {node} used twice?")


def leave(client: Client, keys: Keys, node: str, network: str) -> None:
    """*node* takes part in *network* no more. Success in any case."""
    found = client.get(keys.member(node, network))
    if found is not None:
        _withdraw(client, found.key, found.mod_revision)


def is_in_place(found: KeyValue | None, fence: int, member: Member) -> bool:
    """Whether the `member` key *found* says of a host whose last fence is *fence* what *member* does. When it was
    written first is of no interest, nor that an agent keeps the host when this writer is none."""
    there = _parsed(found) if found is not None and found.mod_revision > fence else None
    return there is not None and there == member.replace(created=there.created, agent=member.agent or there.agent)


def _everybody(keys: Keys) -> list[Request]:
    return [requests.get_range(each, requests.end_of(each)) for each in (keys.fences, keys.all_members)]


def _rival(keys: Keys, everybody: list[Answer] | tuple[Answer, ...], key: str, vtep: str) -> KeyValue | None:
    """The oldest key of another host in the network of *key* with the tunnel address *vtep*, unless it is fenced."""
    fences = {kv.key: kv.mod_revision for kv in everybody[0].found}
    network = keys.parse(key)[2]
    rivals = []
    for (_, other, its), kv in keys.understood(everybody[1].found):
        if its != network or kv.key == key:
            continue
        there = _parsed(kv)
        if there is not None and there.vtep == vtep and kv.mod_revision > fences.get(keys.fence(other), 0):
            rivals.append(kv)
    return min(rivals, key=lambda kv: kv.create_revision, default=None)


def _refusal(keys: Keys, rival: KeyValue, vtep: str) -> CniError:
    _, other, network = keys.parse(rival.key)
    there = _parsed(rival)
    name = f"{there.name} ({other})" if there is not None and there.name else other
    return CniError(
        Code.TRY_AGAIN,
        f"host {name} has {vtep}, the address of this host's tunnels, in network {network}",
        f"give one of them another; if that host is gone: `pycni etcd forget {network} {other}`",
    )


def _withdraw(client: Client, key: str, revision: int) -> None:
    client.txn(requests.txn([requests.unchanged(key, revision)], [requests.delete(key)]))


def _parsed(kv: KeyValue) -> Member | None:
    """The record; None for one that is damaged: its own host mends it, `pycni etcd check` shows it."""
    try:
        return Member.parse(kv.value, kv.key)
    except SchemaError:
        return None


def _revision(found: tuple[KeyValue, ...]) -> int:
    return found[0].mod_revision if found else 0
