"""What CHECK compares: what ADD recorded and the last result against what the kernel and firewalld have. Pure."""

from __future__ import annotations

from pycni.cni.value import Value
from pycni.plugins.firewall.conf import ISOLATED
from pycni.plugins.firewall.plan import ports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.result import Result
    from pycni.firewall.rules import AttachmentRules
    from pycni.host.link_facts import Link
    from pycni.plugins.firewall.conf import FirewallConf


class CheckFacts(Value):
    """What is there now."""

    links: tuple[Link, ...]  # of the result's host interfaces, those that exist
    rules: tuple[str, ...] = ()  # what of our rules is missing, in words
    forward: tuple[str, ...] = ()  # what stops forwarded traffic, in words
    zone: tuple[str, ...] = ()  # what firewalld lacks, in words


def differences(
    conf: FirewallConf, recorded: AttachmentRules | None, previous: Result, facts: CheckFacts
) -> tuple[str, ...]:
    """Everything that is not as ADD left it, in words."""
    if recorded is None:
        return ("no ADD of this plugin is on record: it was never run, or by another suite, or the state file is lost",)
    now = {str(ip.address.ip) for ip in previous.ips}
    return (
        *(f"address {one} is not among those of ADD" for one in sorted(now.difference(recorded.sources))),
        *(
            f"port isolation is off on {port}"
            for port in (ports(facts.links, isolated=False) if conf.policy == ISOLATED else ())
        ),
        *facts.rules,
        *facts.forward,
        *facts.zone,
    )
