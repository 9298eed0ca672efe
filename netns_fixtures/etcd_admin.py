"""What an operator does to a running etcd cluster: look who leads, move the lead, compact, switch authentication on."""

from __future__ import annotations

import base64
import http.client
from collections.abc import Mapping, Sequence
from typing import Any

from .etcd_server import Etcd, EtcdMember
from .waiting import wait_until

ELECTION_S = 10.0


def status(member: EtcdMember) -> dict[str, Any]:
    """{"header": {"member_id", "revision", …}, "leader", "version", …}; {} from a member that does not answer."""
    try:
        answer = member.post("/v3/maintenance/status", {})
    except (OSError, http.client.HTTPException, ValueError):
        return {}
    return answer if isinstance(answer, dict) else {}


def leader(cluster: Etcd) -> EtcdMember:
    """The member that leads; waits for an election to end."""

    def leading() -> EtcdMember | None:
        for member in cluster.members:
            if member.running() and (told := status(member)) and told.get("leader") == told["header"]["member_id"]:
                return member
        return None

    found = wait_until(leading, ELECTION_S, "one of the members leads")
    assert found is not None
    return found


def move_leader(cluster: Etcd) -> EtcdMember:
    """Hand the lead to another member; who has it then."""
    old = leader(cluster)
    new = next(member for member in cluster.members if member is not old and member.running())
    old.post("/v3/maintenance/transfer-leadership", {"targetID": status(new)["header"]["member_id"]})
    wait_until(lambda: leader(cluster) is new, ELECTION_S, f"{new.name} leads")
    return new


def compact(member: EtcdMember) -> int:
    """Forget all history before now; the revision up to which it is gone."""
    revision = int(status(member)["header"]["revision"])
    member.post("/v3/kv/compaction", {"revision": revision, "physical": True})
    return revision


def switch_authentication_on(member: EtcdMember, users: Mapping[str, str], roles: Mapping[str, Sequence[str]]) -> None:
    """*users* (name to password) beside root, whose password is "root"; *roles* (user to role names) must exist."""
    for name, password in {"root": "root", **users}.items():
        member.post("/v3/auth/user/add", {"name": name, "password": password})
    member.post("/v3/auth/role/add", {"name": "root"})
    for name, granted in {"root": ["root"], **roles}.items():
        for role in granted:
            member.post("/v3/auth/user/grant", {"user": name, "role": role})
    member.post("/v3/auth/enable", {})


def change_password(member: EtcdMember, user: str, password: str) -> None:
    """Where authentication is on, with root's password as `switch_authentication_on` gave it. Tokens stay valid."""
    answer = member.post("/v3/auth/authenticate", {"name": "root", "password": "root"})
    assert isinstance(answer, dict), answer
    member.post("/v3/auth/user/changepw", {"name": user, "password": password}, token=answer["token"])


def add_role(member: EtcdMember, role: str, permissions: Sequence[tuple[str, str]]) -> None:
    """*permissions*: (READ, WRITE or READWRITE; prefix)."""
    member.post("/v3/auth/role/add", {"name": role})
    for kind, prefix in permissions:
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        permission = {"permType": kind, "key": _base64(prefix), "range_end": _base64(end)}
        member.post("/v3/auth/role/grant", {"name": role, "perm": permission})


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
