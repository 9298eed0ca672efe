"""Mappings that are named twice: which of them counts, and when two are in each other's way."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.cni.errors import CniError
from pycni.portmap import plan
from pycni.portmap.conf import Mapping
from tests.unit.test_portmap_plan import ANY, BOTH, V4, conf, facts

ON_ALL4, ON_ALL6 = ANY.replace(family=4), ANY.replace(family=6)
ON_LOOP4, ON_LOOP6 = ON_ALL4.replace(host_ip="127.0.0.1"), ON_ALL6.replace(host_ip="::1")
RUN = ANY.replace(high=8089)
CHOICE = ANY.replace(low=0, high=0)
FEW = ("192.0.2.0/24",)
PROXY = {"serves_proxy": True}


def services(*mappings: Mapping, addresses: Any = BOTH, **known: Any) -> tuple[plan.Service, ...]:
    return plan.services(conf(*mappings), addresses, facts(**known))


def done(*mappings: Mapping, **how: Any) -> set[Any]:
    """What is done for *mappings*, by whatever name it was asked for."""
    return {(one.claim, one.address, one.mapping.port, one.kernel, one.proxied) for one in services(*mappings, **how)}


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [
        (ANY, ON_ALL4),
        (ANY, ON_ALL6),
        (ANY, ON_LOOP4),
        (ANY, ON_LOOP6),
        (ON_ALL4, ON_LOOP4),
        (RUN, RUN.replace(low=8083, high=8085, port=83, family=6, host_ip="fd00::9")),
        (RUN, RUN.replace(low=8080, high=8080)),
        (ANY.replace(sources=FEW), ON_LOOP4.replace(sources=FEW)),
        (CHOICE, CHOICE.replace(family=4, host_ip="127.0.0.1")),
    ],
)
@pytest.mark.parametrize("known", [{}, PROXY, {**PROXY, "bridged6": True}])
def test_what_a_wider_mapping_does_counts_once(wide: Mapping, narrow: Mapping, known: Any) -> None:
    """In either order, whoever serves ::1; with the proxy also for a container of one family."""
    assert done(wide, narrow, **known) == done(narrow, wide, **known) == done(wide, **known)
    if known:
        only4 = {"addresses": {4: V4}, **known}
        assert done(narrow, wide, **only4) == done(wide, **only4)


@pytest.mark.parametrize(
    "other",
    [
        ON_LOOP4.replace(port=81),
        ON_LOOP4.replace(sources=FEW),
        ON_LOOP4.replace(proxy_protocol=True),
        RUN.replace(family=4, host_ip="127.0.0.1"),
    ],
)
def test_what_differs_is_refused(other: Mapping) -> None:
    """Another port of the container, other clients, the proxy's header, more ports than the wider one has."""
    with pytest.raises(CniError, match="ask twice for the same host port"):
        services(ANY, other, **PROXY)


def test_what_is_apart_stays() -> None:
    """Two addresses, two protocols, two families: all are served, and two choices of different ports."""
    apart = [ON_LOOP4, ON_LOOP4.replace(host_ip="127.0.0.2"), ANY.replace(proto="udp"), ON_ALL6]
    assert len(services(*apart)) == 5
    assert len(services(CHOICE, CHOICE.replace(port=81))) == 4


def test_a_long_run_leaves_loopback_to_who_names_it() -> None:
    """The proxy serves ::1 for a long run only where it is asked for by name: that is another thing to do."""
    run = ANY.replace(high=8080 + plan.PROXIED_PORTS)
    with pytest.raises(CniError, match="ask twice for the same host port"):
        services(run, run.replace(family=6, host_ip="::1"), serves_proxy=True, bridged6=True)


runs = st.builds(
    lambda ip, low, length, shift: Mapping("tcp", low, low + length, low + shift, 4 if ip else 0, ip),
    st.sampled_from(["", "127.0.0.1", "127.0.0.2"]),
    st.integers(1, 20),
    st.integers(0, 5),
    st.just(100),
)


def reached(found: tuple[plan.Service, ...]) -> set[tuple[int, str, int]]:
    """(family, host address, host port) that lead somewhere, with wide ones spelled out for each address."""
    places = {4: ("", "127.0.0.1", "127.0.0.2"), 6: ("",)}
    return {
        (one.family, ip, number)
        for one in found
        for number in range(one.mapping.low, one.mapping.high + 1)
        for ip in ((one.mapping.host_ip,) if one.mapping.host_ip else places[one.family])
    }


@given(st.lists(runs, max_size=10))
def test_nothing_is_lost(mappings: list[Mapping]) -> None:
    """What all of them reach is reached by those that are needed, which are no more than before."""
    every = [one for each in mappings for one in services(each)]
    kept = plan.needed(every)
    assert reached(kept) == reached(tuple(every)) and set(kept) <= set(every)
    assert plan.needed(kept) == kept
