"""The command line is a runtime: what plugins get, in which order, and what follows a failure.

The plugins here are shell scripts that write down what they got and answer what the test put beside them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pycni.cli import main
from pycni.cli.cache import CachedAttachment, cache_file, read_cached, write_cached
from pycni.cli.failure import Failure
from pycni.cli.networks import NetworkList, parse_list
from pycni.cli.runtime import Runtime, Target

SCRIPT = """#!/bin/sh
me={root}/{name}
at=$(ls {root}/log | wc -l)
cat >{root}/log/$(printf %03d $at)-$CNI_COMMAND-{name}
env >{root}/env-$CNI_COMMAND-{name}
if [ -f $me.fails-$CNI_COMMAND ]; then cat $me.fails-$CNI_COMMAND; exit 1; fi
if [ $CNI_COMMAND = ADD ] && [ -f $me.result ]; then cat $me.result; fi
if [ $CNI_COMMAND = VERSION ]; then echo '{{"cniVersion": "1.1.0", "supportedVersions": ["0.4.0", "1.0.0"]}}'; fi
"""
RESULT = {"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.2/24"}]}
TARGET = Target(container_id="c1", netns="/run/netns/c1", ifname="eth0", args=(("IgnoreUnknown", "1"), ("A", "b")))


class Bench:
    """Two scripted plugins, `one` and `two`, and a runtime over them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "log").mkdir()
        (root / "bin").mkdir()
        for name in ("one", "two"):
            script = root / "bin" / name
            script.write_text(SCRIPT.format(root=root, name=name))
            script.chmod(0o755)
            self.answers(name, RESULT)
        self.cache = str(root / "cache")
        self.runtime = Runtime([str(root / "bin")], self.cache)

    def answers(self, name: str, result: object) -> None:
        (self.root / f"{name}.result").write_text(result if isinstance(result, str) else json.dumps(result))

    def fails(self, name: str, command: str, error: object) -> None:
        (self.root / f"{name}.fails-{command}").write_text(json.dumps(error))

    @property
    def calls(self) -> list[str]:
        """ "ADD one" and so on, in order."""
        return [" ".join(path.name.split("-")[1:]) for path in sorted((self.root / "log").iterdir())]

    def stdin(self, number: int) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(sorted((self.root / "log").iterdir())[number].read_text())
        return found

    def environ(self, command: str, name: str) -> dict[str, str]:
        lines = (self.root / f"env-{command}-{name}").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if line.startswith("CNI_"))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def network(version: str = "1.0.0", **more: Any) -> NetworkList:
    plugins = [{"type": "one", "key": 1}, {"type": "two", "capabilities": {"mac": True, "ips": False}}]
    return parse_list(json.dumps({"name": "net", "cniVersion": version, "plugins": plugins, **more}).encode())


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
    assert failure.as_json() == {"code": 101, "msg": "full", "details": "10.1.0.0/24"}
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


# -- the whole command line --------------------------------------------------------------------------------------------


@pytest.fixture
def command(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs `pycni ARGS` over the bench, with a network `net` in the configuration directory."""
    monkeypatch.setenv("CNI_PATH", str(bench.root / "bin"))
    monkeypatch.setenv("NETCONFPATH", str(tmp_path / "net.d"))
    (tmp_path / "net.d").mkdir()

    def run(*argv: str, version: str = "1.0.0") -> int:
        (tmp_path / "net.d" / "net.conflist").write_bytes(network(version).raw)
        return main([argv[0], "net", *argv[1:], "--cache-dir", bench.cache])

    return run


def test_a_damaged_cache_does_not_stop_del(bench: Bench, command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """It is said, DEL goes without a result, and the file is gone."""
    path = Path(cache_file(bench.cache, "net", "netns-x", "eth0"))
    path.parent.mkdir(parents=True)
    path.write_text("{")
    assert command("del", "/gone/ns", "--container-id", "netns-x") == 0
    assert "is damaged" in capsys.readouterr().err
    assert bench.calls == ["DEL two", "DEL one"]
    assert bench.environ("DEL", "one")["CNI_NETNS"] == ""
    assert not path.exists()


def test_del_finds_what_another_runtime_attached(bench: Bench, command: Any) -> None:
    """By namespace path, by id or by pod name; its arguments and its configuration are used, not today's."""
    old = parse_list(
        json.dumps({"name": "net", "cniVersion": "1.0.0", "plugins": [{"type": "one", "old": 1}]}).encode()
    )
    args = (("K8S_POD_NAME", "web-0"),)
    for word in ("/run/netns/cni-1", "f00dcafe", "web-0", "f00d"):
        cached = CachedAttachment(
            network="net", container_id="f00dcafe", ifname="eth0", config=old.raw, netns="/run/netns/cni-1", args=args
        )
        write_cached(bench.cache, cached)
        assert command("del", word) == 0
        assert bench.calls[-1] == "DEL one"
        assert bench.stdin(-1)["old"] == 1
        assert bench.environ("DEL", "one")["CNI_ARGS"] == "K8S_POD_NAME=web-0"
    assert len(bench.calls) == 4


def test_an_unknown_container_is_not_found(bench: Bench, command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 3, what was tried, and nothing is run; with --container-id it is a DEL like any other."""
    assert command("del", "nobody") == 3
    assert "/run/netns/nobody" in capsys.readouterr().err
    assert bench.calls == []
    assert command("del", "nobody", "--container-id", "nobody") == 0


def test_errors_as_json_are_cni_errors(bench: Bench, command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """--json prints the plugin's error object on stdout and nothing else there."""
    bench.fails("one", "ADD", {"code": 101, "msg": "full"})
    assert command("add", "/proc/self/ns/net", "--ifname", "nosuch0", "--json") == 1
    assert json.loads(capsys.readouterr().out) == {"code": 101, "msg": "full"}


def test_an_error_for_people_says_who_where_and_what_next(
    bench: Bench, command: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Plugin, command, code in words, details, what was undone, and the next step."""
    bench.fails("two", "ADD", {"code": 101, "msg": "full\x1b[2J", "details": "all taken"})
    assert command("add", "/proc/self/ns/net", "--ifname", "nosuch0") == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error: full\\x1b[2J\n")
    for line in ("101 (addresses exhausted)", "all taken", "plugin 2 of 2", "ADD", "DEL was run", "pycni ipam usage"):
        assert line in shown


def test_an_undeclared_capability_is_a_warning(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """It goes to nobody, which a person should know."""
    assert command("add", "/proc/self/ns/net", "--ifname", "nosuch0", "--port", "1:2") == 0
    assert 'declares the capability "portMappings"' in capsys.readouterr().err


def test_the_result_for_machines_is_the_plugins(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """--json prints the last result as it is."""
    assert command("add", "/proc/self/ns/net", "--ifname", "nosuch0", "--json") == 0
    assert json.loads(capsys.readouterr().out) == RESULT


def test_a_second_add_is_refused_before_any_plugin(
    bench: Bench, command: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """The cache knows the first; nothing is run, and the way out is named."""
    assert command("add", "/proc/self/ns/net", "--container-id", "c9", "--ifname", "nosuch0") == 0
    assert command("add", "/proc/self/ns/net", "--container-id", "c9", "--ifname", "nosuch0") == 1
    assert "pycni del net c9" in capsys.readouterr().err
    assert len(bench.calls) == 2


def test_gc_deletes_what_has_no_namespace(bench: Bench, command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """DEL for the stale one, the living one and the kept one go to GC as valid; --dry-run does nothing."""
    for container, netns in (("dead", "/gone"), ("alive", "/proc/self/ns/net"), ("kept", "/gone/too")):
        write_cached(
            bench.cache,
            CachedAttachment(network="net", container_id=container, ifname="eth0", config=b"", netns=netns),
        )
    assert command("gc", "--keep", "kept", "--dry-run", version="1.1.0") == 0
    assert bench.calls == []
    assert command("gc", "--keep", "kept", version="1.1.0") == 0
    assert bench.calls == ["DEL two", "DEL one", "GC one", "GC two"]
    assert bench.environ("DEL", "one")["CNI_CONTAINERID"] == "dead"
    valid = {one["containerID"] for one in bench.stdin(2)["cni.dev/valid-attachments"]}
    assert valid == {"alive", "kept"}
    assert "1 attachment removed, 2 alive" in capsys.readouterr().out


def test_version_tells_who_cannot_speak_the_networks(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A version that a plugin lacks is a failure with the newest common one as the way out."""
    assert command("version") == 0
    assert command("version", version="1.1.0") == 1
    assert "the newest that all speak is 1.0.0" in capsys.readouterr().err
