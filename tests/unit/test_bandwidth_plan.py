"""What the bandwidth plugin reads, decides and compares."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.change.shaping import CreateIfb, LimitRate, RedirectIngress, TokenBucket
from pycni.cni.conf import parse_conf
from pycni.cni.errors import CniError
from pycni.cni.names import Attachment
from pycni.host import tc_messages
from pycni.host.link_facts import Link
from pycni.plugins.bandwidth import plan
from pycni.plugins.bandwidth.compare import NS_A_TICK, CheckFacts, begun, differences
from pycni.plugins.bandwidth.conf import MAX_BURST, BandwidthConf, Limit

ATTACHMENT = Attachment("net", "c1", "eth0", plan.PART)
HOST = Link(index=7, name="veth1", kind="veth", mtu=1500, flags=1)

rates = st.integers(8, 2**40)
bursts = st.integers(1, MAX_BURST - 1)
limits = st.builds(Limit, rates, bursts)


def parse(**keys: Any) -> BandwidthConf:
    conf = {"cniVersion": "1.1.0", "name": "net", "type": "bandwidth", **keys}
    return BandwidthConf.parse(parse_conf(json.dumps(conf).encode(), "ADD"))


def test_own_keys_hide_the_capability() -> None:
    """Whole, as the reference: also an own limit of 0."""
    asked = {"bandwidth": {"ingressRate": 8, "ingressBurst": 8, "egressRate": 8, "egressBurst": 8}}
    assert parse(runtimeConfig=asked) == BandwidthConf(Limit(8, 8), Limit(8, 8))
    assert parse(runtimeConfig=asked, egressRate=16, egressBurst=16) == BandwidthConf(None, Limit(16, 16))
    assert not parse(runtimeConfig=asked, ingressRate=0).limited
    assert not parse().limited
    assert parse(runtimeConfig={"bandwidth": {"IngressRate": 8, "IngressBurst": 8}}).ingress == Limit(8, 8)
    assert parse(shapedSubnets=[], unshapedSubnets=[], ingressRate=8, ingressBurst=8).limited


@pytest.mark.parametrize(
    ("keys", "code", "said"),
    [
        ({"ingressRate": 8}, 7, "if rate is set, burst must also be set: ingressBurst"),
        ({"egressBurst": 8}, 7, "if burst is set, rate must also be set: egressRate"),
        ({"egressRate": 8, "egressBurst": MAX_BURST}, 7, "burst cannot be more than 4GB: egressBurst"),
        ({"egressRate": 7, "egressBurst": 8}, 7, "egressRate is 7"),
        ({"runtimeConfig": {"bandwidth": {"ingressRate": 8}}}, 7, "runtimeConfig.bandwidth.ingressBurst"),
        ({"runtimeConfig": {"bandwidth": 7}}, 7, "runtimeConfig.bandwidth is 7"),
        ({"egressRate": "8", "egressBurst": 8}, 7, 'egressRate is "8"'),
        ({"ingressRate": True}, 7, "ingressRate is true"),
        ({"shapedSubnets": ["10.0.0.0/8"]}, 2, "shapedSubnets is not supported"),
    ],
)
def test_wrong_limits_are_named(keys: dict[str, Any], code: int, said: str) -> None:
    """The reference's words where it has some, and the key."""
    with pytest.raises(CniError) as refused:
        parse(**keys)
    assert refused.value.code == code
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("network", "container_id", "name"),
    [("net", "c1", "bwp623e1c388032"), ("net", "c2", "bwp0aed9834e55b"), ("ne", "tc1", "bwp623e1c388032")],
)
def test_the_device_is_named_as_the_reference_does(network: str, container_id: str, name: str) -> None:
    """bwp and twelve digits of the SHA-512 of both names without anything between them."""
    assert plan.ifb_name(network, container_id) == name


def test_the_device_is_ready_before_anything_is_led_there() -> None:
    """And only directions with a limit are touched."""
    limit = Limit(8_000_000, 800_000)
    bucket = TokenBucket(1_000_000, 100_000, 125_000)
    ifb = plan.ifb_name("net", "c1")
    egress = (
        CreateIfb(ifb, 1500, "pycni-bandwidth net/c1/eth0"),
        LimitRate(ifb, bucket),
        RedirectIngress("veth1", ifb),
    )
    assert plan.plan_add(BandwidthConf(None, limit), ATTACHMENT, HOST) == egress
    assert plan.plan_add(BandwidthConf(limit, None), ATTACHMENT, HOST) == (LimitRate("veth1", bucket),)
    assert plan.plan_add(BandwidthConf(limit, limit), ATTACHMENT, HOST) == (LimitRate("veth1", bucket), *egress)


@given(limit=limits, mtu=st.integers(68, 65535))
def test_a_bucket_holds_a_packet_and_fits_the_kernel(limit: Limit, mtu: int) -> None:
    """Rate exactly, at least one full packet of burst, no field beyond its 32 bits, room for what arrives in 25 ms."""
    bucket = plan.bucket(limit, mtu)
    assert bucket.rate == limit.rate // 8
    assert bucket.burst == max(limit.burst // 8, mtu + 14)
    assert bucket.burst <= bucket.limit < 2**32
    tc_messages.new_tbf(3, bucket)


@given(limit=limits)
def test_check_knows_its_own_limit_again(limit: Limit) -> None:
    """From what the kernel tells, which is the time of the burst in 32 bits of ticks; another rate is a difference."""
    bucket = plan.bucket(limit, HOST.mtu)
    ticks = bucket.burst * 1_000_000_000 // bucket.rate // NS_A_TICK % 2**32
    qdisc = tc_messages.Qdisc(7, "tbf", 0x10000, 0xFFFFFFFF, bucket.rate, bucket.limit, ticks)
    facts = CheckFacts(HOST, (qdisc,), (), "bwp0", None, ())
    assert differences(BandwidthConf(limit), facts) == ()
    other = facts.replace(host_qdiscs=(qdisc.replace(rate=bucket.rate + 1),))
    assert len(differences(BandwidthConf(limit), other)) == 1
    reference = tc_messages.burst_ticks(bucket) % 2**32
    assert differences(BandwidthConf(limit), facts.replace(host_qdiscs=(qdisc.replace(buffer=reference),))) == ()


def test_check_sees_the_way_through_the_device() -> None:
    """The device itself, whether it is up, its limit, and that everything is led to that very one."""
    limit = Limit(8_000_000, 800_000)
    bucket = plan.bucket(limit, 1500)
    qdisc = tc_messages.Qdisc(9, "tbf", 0, 0, bucket.rate, bucket.limit, tc_messages.burst_ticks(bucket))
    ifb = Link(index=9, name="bwp0", kind="ifb", mtu=1500, flags=1)
    good = CheckFacts(HOST, (), (9,), "bwp0", ifb, (qdisc,))
    conf = BandwidthConf(None, limit)
    assert differences(conf, good) == ()
    assert differences(conf, good.replace(ifb=None)) == ("device bwp0 is missing",)
    assert "is down" in differences(conf, good.replace(ifb=ifb.replace(flags=0)))[0]
    assert "not led" in differences(conf, good.replace(redirected=(8,)))[0]
    assert "no rate limit" in differences(conf, good.replace(ifb_qdiscs=()))[0]
    assert "burst" in differences(conf, good.replace(ifb_qdiscs=(qdisc.replace(buffer=1),)))[0]


def test_an_add_that_was_killed_has_done_what_looks_like_its_own() -> None:
    """The bucket with its rate and burst; room for filters where its device is, with its filter or none. Anything else
    was there before."""
    limit = Limit(8_000_000, 800_000)
    bucket = plan.bucket(limit, 1500)
    qdisc = tc_messages.Qdisc(7, "tbf", 0x10000, 0xFFFFFFFF, bucket.rate, bucket.limit, tc_messages.burst_ticks(bucket))
    ifb = Link(index=9, name="bwp0", kind="ifb", mtu=1500, flags=1)
    done = CheckFacts(HOST, (qdisc,), (0, 9), "bwp0", ifb, ())
    both, incoming, outgoing = (BandwidthConf(*of) for of in ((limit, limit), (limit, None), (None, limit)))
    for conf in (both, incoming, outgoing, BandwidthConf()):
        assert begun(conf, done) == conf
    for foreign in ((), (qdisc.replace(rate=1),), (qdisc.replace(kind="pfifo"),)):
        assert begun(both, done.replace(host_qdiscs=foreign)) == outgoing
    assert begun(both, done.replace(redirected=())) == both
    for other in ({"ifb": None}, {"redirected": (0,)}, {"redirected": (0, 8)}):
        assert begun(both, done.replace(**other)) == incoming
