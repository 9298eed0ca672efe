"""`pycni add|del|check|gc|status|version` over scripted plugins: which attachment is meant, and what is answered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pycni.cli import main
from pycni.cli.cache import CachedAttachment, cache_file, write_cached
from pycni.cli.networks import parse_list
from tests.unit.scripted_plugins import RESULT, Bench, network


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def command(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs `pycni ARGS` over the bench, with a network `net` in the configuration directory."""
    monkeypatch.setenv("CNI_PATH", str(bench.root / "bin"))
    monkeypatch.setenv("NETCONFPATH", str(tmp_path / "net.d"))
    (tmp_path / "net.d").mkdir()

    def run(*argv: str, version: str = "1.0.0", **more: Any) -> int:
        (tmp_path / "net.d" / "net.conflist").write_bytes(network(version, **more).raw)
        return main([argv[0], "net", *argv[1:], "--cache-dir", bench.cache])

    return run


def remember(bench: Bench, container: str, netns: str, **more: Any) -> None:
    """As if a runtime had attached it to `net`."""
    fields = {"network": "net", "ifname": "eth0", "config": b"", **more}
    write_cached(bench.cache, CachedAttachment(container_id=container, netns=netns, **fields))


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
    args = (("K8S_POD_NAMESPACE", "prod"), ("K8S_POD_NAME", "web-0"))
    for word in ("/run/netns/cni-1", "f00dcafe", "web-0", "prod/web-0", "f00d"):
        cached = CachedAttachment(
            network="net", container_id="f00dcafe", ifname="eth0", config=old.raw, netns="/run/netns/cni-1", args=args
        )
        write_cached(bench.cache, cached)
        assert command("del", word) == 0
        assert bench.calls[-1] == "DEL one"
        assert bench.stdin(-1)["old"] == 1
        assert bench.environ("DEL", "one")["CNI_ARGS"] == "K8S_POD_NAMESPACE=prod;K8S_POD_NAME=web-0"
    assert len(bench.calls) == 5


def test_an_unknown_container_is_not_checked(bench: Bench, command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 3, what was tried, and nothing is run."""
    assert command("check", "nobody") == 3
    assert "/run/netns/nobody" in capsys.readouterr().err
    assert bench.calls == []


def test_an_unknown_container_is_deleted_already(
    bench: Bench, command: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is run, and it is said; with --container-id it is a DEL like any other."""
    assert command("del", "nobody") == 0
    assert capsys.readouterr().out.startswith("nothing to delete: no namespace or container called 'nobody'")
    assert command("del", "nobody", "--json") == 0
    told = {"network": "net", "containerID": "nobody", "ifname": None, "namespaceGone": True, "deleted": False}
    assert json.loads(capsys.readouterr().out) == told
    assert bench.calls == []
    assert command("del", "nobody", "--container-id", "nobody") == 0
    assert bench.calls == ["DEL two", "DEL one"]


def test_a_mistyped_container_is_nothing_to_delete_and_a_hint(
    bench: Bench, command: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """A known name like it is named; what can be no container's id is refused."""
    remember(bench, "webserver", "/gone")
    assert command("del", "websrver") == 0
    assert "did you mean webserver?" in capsys.readouterr().err
    assert command("del", "no id") == 3
    assert bench.calls == []


def test_del_twice_when_the_namespace_is_gone(bench: Bench, command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """By its name both times, the second time with nothing left that knows it."""
    remember(bench, "web2", "/run/netns/web2")
    assert command("del", "web2") == 0
    assert command("del", "web2") == 0
    assert bench.calls == ["DEL two", "DEL one"]
    first, second = capsys.readouterr().out.splitlines()
    assert "(its namespace was gone before)" in first and "nothing to delete" in second


def test_del_and_check_answer_with_an_object(bench: Bench, command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Which attachment it was, and what came of it."""
    remember(bench, "c9", "/proc/self/ns/net", result=RESULT)
    named = {"network": "net", "containerID": "c9", "ifname": "eth0"}
    assert command("check", "c9", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {**named, "checked": True, "ok": True}
    assert command("del", "c9", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {**named, "namespaceGone": False, "deleted": True}


@pytest.mark.parametrize(("version", "status"), [("1.0.0", "installed"), ("1.1.0", "ready")])
def test_status_answers_with_an_object(
    bench: Bench, command: Any, capsys: pytest.CaptureFixture[str], version: str, status: str
) -> None:
    """What its table shows; below 1.1.0 nobody is asked."""
    assert command("status", "--json", version=version) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["network"], told["status"]) == ("net", status)
    assert [(each["type"], each["status"]) for each in told["plugins"]] == [("one", status), ("two", status)]
    assert told["plugins"][0]["path"] == str(bench.root / "bin" / "one")


def test_errors_as_json_are_cni_errors(bench: Bench, command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """--json prints the plugin's error object on stdout and nothing else there."""
    bench.fails("one", "ADD", {"code": 101, "msg": "full"})
    assert command("add", "/proc/self/ns/net", "--ifname", "nosuch0", "--json") == 1
    error = json.loads(capsys.readouterr().out)
    assert (error["code"], error["msg"], error["facts"]["command"]) == (101, "full", "ADD")
    assert "pycni ipam usage" in error["nextStep"]


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
        remember(bench, container, netns)
    assert command("gc", "--keep", "kept", "--dry-run", version="1.1.0") == 0
    assert bench.calls == []
    assert command("gc", "--keep", "kept", version="1.1.0") == 0
    assert bench.calls == ["DEL two", "DEL one", "GC one", "GC two"]
    assert bench.environ("DEL", "one")["CNI_CONTAINERID"] == "dead"
    valid = {one["containerID"] for one in bench.stdin(2)["cni.dev/valid-attachments"]}
    assert valid == {"alive", "kept"}
    assert "1 attachment removed, 2 alive" in capsys.readouterr().out


@pytest.mark.parametrize("keep", ["kpet", "kept/eth1"])
def test_gc_refuses_to_keep_what_it_does_not_know(
    bench: Bench, command: Any, capsys: pytest.CaptureFixture[str], keep: str
) -> None:
    """A living container's id mistyped: nothing is removed, and those that are known are named."""
    remember(bench, "kept", "/gone")
    assert command("gc", "--keep", keep, version="1.1.0") == 3
    assert "kept/eth0" in capsys.readouterr().err
    assert bench.calls == []


def test_gc_of_a_network_that_wants_none_is_an_object_too(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """disableGC: nothing was done, which is what JSON says."""
    assert command("gc", "--json", version="1.1.0", disableGC=True) == 0
    assert json.loads(capsys.readouterr().out) == {"removed": [], "valid": [], "errors": []}


def test_inspect_shows_one_interface_or_network(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """--ifname and --network choose; where they leave nothing, it is said what there is."""
    remember(bench, "c9", "/gone")
    remember(bench, "c9", "/gone", ifname="net1")

    def inspect(*argv: str) -> int:
        return main(["inspect", *argv, "--cache-dir", bench.cache])

    assert inspect("c9", "--ifname", "net1", "--json") == 0
    assert [one["ifname"] for one in json.loads(capsys.readouterr().out)] == ["net1"]
    for words, message in (
        (["--ifname", "net7"], "'c9' has no interface net7\n"),
        (["--network", "nosuch"], "'c9' has no interface on network nosuch\n"),
    ):
        assert inspect("c9", *words) == 3
        shown = capsys.readouterr().err
        assert message in shown and "c9/net1 on network net" in shown


def test_version_tells_who_cannot_speak_the_networks(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A version that a plugin lacks is a failure with the newest common one as the way out."""
    assert command("version") == 0
    assert command("version", version="1.1.0") == 1
    assert "the newest that all speak is 1.0.0" in capsys.readouterr().err
