"""`pycni man`: the manual page, made from the parser, so that it says what that does."""

from __future__ import annotations

import argparse
from argparse import Namespace

from pycni import __version__
from pycni.cli.failure import OK
from pycni.cli.grammar import helps, options, paths, plain_help, positionals, subcommands
from pycni.cli.parser import EXIT_CODES, build_parser


def _roff(text: str) -> str:
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    # groff(7) reads Latin-1 unless somebody tells it otherwise, and stdout need not take UTF-8 either.
    escaped = "".join(char if char.isascii() else f"\\[u{ord(char):04X}]" for char in escaped)
    return "\\&" + escaped if escaped.startswith((".", "'")) else escaped


def manual_page(parser: argparse.ArgumentParser) -> str:
    """pycni(1) in man(7) macros."""
    lines = [
        f'.TH PYCNI 1 "" "pycni {__version__}" "User Commands"',
        ".SH NAME",
        f"pycni \\- {_roff(parser.description or '')}",
        ".SH SYNOPSIS",
        ".B pycni",
        ".RI [ options ]",
        ".I COMMAND",
        "\\&...",
        ".SH OPTIONS",
        *_arguments_of(parser),
        ".SH COMMANDS",
    ]
    for words, one in paths(parser):
        if words:
            lines += _manual_of(parser, words, one)
    lines += [".SH EXIT STATUS"]
    for code, text in EXIT_CODES:
        lines += [".TP", f".B {code}", _roff(text)]
    lines += [".SH ENVIRONMENT"]
    for name, text in _ENVIRONMENT:
        lines += [".TP", f".B {name}", _roff(text)]
    lines += [".SH FILES"]
    for name, text in _FILES:
        lines += [".TP", f".I {_roff(name)}", _roff(text)]
    return "\n".join(lines) + "\n"


def _manual_of(parser: argparse.ArgumentParser, words: tuple[str, ...], one: argparse.ArgumentParser) -> list[str]:
    above = parser
    for word in words[:-1]:
        above = subcommands(above)[word]
    arguments = " ".join(str(a.metavar or a.dest) for a in positionals(one))
    lines = [f".SS pycni {_roff(' '.join((*words, arguments)).strip())}", _roff(helps(above).get(words[-1], "")) + "."]
    return lines + _arguments_of(one)


def _arguments_of(one: argparse.ArgumentParser) -> list[str]:
    lines = []
    for action in positionals(one) + options(one):
        if "--help" in action.option_strings:
            continue
        name = ", ".join(action.option_strings) or str(action.metavar or action.dest)
        value = f" {action.metavar}" if action.option_strings and action.metavar else ""
        lines += [".TP", f".B {_roff(name + value)}", _roff(plain_help(action))]
    return lines


_ENVIRONMENT = (
    ("NETCONFPATH", "directory of network configurations, for --conf-dir"),
    ("CNI_PATH", "directories of plugins, separated by colons, for --plugin-dir"),
    ("PYCNI_SOCKET", "socket of the agent, for --socket and for the plugins"),
    ("PYCNI_TIMEOUT", "seconds that a plugin waits for the agent's answer (60)"),
    ("NO_COLOR", "if set, no colours"),
)
_FILES = (
    ("/etc/cni/net.d", "network configurations"),
    ("/opt/cni/bin", "plugin executables"),
    ("/var/lib/cni/results", "result cache, shared with runtimes that use libcni"),
    ("/etc/pycni/agent.toml", "configuration of the agent"),
    ("/run/pycni/agent.sock", "socket of the agent"),
    ("/var/lib/pycni", "attachments and leases, and the manifest of pycni install"),
)


def print_manual(given: Namespace) -> int:
    """Print the manual page."""
    print(manual_page(build_parser()), end="")
    return OK


HANDLERS = {"man": print_manual}
