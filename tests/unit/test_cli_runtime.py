"""The command line is a runtime: what plugins get, in which order, and what follows a failure."""

from __future__ import annotations

from pathlib import Path

import pytest

from pycni.cli.cache import read_cached
from pycni.cli.failure import Failure
from pycni.cli.networks import parse_list
from pycni.cli.runtime import Target
from tests.unit.scripted_plugins import RESULT, Bench, network

TARGET = Target(container_id="c1", netns="/run/netns/c1", ifname="eth0", args=(("IgnoreUnknown", "1"), ("A", "b")))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_add_hands_each_result_to_the_next_plugin(bench: Bench) -> None:
    """Name and version go to all, the previous result to the second, the last result to the caller and the cache."""
    final = {**RESULT, "dns": {"nameservers": ["10.1.0.1"]}}
    bench.answers("two", final)
    assert bench.runtime.add(network(), TARGET) == final
    assert bench.calls == ["ADD one", "ADD two"]
    assert bench.stdin(0) == {"type": "one", "key": 1, "name": "net", "cniVersion": "1.0.0"}
    assert bench.stdin(1)["prevResult"] == RESULT
    cached = read_cached(bench.cache, "net", "c1", "eth0")
    assert cached is not None
    assert (cached.result, cached.netns, cached.args) == (final, TARGET.netns, TARGET.args)
    assert parse_list(cached.config) == network()


def test_the_environment_is_the_protocols(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """All variables of ADD; those of our own environment do not leak through."""
    monkeypatch.setenv("CNI_ARGS", "stale=1")
    monkeypatch.setenv("CNI_LEAKED", "1")
    bench.runtime.add(network(), TARGET)
    assert bench.environ("ADD", "one") == {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": "/run/netns/c1",
        "CNI_IFNAME": "eth0",
        "CNI_ARGS": "IgnoreUnknown=1;A=b",
        "CNI_PATH": str(bench.root / "bin"),
    }


def test_capability_arguments_reach_only_who_declares_them(bench: Bench) -> None:
    """`true` in capabilities is a declaration, `false` and silence are not."""
    bench.runtime.add(network(), TARGET.replace(capability_args={"mac": "02:00:00:00:00:01", "ips": ["10.1.0.9"]}))
    assert "runtimeConfig" not in bench.stdin(0)
    assert bench.stdin(1)["runtimeConfig"] == {"mac": "02:00:00:00:00:01"}


def test_del_goes_backwards_with_the_result_and_forgets_it(bench: Bench) -> None:
    """Reverse order, prevResult for all, and the cache file is gone; a second DEL works without it."""
    bench.runtime.add(network(), TARGET)
    bench.runtime.delete(network(), TARGET)
    bench.runtime.delete(network(), TARGET)
    assert bench.calls[2:] == ["DEL two", "DEL one", "DEL two", "DEL one"]
    assert (bench.stdin(2)["prevResult"], bench.stdin(3)["prevResult"]) == (RESULT, RESULT)
    assert "prevResult" not in bench.stdin(4)
    assert read_cached(bench.cache, "net", "c1", "eth0") is None


def test_old_versions_get_no_previous_result_at_del(bench: Bench) -> None:
    """prevResult came to DEL with 0.4.0."""
    bench.answers("one", {"cniVersion": "0.3.1"})
    bench.answers("two", {"cniVersion": "0.3.1"})
    bench.runtime.add(network("0.3.1"), TARGET)
    bench.runtime.delete(network("0.3.1"), TARGET)
    assert "prevResult" not in bench.stdin(2)


def test_a_failed_del_stops_and_remembers(bench: Bench) -> None:
    """The first failure ends DEL, and the cache stays for the next try (libcni)."""
    bench.runtime.add(network(), TARGET)
    bench.fails("two", "DEL", {"code": 11, "msg": "later"})
    with pytest.raises(Failure, match="later"):
        bench.runtime.delete(network(), TARGET)
    assert bench.calls[2:] == ["DEL two"]
    assert read_cached(bench.cache, "net", "c1", "eth0") is not None


def test_a_failed_add_is_taken_back(bench: Bench) -> None:
    """DEL of the whole chain in reverse, even past a failing DEL; the error is the ADD's, with plugin and command."""
    bench.fails("two", "ADD", {"code": 101, "msg": "full", "details": "10.1.0.0/24"})
    bench.fails("two", "DEL", {"code": 999, "msg": "also broken"})
    with pytest.raises(Failure) as caught:
        bench.runtime.add(network(), TARGET)
    assert bench.calls == ["ADD one", "ADD two", "DEL two", "DEL one"]
    failure = caught.value
    assert (failure.code, failure.message, failure.details) == (101, "full", "10.1.0.0/24")
    facts = dict(failure.facts)
    assert facts["plugin"].endswith("two (plugin 2 of 2)")
    assert facts["command"] == "ADD"
    assert "two: also broken" in facts["undone"]
    assert read_cached(bench.cache, "net", "c1", "eth0") is None


def test_a_second_add_does_not_take_back_the_first(bench: Bench) -> None:
    """After "already attached" no DEL: it would remove the attachment that works."""
    bench.fails("one", "ADD", {"code": 105, "msg": "already"})
    with pytest.raises(Failure):
        bench.runtime.add(network(), TARGET)
    assert bench.calls == ["ADD one"]


def test_a_missing_plugin_is_found_before_anything_runs(bench: Bench) -> None:
    """Nothing is executed, and the directories are named."""
    (bench.root / "bin" / "two").unlink()
    with pytest.raises(Failure) as caught:
        bench.runtime.add(network(), TARGET)
    assert bench.calls == []
    assert str(bench.root / "bin") in caught.value.message


@pytest.mark.parametrize(
    ("answer", "ips"),
    [
        ({"ips": [{"address": "10.1.0.2/24"}]}, 1),
        ("null", 0),
        ("", 0),
        ({"cniVersion": "", "ips": []}, 0),
        ({"cniVersion": "0.2.0", "ip4": {"ip": "10.1.0.2/24"}}, 1),
        ({"cniVersion": "0.4.0", "ips": [{"version": "4", "address": "10.1.0.2/24"}]}, 1),
    ],
)
def test_results_are_brought_to_the_networks_version(bench: Bench, answer: object, ips: int) -> None:
    """Without a version, empty, or in another version: the next plugin sees the network's."""
    bench.answers("one", answer)
    bench.runtime.add(network(), TARGET)
    previous = bench.stdin(1)["prevResult"]
    assert previous["cniVersion"] == "1.0.0"
    assert len(previous.get("ips", [])) == ips


@pytest.mark.parametrize("answer", ["not JSON", "[1]", {"cniVersion": "9.9.9"}])
def test_an_answer_that_is_no_result_fails_the_add(bench: Bench, answer: object) -> None:
    """It is an error of that plugin, and ADD is taken back."""
    bench.answers("one", answer)
    with pytest.raises(Failure):
        bench.runtime.add(network(), TARGET)
    assert bench.calls == ["ADD one", "DEL two", "DEL one"]


def test_check_asks_in_the_order_of_add(bench: Bench) -> None:
    """With the cached result for every plugin."""
    bench.runtime.add(network(), TARGET)
    assert bench.runtime.check(network(), TARGET)
    assert bench.calls[2:] == ["CHECK one", "CHECK two"]
    assert bench.stdin(2)["prevResult"] == RESULT


def test_check_may_be_switched_off_and_needs_a_version_and_a_memory(bench: Bench) -> None:
    """disableCheck asks nobody; below 0.4.0 and for unknown attachments there is no CHECK."""
    assert not bench.runtime.check(network(disableCheck=True), TARGET)
    with pytest.raises(Failure, match="has no CHECK"):
        bench.runtime.check(network("0.3.1"), TARGET)
    with pytest.raises(Failure, match="nothing is known"):
        bench.runtime.check(network(), TARGET)
    assert bench.calls == []


def test_gc_asks_every_plugin_with_the_valid_attachments(bench: Bench) -> None:
    """Both spellings of the key; a failing plugin does not spare the next; below 1.1.0 nobody is asked."""
    bench.fails("one", "GC", {"code": 999, "msg": "no"})
    (failure,) = bench.runtime.collect(network("1.1.0"), [("c1", "eth0")])
    assert failure.message == "no"
    assert bench.calls == ["GC one", "GC two"]
    living = [{"containerID": "c1", "ifname": "eth0"}]
    assert bench.stdin(0)["cni.dev/valid-attachments"] == bench.stdin(0)["cni.dev/attachments"] == living
    assert bench.runtime.collect(network("1.0.0"), []) == []
    assert len(bench.calls) == 2


def test_status_stops_at_the_first_that_is_not_ready(bench: Bench) -> None:
    """Its error is the answer (libcni keeps the code clean)."""
    bench.fails("one", "STATUS", {"code": 50, "msg": "not ready"})
    ((kind, _, failure),) = bench.runtime.status(network("1.1.0"))
    assert kind == "one"
    assert failure is not None
    assert failure.code == 50
    assert bench.calls == ["STATUS one"]
