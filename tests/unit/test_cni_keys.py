"""`Keys`: JSON objects asked the way Go reads them."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.cni.conf import Keys
from pycni.cni.errors import CniError, Code


@pytest.mark.parametrize(
    ("mapping", "value"),
    [
        ({"mtu": 1}, 1),
        ({"MTU": 1}, 1),
        ({"Mtu": 1, "MTU": 2}, 2),
        ({"MTU": 2, "mtu": 1}, 1),
        ({"mtu": 1, "MTU": 2}, 1),
        ({"mtu": None, "MTU": 2}, 2),
        ({"MTU": 2, "Mtu": None}, 2),
        ({"mtu": None}, None),
        ({}, None),
    ],
)
def test_names_match_in_any_case(mapping: dict[str, Any], value: int | None) -> None:
    """An exact match wins, else the last; null is as good as absent."""
    keys = Keys(mapping)
    assert keys.integer("mtu", 0, 10) == value
    assert keys.raw("mtu") == value
    assert keys.has("mtu") is (value is not None)
    assert keys.mentions("mtu") is bool(mapping)
    assert keys.as_dict() == mapping


def test_case_does_not_matter_at_any_level() -> None:
    """Objects inside are asked by the same rule: containerd sends HostPort, podman hostPort."""
    keys = Keys({"RUNTIMECONFIG": {"PortMappings": [{"HostPort": 80}, {"hostport": 81}]}})
    assert [each.integer("hostPort", 0, 65535) for each in keys.object("runtimeConfig").objects("portMappings")] == [
        80,
        81,
    ]


@pytest.mark.parametrize("mapping", [{}, {"k": None}, {"K": None}])
def test_absent_and_null_give_the_default(mapping: dict[str, Any]) -> None:
    """Every question has an answer for what is not there."""
    keys = Keys(mapping)
    assert keys.text("k") == ""
    assert keys.text("k", "cni0") == "cni0"
    assert keys.integer("k", 0, 1) is None
    assert keys.boolean("k") is False
    assert keys.boolean("k", True) is True
    assert keys.texts("k") == ()
    assert keys.object("k") == Keys({})
    assert keys.objects("k") == ()
    assert keys.address("k") is None
    assert keys.cidr("k") is None
    assert keys.prefix("k") is None


@pytest.mark.parametrize("empty", ["", [], None])
def test_empty_address_is_absent(empty: Any) -> None:
    """ "" and [] in place of an address mean that there is none."""
    keys = Keys({"k": empty})
    assert (keys.address("k"), keys.cidr("k"), keys.prefix("k")) == (None, None, None)


def test_addresses_are_parsed() -> None:
    """Addresses come as values of `ipaddress`."""
    keys = Keys({"a": "10.0.0.1", "c": "10.0.0.5/8", "p": "10.0.0.5/8"})
    assert keys.address("a") == ip_address("10.0.0.1")
    assert keys.cidr("c") == ip_interface("10.0.0.5/8")
    assert keys.prefix("p") == ip_network("10.0.0.0/8")


QUESTIONS: dict[str, tuple[Any, list[Any]]] = {
    "text": (lambda keys: keys.text("k"), [1, True, [], {}, 1.5, "a\0b"]),
    "integer": (lambda keys: keys.integer("k", 0, 10), [-1, 11, 10**30, True, False, "1", "", 1.0, 1e3, [], {}]),
    "boolean": (lambda keys: keys.boolean("k"), [0, 1, "true", "", [], {}]),
    "texts": (lambda keys: keys.texts("k"), ["a", {}, 1, [1], [None], [["a"]], ["a\0"]]),
    "object": (lambda keys: keys.object("k"), ["a", 1, True, [], [{}], ""]),
    "objects": (lambda keys: keys.objects("k"), ["a", {}, 1, [1], [None], [[]]]),
    "address": (lambda keys: keys.address("k"), ["x", 1, {}, ["10.0.0.1"], "10.0.0.1/8"]),
    "cidr": (lambda keys: keys.cidr("k"), ["x", 1, {}, "10.0.0.1"]),
    "prefix": (lambda keys: keys.prefix("k"), ["x", 1, {}, "10.0.0.1"]),
}


@pytest.mark.parametrize(
    ("question", "value"), [(name, value) for name, (_, values) in QUESTIONS.items() for value in values]
)
def test_wrong_type_or_value_names_the_key_with_its_path(question: str, value: Any) -> None:
    """Every refusal is code 7, begins with the path of the key and says what is expected."""
    with pytest.raises(CniError, match=r"^ipam\.ranges\[0\]\.k") as refused:
        QUESTIONS[question][0](Keys({"k": value}, "ipam.ranges[0]"))
    assert refused.value.code == Code.INVALID_CONFIG
    assert " is " in refused.value.msg


def test_refused_number_names_value_and_limits() -> None:
    """The message has all that is needed to correct the config."""
    with pytest.raises(CniError) as refused:
        Keys({"MTU": 70000}).integer("mtu", 0, 65535)
    assert refused.value.msg == "mtu is 70000, not a whole number in 0..65535"


def test_paths_lead_through_objects_and_lists() -> None:
    """A message deep inside says where."""
    keys = Keys({"ipam": {"ranges": [{}, {"subnet": 1}]}})
    with pytest.raises(CniError, match=r"^ipam\.ranges\[1\]\.subnet is 1, not a string"):
        keys.object("ipam").objects("ranges")[1].text("subnet")


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=6)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=8,
)


@given(json_values, st.sampled_from(sorted(QUESTIONS)))
def test_any_value_is_an_answer_or_code_7(value: Any, question: str) -> None:
    """Whatever JSON holds, a question gives an answer of its type or a CniError 7."""
    refused = None
    try:
        answer = QUESTIONS[question][0](Keys({"k": value}))
    except CniError as error:
        refused = error
    if refused is None:
        assert question != "integer" or answer is None or type(answer) is int
    else:
        assert refused.code == Code.INVALID_CONFIG
        assert "\n" not in refused.msg
