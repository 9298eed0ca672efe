"""What two results must have in common: everything but MAC addresses, names of veths and the addresses themselves."""

from __future__ import annotations

from ipaddress import ip_interface
from typing import Any

from netns_fixtures import CniRun
from tests.runtime.recorded import INTERFACE_PLUGINS, RecordedCall

OWN_CODES = 100  # from here on a code is a plugin's own (specification, "Error"); the reference's is always 999


def outcome(rc: int, answer: Any) -> tuple[int, int | None]:
    """Exit code and error code; all codes of a plugin's own are one."""
    return rc, min(answer["code"], OWN_CODES) if rc else None


def shape(answer: Any, netns: str) -> Any:
    """A result with names, MACs and addresses replaced by what they are; an error or nothing is no shape at all.

    *netns* is the CNI_NETNS that the result must name as sandbox.
    """
    if not isinstance(answer, dict) or "code" in answer:
        return None
    described = dict(answer)
    if "interfaces" in answer:
        described["interfaces"] = [_interface(i, netns) for i in answer["interfaces"]]
    if "ips" in answer:
        described["ips"] = [_ip(ip) for ip in answer["ips"]]
    return described


def _interface(interface: dict[str, Any], netns: str) -> dict[str, Any]:
    described = dict(interface)
    if "mac" in interface and set(interface["mac"]) != {"0", ":"}:
        described["mac"] = "a MAC"
        assert len(bytes.fromhex(interface["mac"].replace(":", ""))) == 6
    if "mtu" in interface:
        described["mtu"] = "a number"
        assert interface["mtu"] > 0
    if interface["name"].startswith("veth"):
        described["name"] = "a veth"
    if "sandbox" in interface:
        described["sandbox"] = interface["sandbox"] == netns
    return described


def _ip(ip: dict[str, Any]) -> dict[str, Any]:
    address = ip_interface(ip["address"])
    return {**ip, "address": f"of {address.network}"}


def expected(call: RecordedCall) -> tuple[tuple[int, int | None], Any]:
    """Outcome and shape of the recorded answer, corrected by the known differences."""
    answer = call.stdout
    result = shape(answer, call.env.get("CNI_NETNS", ""))
    if call.rc and call.command == "DEL" and "invalid CIDR" in answer["msg"]:
        # A DEL needs nothing of the range that is wrong; refusing it would keep what the container has.
        return (0, None), None
    if result and call.plugin == "loopback" and call.stdin["cniVersion"] == "0.3.1":
        # The reference prints the result of 1.0.0 under another number; 0.3.1 requires `version`, and `dns` is a key
        # of every 0.3.1 result that the reference's other plugins print.
        result["ips"] = [{**ip, "version": "6" if ":" in ip["address"] else "4"} for ip in result["ips"]]
        result["dns"] = {}
    if result and "interfaces" in result and result["cniVersion"] == "1.1.0" and call.plugin in INTERFACE_PLUGINS:
        # New in 1.1.0, and the reference fills it in nowhere. Chained plugins hand on what they were given.
        result["interfaces"] = [{**i, "mtu": "a number"} for i in result["interfaces"]]
    return outcome(call.rc, answer), result


def actual(run: CniRun, netns: str, plugin: str) -> tuple[tuple[int, int | None], Any]:
    """The same of what *plugin* answered here."""
    answer = run.json if run.stdout.strip() else ""
    result = shape(answer, netns)
    if result and "interfaces" in result and plugin not in INTERFACE_PLUGINS:
        result["interfaces"] = [{key: i[key] for key in i if key != "mtu"} for i in result["interfaces"]]
    return outcome(run.rc, answer), result
