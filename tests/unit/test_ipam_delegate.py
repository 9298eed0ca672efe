"""Asking whatever IPAM plugin the config names: found, run and understood as the specification says."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from pycni.cni.env import Call
from pycni.cni.errors import CniError, Code
from pycni.cni.result import Result
from pycni.host import delegate as host_delegate
from pycni.ipam import delegate
from pycni.store import Store, open_store
from tests.unit.ipam_calls import netconf

RESULT = '{"cniVersion": "0.2.0", "ip4": {"ip": "10.5.0.7/24", "routes": [{"dst": "0.0.0.0/0"}]}}'


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(str(tmp_path / "state" / "pycni.db")) as opened:
        yield opened


def plugin_file(tmp_path: Path, script: str, name: str = "foreign") -> Path:
    """An executable that notes its commands in `<name>.log` and then does *script*."""
    tmp_path.mkdir(exist_ok=True)
    file = tmp_path / name
    file.write_text(f'#!/bin/sh\necho "$CNI_COMMAND" >> {file}.log\n{script}\n')
    file.chmod(0o755)
    return file


def commands(plugin: Path) -> list[str]:
    return Path(f"{plugin}.log").read_text().split()


def ask(
    verb: str, store: Store, *path: Path, name: str = "foreign", caller: Path | str = "", **top: Any
) -> Result | None:
    environ = (("CNI_COMMAND", verb), ("CNI_IFNAME", "eth0"), ("OTHER", "kept"))
    directories = tuple(map(str, path))
    call = Call(verb, container_id="c", ifname="eth0", path=directories, environ=environ, executable=str(caller))
    return delegate.ask(verb, call, netconf({"type": name, "subnet": "10.9.0.0/24"}, command=verb, **top), store)


def failure(verb: str, store: Store, *path: Path, name: str = "foreign", caller: Path | str = "") -> CniError:
    with pytest.raises(CniError) as caught:
        ask(verb, store, *path, name=name, caller=caller)
    return caught.value


def test_a_result_of_an_older_version_is_understood(tmp_path: Path, store: Store) -> None:
    """Without gateway, without interface."""
    plugin_file(tmp_path, f"echo '{RESULT}'")
    result = ask("ADD", store, tmp_path)
    assert result is not None
    assert [(str(each.address), each.gateway, each.interface) for each in result.ips] == [("10.5.0.7/24", None, None)]
    assert [str(each.dst) for each in result.routes] == ["0.0.0.0/0"]


@pytest.mark.parametrize("output", ["null", "", '{"cniVersion": "1.0.0", "routes": [{"dst": "10.0.0.0/8"}]}'])
def test_a_result_may_lack_addresses(tmp_path: Path, store: Store, output: str) -> None:
    """Empty output is an empty result; routes alone are legal: the caller decides whether that is enough."""
    plugin_file(tmp_path, f"echo '{output}'")
    result = ask("ADD", store, tmp_path)
    assert result is not None
    assert result.ips == ()


def test_the_plugin_gets_our_stdin_and_environment(tmp_path: Path, store: Store) -> None:
    """The whole config, also one longer than a pipe holds, and every variable; only CNI_COMMAND is the verb's."""
    plugin = plugin_file(tmp_path, 'cat > "$0.stdin"; env > "$0.env"')
    conf = netconf({"type": "foreign"}, command="DEL", padding="x" * 200_000)
    environ = (("CNI_COMMAND", "ADD"), ("CNI_ARGS", "A=1"), ("OTHER", "kept"))
    delegate.ask("DEL", Call("ADD", path=(str(tmp_path),), environ=environ), conf, store)
    assert Path(f"{plugin}.stdin").read_bytes() == conf.raw
    assert set(Path(f"{plugin}.env").read_text().split()) >= {"CNI_COMMAND=DEL", "CNI_ARGS=A=1", "OTHER=kept"}


@pytest.mark.parametrize("verb", ["DEL", "CHECK", "GC", "STATUS"])
def test_every_command_is_passed_on(tmp_path: Path, store: Store, verb: str) -> None:
    """Its success is None, its error comes back with code, message and details."""
    plugin = plugin_file(tmp_path, "")
    assert ask(verb, store, tmp_path) is None
    assert commands(plugin) == [verb]
    plugin_file(tmp_path, """echo '{"code": 51, "msg": "no", "details": "since"}'; exit 1""")
    error = failure(verb, store, tmp_path)
    assert (error.code, error.msg, error.details) == (51, "no", "since")


def test_its_stderr_is_ours(tmp_path: Path, store: Store, capfd: pytest.CaptureFixture[str]) -> None:
    """A log of the plugin reaches the runtime's log."""
    plugin_file(tmp_path, "echo words >&2")
    ask("DEL", store, tmp_path)
    assert capfd.readouterr().err == "words\n"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo rubbish", "answered ADD with something that is not JSON"),
        ("echo rubbish; exit 1", "answered ADD with something that is not JSON"),
        ("exit 3", "failed at ADD without a CNI error (exit status 3)"),
        ("kill -9 $$", "failed at ADD without a CNI error (signal 9)"),
        ("""echo '{"code": "x", "msg": 7}'; exit 1""", "failed at ADD without a CNI error (exit status 1)"),
        ("echo '[1]'", "result of"),
        ("""echo '{"cniVersion": "9.9"}'""", "incompatible CNI versions"),
    ],
)
def test_an_answer_that_is_none_is_a_clear_error_and_taken_back(
    tmp_path: Path, store: Store, script: str, words: str
) -> None:
    """Whatever ADD's failure: DEL follows (specification, plugin delegation)."""
    plugin = plugin_file(tmp_path, script)
    assert words in failure("ADD", store, tmp_path).msg
    assert commands(plugin) == ["ADD", "DEL"]


def test_an_error_of_the_delegate_keeps_its_code(tmp_path: Path, store: Store) -> None:
    """Also when it printed no details; and its DEL runs."""
    plugin = plugin_file(tmp_path, """[ $CNI_COMMAND = DEL ] || { echo '{"code": 11, "msg": "later"}'; exit 1; }""")
    error = failure("ADD", store, tmp_path)
    assert (error.code, error.msg, error.details) == (11, "later", "")
    assert commands(plugin) == ["ADD", "DEL"]


def test_the_first_regular_file_of_the_path_counts(tmp_path: Path, store: Store) -> None:
    """Directories and dangling links are passed over, links are followed."""
    first, second, third, fourth = (tmp_path / name for name in ("1", "2", "3", "4"))
    (first / "foreign").mkdir(parents=True)
    second.mkdir()
    (second / "foreign").symlink_to(tmp_path / "nothing")
    real = plugin_file(tmp_path, "", name="real")
    third.mkdir()
    (third / "foreign").symlink_to(real)
    other = plugin_file(fourth, "")
    ask("DEL", store, tmp_path / "0", first, second, third, fourth)
    assert commands(real) == ["DEL"]
    assert not Path(f"{other}.log").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [("absent", 'failed to find plugin "absent" in path [{0} /nonexistent]'), ("", "no plugin name provided")],
)
def test_a_plugin_that_is_nowhere(tmp_path: Path, store: Store, name: str, message: str) -> None:
    """The sentence Go's libcni has for it, code 7."""
    error = failure("ADD", store, tmp_path, Path("/nonexistent"), name=name)
    assert (error.code, error.msg) == (Code.INVALID_CONFIG, message.format(tmp_path))


def test_our_own_file_is_answered_in_this_process(tmp_path: Path, store: Store) -> None:
    """A hard link of the executable that was called, whatever prefix its name has; even inside a transaction."""
    ourselves = plugin_file(tmp_path, "echo rubbish", name="bridge")
    for name in ("host-local", "pycni-ipam", "static", "buildkit-cni-host-local"):
        os.link(ourselves, tmp_path / name)
    with store.transaction():
        for name in ("host-local", "pycni-ipam", "buildkit-cni-host-local"):
            result = ask("ADD", store, tmp_path, name=name, caller=ourselves)
            assert result is not None
            ask("DEL", store, tmp_path, name=name, caller=ourselves)
            assert str(result.ips[0].address) == "10.9.0.2/24"
    assert ask("ADD", store, tmp_path, name="static", caller=ourselves) == Result()
    assert not Path(f"{ourselves}.log").exists()


def test_the_same_name_of_another_file_is_another_s(tmp_path: Path, store: Store) -> None:
    """Its answer counts; and it is not run inside a transaction, which it might wait for."""
    theirs = plugin_file(tmp_path, f"echo '{RESULT}'", name="host-local")
    caller = plugin_file(tmp_path, "", name="bridge")
    result = ask("ADD", store, tmp_path, name="host-local", caller=caller)
    assert result is not None
    assert str(result.ips[0].address) == "10.5.0.7/24"
    with store.transaction():
        assert failure("ADD", store, tmp_path, name="host-local", caller=caller).code == Code.INTERNAL
    assert commands(theirs) == ["ADD"]


def test_a_file_still_being_written_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel refuses to run it (ETXTBSY) while an installer has it open; after some time that is the error."""
    plugin = plugin_file(tmp_path, "echo null")
    pauses: list[float] = []
    with plugin.open("ab") as installer:
        monkeypatch.setattr("pycni.host.delegate.time.sleep", pauses.append)
        with pytest.raises(OSError, match="busy") as caught:
            host_delegate.run_plugin(str(plugin), "ADD", (), b"{}")
        assert caught.value.errno == errno.ETXTBSY
        assert sum(pauses) > 1
        monkeypatch.setattr("pycni.host.delegate.time.sleep", lambda _: _close(installer))
        assert host_delegate.run_plugin(str(plugin), "ADD", (), b"{}") is None


def _close(file: IO[bytes]) -> None:
    file.close()
