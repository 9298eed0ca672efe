"""The state of this host: from the store where that may be read, else through the agent, which lets readers look."""

from __future__ import annotations

import os
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, TypeVar

from pycni.agent.view import Published, Seen, see_attachments, see_objects, see_ports
from pycni.cli.agent_client import NoAgent, ask
from pycni.cli.failure import Failure
from pycni.cni.names import Attachment
from pycni.store import STATE_DIR, Lease, Record, Store, open_store

T = TypeVar("T")


def existing_store() -> Store | None:
    """The store of this host, None where no plugin of ours ever ran: looking must not make it. PermissionError."""
    try:
        os.stat(os.path.join(STATE_DIR, "pycni.db"))  # not os.path.exists: who may not look must not hear "nothing"
    except FileNotFoundError:
        return None
    return open_store()


def read_records(network: str | None = None) -> list[Record]:
    """Every record of this host, or of *network*, whole: from the store only."""
    store = existing_store()
    if store is None:
        return []
    with store:
        return list(store.attachments.all(network))


def see_all(network: str | None = None) -> list[Seen]:
    """Every attachment of this host, or of *network*, beside the kernel."""
    return _look(
        lambda store: see_attachments(store, network),
        lambda: [Seen.from_json(shown) for shown in ask("attachments", network=network)],
    )


def objects_of(attachment: Attachment) -> list[dict[str, str]]:
    """Links and leases that an attachment of ours should have, and whether they are there."""
    return _look(lambda store: see_objects(store, attachment), lambda: list(ask("objects", **attachment.as_dict())))


def read_leases(network: str | None = None) -> list[Lease]:
    """Every address that is given out on this host, or in *network*."""
    return _look(
        lambda store: list(store.leases.all(network)),
        lambda: [_lease(shown) for shown in ask("leases", network=network)],
    )


def see_published(network: str | None = None) -> list[Published]:
    """The host ports that attachments of this host, or of *network*, have published. The agent knows which are held."""

    def by_agent() -> list[Published]:
        return [Published.from_json(shown) for shown in ask("ports", network=network)]

    try:
        return by_agent()
    except (NoAgent, PermissionError):
        return _look(lambda store: see_ports(store, network, None), by_agent)


def _look(into_store: Callable[[Store], list[T]], through_agent: Callable[[], list[T]]) -> list[T]:
    try:
        store = existing_store()
    except PermissionError as refused:
        try:
            return through_agent()
        except (NoAgent, PermissionError):
            raise unreadable(refused) from None
    if store is None:
        return []
    with store:
        return into_store(store)


def unreadable(refused: PermissionError) -> Failure:
    """For who may neither look at the state of this host nor ask the agent, which is there or not."""
    step = "run the command as root, or as a member of the agent's `readers` group"
    return Failure(f"{refused.filename}: {refused.strerror}", code=5, next_step=step)


def _lease(shown: dict[str, Any]) -> Lease:
    return Lease(**{**shown, "address": ip_address(shown["address"])})
