"""Which versions are spoken, and what each allows."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.cni.errors import CniError, Code
from pycni.cni.versions import SUPPORTED, at_least, check_command, check_version, version_text


@pytest.mark.parametrize("version", SUPPORTED)
def test_supported_versions_pass_unchanged(version: str) -> None:
    """All versions from 0.1.0 to 1.1.0 are spoken."""
    assert check_version(version) == version


def test_config_without_version_is_the_oldest() -> None:
    """The key came with 0.2.0, so a config without it is 0.1.0; a plugin that does not speak that refuses it."""
    assert check_version("") == "0.1.0"
    with pytest.raises(CniError) as refused:
        check_version("", supported=("0.4.0", "1.0.0"))
    assert refused.value.details == 'config is "0.1.0", plugin supports ["0.4.0" "1.0.0"]'


@given(st.one_of(st.text(), st.sampled_from(["1.0", "v1.0.0", "1.0.0 ", "01.0.0", "1.2.0", "0.3.2", "9.9.9"])))
def test_any_other_version_is_code_1(version: str) -> None:
    """Only an exact match counts, as in the reference, with its message and details."""
    if version in ("", *SUPPORTED):
        return
    with pytest.raises(CniError) as refused:
        check_version(version)
    assert (refused.value.code, refused.value.msg) == (Code.VERSION, "incompatible CNI versions")
    assert refused.value.details.endswith('plugin supports ["0.1.0" "0.2.0" "0.3.0" "0.3.1" "0.4.0" "1.0.0" "1.1.0"]')


def test_versions_are_in_order() -> None:
    """at_least() orders versions by their numbers."""
    for at, version in enumerate(SUPPORTED):
        assert [at_least(version, floor) for floor in SUPPORTED] == [other <= at for other in range(len(SUPPORTED))]
    assert at_least("0.10.0", "0.9.0")


@pytest.mark.parametrize(
    ("command", "since"),
    [("ADD", "0.1.0"), ("DEL", "0.1.0"), ("CHECK", "0.4.0"), ("GC", "1.1.0"), ("STATUS", "1.1.0")],
)
@pytest.mark.parametrize("version", SUPPORTED)
def test_commands_need_the_version_that_brought_them(command: str, since: str, version: str) -> None:
    """CHECK, GC and STATUS of an older config are code 1, saying which version has them."""
    if at_least(version, since):
        check_command(command, version)
        return
    with pytest.raises(CniError, match=f"config version does not allow {command}") as refused:
        check_command(command, version)
    assert refused.value.code == Code.VERSION
    assert since in refused.value.details


def test_version_answer_is_one_compact_line() -> None:
    """The answer to VERSION is the reference's, byte for byte."""
    assert version_text() == (
        '{"cniVersion":"1.1.0","supportedVersions":["0.1.0","0.2.0","0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}\n'
    )
    assert json.loads(version_text(("0.4.0", "1.0.0")))["supportedVersions"] == ["0.4.0", "1.0.0"]
