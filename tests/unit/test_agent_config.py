"""agent.toml: every key, every limit, and a refusal that says which."""

from __future__ import annotations

from pathlib import Path

import pytest

from pycni.agent.config import AgentConfig, load_config, metrics_address, parse_config
from pycni.cni.errors import CniError, Code

EVERY_KEY = """
socket = "/run/x.sock"
readers = "wheel"
workers = 2
connections = 16
request_deadline_s = 5
reconcile_s = 0.5
grace_s = 0
keep_rules_s = 0
proxy_connections = 1000
proxy_clients = 1000
proxy_idle_s = 3600
node_ttl_s = 10
dead_after_s = 60
metrics = "[::1]:9123"
log_level = "debug"
"""


def refused(text: str) -> CniError:
    with pytest.raises(CniError) as caught:
        parse_config(text, "agent.toml")
    assert caught.value.code == Code.INVALID_CONFIG
    assert "agent.toml" in caught.value.msg
    return caught.value


def test_an_empty_file_and_a_missing_one_are_the_defaults(tmp_path: Path) -> None:
    """Unless the file was asked for by name."""
    assert parse_config("") == AgentConfig() == load_config(str(tmp_path / "none"), required=False)
    with pytest.raises(CniError, match="does not exist"):
        load_config(str(tmp_path / "none"), required=True)


def test_every_key_is_read() -> None:
    """None of the example's values is a default, and the example has every key."""
    config = parse_config(EVERY_KEY).as_dict()
    defaults = AgentConfig().as_dict()
    assert all(config[key] != default for key, default in defaults.items())


def test_the_manual_explains_every_key_with_its_default() -> None:
    """docs/agent.md has a row for each."""
    manual = (Path(__file__).parents[2] / "docs/agent.md").read_text()
    for key, default in AgentConfig().as_dict().items():
        shown = f"`{default:g}`" if isinstance(default, int | float) else f'`"{default}"`'
        assert f"| `{key}` | {shown} |" in manual


@pytest.mark.parametrize(
    ("key", "low", "high"),
    [
        ("workers", 1, 64),
        ("connections", 4, 8192),
        ("request_deadline_s", 0.1, 3600),
        ("reconcile_s", 0, 86400),
        ("grace_s", 0, 604800),
        ("keep_rules_s", 0, 3600),
        ("proxy_connections", 1, 1 << 20),
        ("proxy_clients", 1, 1 << 20),
        ("proxy_idle_s", 0, 604800),
        ("node_ttl_s", 2, 3600),
        ("dead_after_s", 0, 604800),
    ],
)
def test_limits_are_inclusive_and_named(key: str, low: float, high: float) -> None:
    """Both ends are allowed, what lies beyond is not, nor is a number that is none."""
    for value in (low, high):
        assert parse_config(f"{key} = {value}").as_dict()[key] == value
    step = 0.01 if isinstance(low, float) else 1
    for value in (low - step, high + 1):
        assert f"{key} is {value!r}, not in {low:g}..{high:g}" in refused(f"{key} = {value!r}").msg
    if key.endswith("_s"):
        refused(f"{key} = nan")
        refused(f"{key} = inf")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("workers = 2.0", "workers is 2.0, not a whole number"),
        ("workers = true", "workers is True"),
        ('grace_s = "5"', "grace_s is '5', not a number"),
        ("readers = 5", "readers is 5, not a text"),
        ("sockets = 1", "unknown key 'sockets'"),
        ("= 5", "is not TOML"),
        ('log_level = "loud"', "log_level is 'loud', not one of debug, info, warning, error"),
        ('socket = "run/x"', "socket is 'run/x'"),
        ('socket = ""', "socket is ''"),
        ('socket = "/x\\u0000y"', "socket is"),
        (f'socket = "/{"x" * 107}"', "at most 107 bytes"),
        (f'socket = "/{"ä" * 54}"', "at most 107 bytes"),
        ("[metrics]", "metrics is {}"),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, words: str) -> None:
    """The key and its value are in the message."""
    assert words in refused(text).msg


@pytest.mark.parametrize(
    "text", ["9123", ":9123", "127.0.0.1", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "::1:9123", "[::1:5", "x:1"]
)
def test_metrics_want_an_address_and_a_port(text: str) -> None:
    """A port alone would be open to everybody, a name could become any address."""
    assert f"metrics is {text!r}" in refused(f'metrics = "{text}"').msg


def test_an_address_of_either_family_is_one() -> None:
    """IPv6 in brackets, as everywhere."""
    assert metrics_address("127.0.0.1:80") == ("127.0.0.1", 80)
    assert metrics_address("[fe80::1]:65535") == ("fe80::1", 65535)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """And one that cannot be read keeps its errno."""
    (tmp_path / "agent.toml").write_bytes(b"readers = '\xff'")
    with pytest.raises(CniError, match="is not UTF-8"):
        load_config(str(tmp_path / "agent.toml"), required=False)
    with pytest.raises(IsADirectoryError):
        load_config(str(tmp_path), required=False)
