"""Completion scripts and the manual page, both made from the parser, so that they say what it does."""

from __future__ import annotations

import argparse
from argparse import Namespace

from pycni import __version__
from pycni.cli.failure import OK
from pycni.cli.parser import EXIT_CODES, build_parser


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The commands below *parser*, by name; without aliases, and without those that only pycni itself runs."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return {choice.dest: action.choices[choice.dest] for choice in action._choices_actions}
    return {}


def helps(parser: argparse.ArgumentParser) -> dict[str, str]:
    """The one-line help of each command below *parser*."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return {choice.dest: choice.help or "" for choice in action._choices_actions}
    return {}


def options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """The options of *parser*, without its positional arguments."""
    return [action for action in parser._actions if action.option_strings]


def positionals(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """The positional arguments of *parser*, without its commands."""
    return [a for a in parser._actions if not a.option_strings and not isinstance(a, argparse._SubParsersAction)]


def paths(
    parser: argparse.ArgumentParser, prefix: tuple[str, ...] = ()
) -> list[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    """Every command with its words: ((), parser), (("add",), …), (("ipam", "list"), …)."""
    found = [(prefix, parser)]
    for name, child in subcommands(parser).items():
        found += paths(child, (*prefix, name))
    return found


# -- completion --------------------------------------------------------------------------------------------------------


def _words(parser: argparse.ArgumentParser) -> list[str]:
    choices = [str(choice) for action in positionals(parser) for choice in action.choices or ()]
    return [*subcommands(parser), *choices, *(name for action in options(parser) for name in action.option_strings)]


def _takes_directory(action: argparse.Action) -> bool:
    return action.metavar == "DIR"


def bash_completion(parser: argparse.ArgumentParser) -> str:
    """A bash script: commands, options, and directories after options that take one."""
    known = paths(parser)
    deeper = "|".join("/".join(words) for words, _ in known if words)
    lists = "\n".join(f"        '{'/'.join(words)}') list='{' '.join(_words(one))}' ;;" for words, one in known)
    named = {
        name
        for _, one in known
        for action in options(one)
        if _takes_directory(action)
        for name in action.option_strings
    }
    return f"""# bash completion for pycni
_pycni() {{
    local word path='' list='' at current=${{COMP_WORDS[COMP_CWORD]}}
    COMPREPLY=()
    for ((at = 1; at < COMP_CWORD; at++)); do
        word=${{path:+$path/}}${{COMP_WORDS[at]}}
        case "$word" in
            {deeper}) path=$word ;;
        esac
    done
    case "${{COMP_WORDS[COMP_CWORD - 1]}}" in
        {"|".join(sorted(named))}) COMPREPLY=($(compgen -d -- "$current")); return ;;
    esac
    case "$path" in
{lists}
    esac
    COMPREPLY=($(compgen -W "$list" -- "$current"))
}}
complete -o default -F _pycni pycni
"""


def _single_quoted(text: str) -> str:
    return text.replace("'", "'\\''")


def zsh_completion(parser: argparse.ArgumentParser) -> str:
    """A zsh function for #compdef, by `_arguments` for each command."""
    lines = ["#compdef pycni", "_pycni() {", "  local context state line", "  local -a commands", "  commands=("]
    lines += [f"    '{name}:{_zsh_text(text)}'" for name, text in helps(parser).items()]
    lines += ["  )", "  if (( CURRENT == 2 )); then", "    _describe command commands", "    return", "  fi"]
    lines += ["  case $words[2] in"]
    for name, one in subcommands(parser).items():
        lines += [f"    {name})", "      shift words; (( CURRENT-- ))", "      _arguments \\"]
        if subcommands(one):
            lines.append(f"        '::command:({' '.join(subcommands(one))})' \\")
        nested = [action for child in subcommands(one).values() for action in options(child)]
        known = {action.option_strings[-1]: action for action in [*nested, *options(one)]}
        lines += [f"        {_zsh_option(action)} \\" for action in known.values()]
        lines += [f"        '{_zsh_positional(action)}' \\" for action in positionals(one)]
        lines += ["        && return", "      ;;"]
    lines += ["  esac", "}", '_pycni "$@"', ""]
    return "\n".join(lines)


def _zsh_text(text: str) -> str:
    escaped = text.replace(":", "\\:").replace("[", "\\[").replace("]", "\\]").replace("`", "")
    return _single_quoted(escaped)


def _zsh_option(action: argparse.Action) -> str:
    name = action.option_strings[-1]
    value = "" if action.nargs == 0 else (":directory:_directories" if _takes_directory(action) else ":value:")
    return f"'*{name}[{_zsh_text(_plain_help(action))}]{value}'"


def _zsh_positional(action: argparse.Action) -> str:
    choices = f"({' '.join(map(str, action.choices))})" if action.choices else "_files"
    return f":{action.dest}:{choices}"


def fish_completion(parser: argparse.ArgumentParser) -> str:
    """fish `complete` commands."""
    lines = ["# fish completion for pycni", "complete -c pycni -f"]
    top = " ".join(subcommands(parser))
    for words, one in paths(parser):
        seen = (
            " and ".join(f"__fish_seen_subcommand_from {word}" for word in words)
            or f"not __fish_seen_subcommand_from {top}"
        )
        for name, text in helps(one).items():
            lines.append(f"complete -c pycni -n '{seen}' -a {name} -d '{_fish_text(text)}'")
        for action in options(one):
            takes = (
                ""
                if action.nargs == 0
                else (" -r -a '(__fish_complete_directories)'" if _takes_directory(action) else " -r")
            )
            long = action.option_strings[-1].removeprefix("--")
            lines.append(f"complete -c pycni -n '{seen}' -l {long}{takes} -d '{_fish_text(_plain_help(action))}'")
        for action in positionals(one):
            if action.choices:
                lines.append(f"complete -c pycni -n '{seen}' -a '{' '.join(map(str, action.choices))}'")
    return "\n".join(lines) + "\n"


def _fish_text(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")


def _plain_help(action: argparse.Action) -> str:
    return (action.help or "").replace("%%", "%")


# -- the manual page ---------------------------------------------------------------------------------------------------


def _roff(text: str) -> str:
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
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
        lines += [".TP", f".B {_roff(name + value)}", _roff(_plain_help(action))]
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


def print_completion(given: Namespace) -> int:
    """Print the script of the wanted shell."""
    scripts = {"bash": bash_completion, "zsh": zsh_completion, "fish": fish_completion}
    print(scripts[given.shell](build_parser()), end="")
    return OK


def print_manual(given: Namespace) -> int:
    """Print the manual page."""
    print(manual_page(build_parser()), end="")
    return OK


HANDLERS = {"completion": print_completion, "man": print_manual}
