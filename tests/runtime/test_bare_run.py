"""What a runtime learns that starts an executable without arguments, environment and input."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from netns_fixtures import Host
from pycni.cli.install import DROP_IN_NAMES

SEMVER = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")
#: Nomad places no job in bridge mode on a node where one of these is older ("semver >= 0.4.0").
NOMAD_NEEDS = (0, 4, 0)
OF_NOMAD = ("bridge", "host-local", "loopback", "portmap", "firewall")
#: nerdctl wants this firewall for networks without traffic between containers (ingressPolicy "isolated").
NERDCTL_NEEDS = (1, 7, 1)
NOMAD_DEADLINE_S = 3.0


@pytest.mark.needs("root")
@pytest.mark.parametrize("name", DROP_IN_NAMES)
def test_bare_run_names_plugin_and_version(host: Host, bin_dir: Path, name: str) -> None:
    """Within Nomad's deadline, on stderr as nerdctl reads it, with exit code 0."""
    done = host.run([bin_dir / name], env={}, timeout=NOMAD_DEADLINE_S)
    assert re.match(r"CNI \S+ plugin v\d+\.\d+\.\d+", done.stderr)
    assert done.stdout == ""


@pytest.mark.needs("root")
@pytest.mark.parametrize("name", OF_NOMAD)
def test_bare_run_names_a_version_that_nomad_accepts(host: Host, bin_dir: Path, name: str) -> None:
    """The first word that is a version, which is the one Nomad takes (client/fingerprint/plugins_cni.go)."""
    words = host.run([bin_dir / name], env={}).stderr.split()
    first = next(match for word in words if (match := SEMVER.fullmatch(word)))
    assert tuple(map(int, first.groups())) >= NOMAD_NEEDS


@pytest.mark.needs("root")
def test_bare_run_of_firewall_is_new_enough_for_nerdctl(host: Host, bin_dir: Path) -> None:
    """nerdctl reads "CNI firewall plugin vX.Y.Z" from stderr, and keeps containers apart only from 1.7.1 on."""
    found = re.match(r"CNI firewall plugin v(\d+)\.(\d+)\.(\d+)", host.run([bin_dir / "firewall"], env={}).stderr)
    assert found is not None
    assert tuple(map(int, found.groups())) >= NERDCTL_NEEDS
