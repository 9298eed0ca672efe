"""`pycni completion`: scripts for bash, zsh and fish, made from the parser, so that they offer what it takes.

Names of networks, containers, hosts and labs the scripts ask `pycni` for, each time anew.
"""

from __future__ import annotations

import argparse
from argparse import Namespace

from pycni.cli.failure import OK
from pycni.cli.grammar import (
    DIRECTORY,
    FILE,
    aliases,
    helps,
    offered,
    options,
    paths,
    plain_help,
    positionals,
    several,
    subcommands,
)
from pycni.cli.parser import build_parser

# -- bash --------------------------------------------------------------------------------------------------------------

_BASH = """# bash completion for pycni
_pycni_value() {{  # sets kind to what option $2 of command $1 takes; fails where that takes nothing
    case "$1 $2" in
{values}
        *) return 1 ;;
    esac
}}
_pycni_place() {{  # sets kind to what stands at place $2 behind command $1
    case "$1#$2" in
{places}
        *) kind= ;;
    esac
}}
_pycni_words() {{  # sets kind to the commands and options behind command $1
    case "$1" in
{words}
    esac
}}
_pycni() {{
    local kind path='' place=0 at current=${{COMP_WORDS[COMP_CWORD]}}
    COMPREPLY=()
    for ((at = 1; at < COMP_CWORD; at++)); do
        _pycni_value "$path" "${{COMP_WORDS[at - 1]}}" && continue
        case "${{path:+$path/}}${{COMP_WORDS[at]}}" in
{deeper}
            *) [[ ${{COMP_WORDS[at]}} == -* ]] || ((place++)) ;;
        esac
    done
    if ! _pycni_value "$path" "${{COMP_WORDS[COMP_CWORD - 1]}}"; then
        _pycni_place "$path" "$place"
        [[ -z $kind || $current == -* ]] && _pycni_words "$path"
    fi
    case "$kind" in
        '' | file) ;;  # bash's own, by -o default
        directory) COMPREPLY=($(compgen -d -- "$current")) ;;
        =*) COMPREPLY=($(compgen -W "${{kind#=}}" -- "$current")) ;;
        *) COMPREPLY=($(compgen -W "$(pycni completion bash --names "$kind" 2>/dev/null)" -- "$current")) ;;
    esac
}}
complete -o default -F _pycni pycni
"""


def bash_completion(parser: argparse.ArgumentParser) -> str:
    """A bash script: a command is its words with slashes between them, a kind is `offered`, or = and the words."""
    values: dict[str, list[str]] = {}
    places, words, deeper = [], [], []
    for path, one in paths(parser):
        name = "/".join(path)
        for action in options(one):
            if action.nargs != 0:
                values.setdefault(_bash_kind(action), []).extend(f"'{name} {each}'" for each in action.option_strings)
        for place, action in enumerate(positionals(one)):
            number = "'*" if several(action) else f"{place}'"
            places.append(f"        '{name}#{number}) kind='{_bash_kind(action)}' ;;")
        offers = [*subcommands(one), *(each for action in options(one) for each in action.option_strings)]
        words.append(f"        '{name}') kind='={' '.join(offers)}' ;;")
        others = aliases(one)
        for child in subcommands(one):
            written = [*path, child]
            spelt = "|".join("/".join((*path, each)) for each in (child, *others.get(child, ())))
            deeper.append(f"            {spelt}) path={'/'.join(written)} place=0 ;;")
    return _BASH.format(
        values="\n".join(f"        {'|'.join(names)}) kind='{kind}' ;;" for kind, names in values.items()),
        places="\n".join(places),
        words="\n".join(words),
        deeper="\n".join(deeper),
    )


def _bash_kind(action: argparse.Action) -> str:
    return f"={' '.join(map(str, action.choices))}" if action.choices else offered(action)


# -- zsh ---------------------------------------------------------------------------------------------------------------

_ZSH = """#compdef pycni
_pycni_names() {{
  local -a names
  names=(${{(f)"$(pycni completion zsh --names $1 2>/dev/null)"}})
  compadd -a names
}}
_pycni() {{
  local context state line
  local -a commands
{body}
}}
_pycni "$@"
"""


def zsh_completion(parser: argparse.ArgumentParser) -> str:
    """A zsh function for #compdef, by `_arguments` for each command."""
    return _ZSH.format(body="\n".join(f"  {line}" for line in _zsh_level(parser)))


def _zsh_level(one: argparse.ArgumentParser) -> list[str]:
    """What completes the words behind a command."""
    arguments = ["_arguments \\"]
    arguments += [f"  {_zsh_option(action)} \\" for action in options(one)]
    arguments += [f"  '{_zsh_positional(action)}' \\" for action in positionals(one)]
    arguments += ["  && return"]
    if not subcommands(one):
        return arguments
    lines = ["if (( CURRENT == 2 )) && [[ $words[2] != -* ]]; then", "  commands=("]
    lines += [f"    '{name}:{_zsh_text(text)}'" for name, text in helps(one).items()]
    lines += ["  )", "  _describe command commands", "  return", "fi", "case $words[2] in"]
    others = aliases(one)
    for name, child in subcommands(one).items():
        lines += [f"  {'|'.join((name, *others.get(name, ())))})", "    shift words; (( CURRENT-- ))"]
        lines += [f"    {line}" for line in _zsh_level(child)]
        lines += ["    ;;"]
    return [*lines, "  *)", *(f"    {line}" for line in arguments), "    ;;", "esac"]


def _single_quoted(text: str) -> str:
    return text.replace("'", "'\\''")


def _zsh_text(text: str) -> str:
    escaped = text.replace(":", "\\:").replace("[", "\\[").replace("]", "\\]").replace("`", "")
    return _single_quoted(escaped)


def _zsh_option(action: argparse.Action) -> str:
    value = "" if action.nargs == 0 else f":value:{_zsh_value(action)}"
    return f"'*{action.option_strings[-1]}[{_zsh_text(plain_help(action))}]{value}'"


def _zsh_positional(action: argparse.Action) -> str:
    many = "*" if several(action) else (":" if action.nargs == "?" else "")
    return f"{many}:{action.dest}:{_zsh_value(action)}"


def _zsh_value(action: argparse.Action) -> str:
    if action.choices:
        return f"({' '.join(map(str, action.choices))})"
    kind = offered(action)
    return {"": "", FILE: "_files", DIRECTORY: "_directories"}.get(kind, f"{{_pycni_names {kind}}}")


# -- fish --------------------------------------------------------------------------------------------------------------


_FISH = """# fish completion for pycni
function __pycni_at  # the command's words begin with these
    set -l words (commandline -opc)[2..]
    set -l number (count $argv)
    test (count $words) -ge $number; and test "$words[1..$number]" = "$argv"
end
function __pycni_only  # the command's words are these
    set -l words (commandline -opc)[2..]
    test "$words" = "$argv"
end
complete -c pycni -f
"""


def fish_completion(parser: argparse.ArgumentParser) -> str:
    """fish `complete` commands, each with the words behind which it holds."""
    lines = []
    others = {(*path, name): each for path, one in paths(parser) for name, each in aliases(one).items()}
    for words, one in paths(parser):
        spelt = [words, *((*words[:-1], other) for other in others.get(words, ()))]
        at = "; or ".join(f"__pycni_at {' '.join(each)}" for each in spelt) if words else "__pycni_only"
        for name, text in helps(one).items():
            only = " ".join(("__pycni_only", *words))
            lines.append(f"complete -c pycni -n '{only}' -a {name} -d '{_fish_text(text)}'")
        for action in options(one):
            named = " ".join(f"-l {n[2:]}" if n.startswith("--") else f"-s {n[1:]}" for n in action.option_strings)
            takes = "" if action.nargs == 0 else f"{' -r' if offered(action) == FILE else ' -x'}{_fish_value(action)}"
            lines.append(f"complete -c pycni -n '{at}' {named}{takes} -d '{_fish_text(plain_help(action))}'")
        for action in positionals(one):
            value = _fish_value(action)
            lines += [f"complete -c pycni -n '{at}'{value}"] if value else []
    return _FISH + "\n".join(lines) + "\n"


def _fish_value(action: argparse.Action) -> str:
    if action.choices:
        return f" -a '{' '.join(map(str, action.choices))}'"
    kind = offered(action)
    special = {"": "", FILE: " -F", DIRECTORY: " -a '(__fish_complete_directories)'"}
    return special.get(kind, f" -a '(pycni completion fish --names {kind} 2>/dev/null)'")


def _fish_text(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")


def print_completion(given: Namespace) -> int:
    """Print the script of the wanted shell, or the names that it asks for."""
    if given.names:
        from pycni.cli.offers import names_of

        for name in names_of(given.names):
            print(name)
        return OK
    scripts = {"bash": bash_completion, "zsh": zsh_completion, "fish": fish_completion}
    print(scripts[given.shell](build_parser()), end="")
    return OK


HANDLERS = {"completion": print_completion}
