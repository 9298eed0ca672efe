"""The parser, and what is made from it: completion, manual page, help."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path

import pytest

from pycni.cli import main
from pycni.cli.completion import bash_completion, fish_completion, zsh_completion
from pycni.cli.grammar import options, paths
from pycni.cli.manual import manual_page
from pycni.cli.parser import build_parser
from pycni.lab import state

Make = Callable[[ArgumentParser], str]
ROOT = Path(__file__).parents[2]
#: What the scripts ask `pycni` for, answered by a function of the shell.
ASKED = {
    "bash": 'pycni() { echo "$4-names"; }\n',
    "fish": "function pycni; echo $argv[4]-names; end\n",
}
SHELLS: dict[str, Make] = {"bash": bash_completion, "zsh": zsh_completion, "fish": fish_completion}


@pytest.mark.parametrize(("shell", "make"), SHELLS.items())
def test_completion_is_a_script_its_shell_takes(shell: str, make: Make) -> None:
    """`SHELL -n` parses it."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    script = make(build_parser())
    done = subprocess.run([shell, "-n"], input=script, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("make", SHELLS.values())
def test_completion_knows_every_command_and_option(make: Make) -> None:
    """Nothing of the grammar is left out."""
    script = make(build_parser())
    for words, parser in paths(build_parser()):
        assert all(word in script for word in words)
        assert all(name.lstrip("-") in script for action in options(parser) for name in action.option_strings[-1:])


@pytest.mark.parametrize(
    ("line", "wanted", "unwanted"),
    [
        ("pycni ", "add", "--ifname"),
        ("pycni a", "add", "del"),
        ("pycni add --if", "--ifname", "--json"),
        ("pycni ipam ", "release", "add"),
        ("pycni ipam release --y", "--yes", "--json"),
        ("pycni add x y --json --por", "--port", "add"),
        ("pycni completion ", "fish", "add"),
        ("pycni install --launcher ", "standalone", "--json"),
        ("pycni list --network ", "network-names", "--json"),
        ("pycni add ", "network-names", "namespace-names"),
        ("pycni add --json x ", "namespace-names", "network-names"),
        ("pycni add --cache-dir y x ", "namespace-names", "network-names"),
        ("pycni rm x ", "container-names", "network-names"),
        ("pycni lab ", "ps", "attach"),
        ("pycni lab ls ", "lab-names", "--json"),
        ("pycni lab ls -", "--json", "lab-names"),
        ("pycni lab loss 20% ", "host-names", "20%"),
        ("pycni lab cut h1 h2 ", "host-names", "--lab"),
        ("pycni lab exec ", "place-names", "host-names"),
        ("pycni lab kill ", "etcd", "host-names"),
    ],
)
def test_bash_completes(line: str, wanted: str, unwanted: str) -> None:
    """The script, run by bash on a half-typed line, offers what comes next."""
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    words = line.split(" ")
    quoted = " ".join(f"'{word}'" for word in words)
    ask = f"COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _pycni; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    script = bash_completion(build_parser()) + ASKED["bash"] + ask
    done = subprocess.run(["bash", "--norc"], input=script, text=True, capture_output=True, check=True)
    assert wanted in done.stdout.split()
    assert unwanted not in done.stdout.split()


@pytest.mark.parametrize(
    ("line", "wanted", "unwanted"),
    [
        ("pycni ", "add", "ps"),
        ("pycni lab ", "cut", "add"),
        ("pycni lab cut ", "host-names", "cut"),
        ("pycni lab ls ", "lab-names", "host-names"),
        ("pycni ls -", "--network", "--ifname"),
        ("pycni list --network ", "network-names", "--json"),
        ("pycni install --launcher ", "standalone", "--json"),
        ("pycni lab save --output ", "Makefile", "--json"),
    ],
)
def test_fish_completes(line: str, wanted: str, unwanted: str) -> None:
    """The script, asked by fish itself."""
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed")
    script = fish_completion(build_parser()) + ASKED["fish"] + f"complete -C '{line}'\n"
    done = subprocess.run(
        ["fish", "-N"], input=script, text=True, capture_output=True, check=True, timeout=60, cwd=ROOT
    )
    offered = [each.partition("\t")[0] for each in done.stdout.splitlines()]
    assert wanted in offered and unwanted not in offered, done.stderr


def test_names_are_those_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One a line; nothing where nothing is, and no error."""
    monkeypatch.setenv("NETCONFPATH", str(tmp_path))
    monkeypatch.setattr(state, "BASE", str(tmp_path / "labs"))
    for name in ("b", "a"):
        (tmp_path / f"{name}.conf").write_text(json.dumps({"cniVersion": "1.0.0", "name": name, "type": "x"}))
    assert main(["completion", "bash", "--names", "network"]) == 0
    assert capsys.readouterr().out == "a\nb\n"
    for kind in ("lab", "host", "place"):
        assert main(["completion", "zsh", "--names", kind]) == 0
    assert capsys.readouterr() == ("", "")


def test_the_manual_page_is_clean_roff() -> None:
    """man finds nothing to warn about."""
    if shutil.which("man") is None or shutil.which("groff") is None:
        pytest.skip("man or groff is not installed")
    command = ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-"]
    done = subprocess.run(command, input=manual_page(build_parser()), text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "pycni ipam release ADDRESS" in re.sub(".\b", "", done.stdout)  # bold is a letter typed twice


def test_the_manual_page_needs_no_locale() -> None:
    """Other characters than ASCII are roff's escapes: groff shows them, and a Latin-1 stdout takes the page."""
    page = manual_page(build_parser())
    assert page.isascii()
    if shutil.which("groff"):
        command = ["groff", "-man", "-Tutf8", "-ww"]
        done = subprocess.run(
            command, input=page.encode(), capture_output=True, env={**os.environ, "LC_ALL": "C"}, check=False
        )
        assert done.stderr == b""
        assert "…" in done.stdout.decode()


def test_the_manual_page_has_every_command_and_option() -> None:
    """It is made from the parser, so nothing can be missing."""
    page = manual_page(build_parser()).replace("\\-", "-")
    for words, parser in paths(build_parser()):
        assert f"pycni {' '.join(words)}".strip() in page
        assert all(name in page for action in options(parser) for name in action.option_strings if "-h" not in name)


@pytest.mark.parametrize(("argv", "hint"), [(["ad"], "'add'"), (["lst"], "'list'"), (["ipam", "relase"], "'release'")])
def test_a_mistyped_command_gets_the_near_one(argv: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, and the word that was probably meant."""
    assert main(argv) == 2
    assert f"did you mean {hint}?" in capsys.readouterr().err


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    """--help of each works and says more than the usage."""
    for words, _ in paths(build_parser()):
        assert main([*words, "--help"]) == 0
        assert "show this help" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["rm", "--help"], "del"),
        (["ls", "--help"], "list"),
        (["lab", "ls", "--help"], "lab ps"),
        (["lab", "list", "--help"], "lab ps"),
        (["help", "ls"], "list"),
        (["help", "lab", "exec"], "lab exec"),
        (["help"], "[-h]"),
    ],
)
def test_words_that_everybody_tries(argv: list[str], command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`ls`, `rm` and `help COMMAND` mean what they mean elsewhere."""
    assert main(argv) == 0
    assert capsys.readouterr().out.startswith(f"usage: pycni {command} ")


def test_each_command_is_told_once() -> None:
    """By one name, whatever others it has; and none that only pycni itself runs."""
    words = [" ".join(words) for words, _ in paths(build_parser())]
    assert not {"ls", "rm", "lab ls", "lab list", "lab attach"} & set(words)
    assert len({id(parser) for _, parser in paths(build_parser())}) == len(words)


def test_an_unknown_command_is_told_those_that_people_run(capsys: pytest.CaptureFixture[str]) -> None:
    """Not what a lab runs on its hosts, and no name twice."""
    assert main(["lab", "xyzzy"]) == 2
    said = capsys.readouterr().err
    assert "up, down, ps, inspect" in said and "attach" not in said


def test_add_takes_a_namespace_and_del_a_container_too(capsys: pytest.CaptureFixture[str]) -> None:
    """As docs/cli.md says."""
    for verb, wanted in (("add", "NETNS\n"), ("del", "NETNS|CONTAINER\n"), ("check", "NETNS|CONTAINER\n")):
        assert main([verb, "--help"]) == 0
        assert f"NETWORK {wanted}" in capsys.readouterr().out


def test_no_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    """The help goes to stderr, so that a pipe gets nothing."""
    assert main([]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Exit codes" in shown.err


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    """Both ways to ask."""
    assert main(["--version"]) == 0
    assert main(["version"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert second.startswith(first)
