"""Containers of a lab that is built: made, attached, their commands started; and taken away again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from pycni.lab import attaching, removal
from pycni.lab.errors import LabError
from pycni.lab.progress import Progress
from pycni.lab.running import RunningLab
from pycni.lab.topology import AttachmentSpec, ContainerSpec, Lab

NOTE_S = 0.2  # a killed `up` forgets the containers of so long at most; `down` does not need them


class Containers:
    """Those of one lab; *want* is what it is to become."""

    def __init__(self, lab: RunningLab, want: Lab, progress: Progress) -> None:
        self.lab = lab
        self.want = want
        self.progress = progress

    def add(self, paths: Sequence[str]) -> None:
        """Make and attach containers (HOST/NAME), all hosts at a time, and start their commands."""
        specs = [self._container(path) for path in paths]
        jobs: dict[str, list[attaching.Job]] = {}
        by_path = {spec.path: spec for spec in specs}
        for spec in specs:
            jobs.setdefault(spec.host, []).append(attaching.job("add", spec.name, spec.attachments))
        failures: list[str] = []
        notes = _Notes(self.lab)

        def attached(host: str, answer: attaching.Answer) -> None:
            path = f"{host}/{answer['container']}"
            if "error" in answer:
                failures.append(f"{path}: {answer['error']}")
                return
            process = attaching.start_command(self.lab, by_path[path]) if by_path[path].command else None
            made = {
                "netns": attaching.netns_path(answer["container"]),
                "process": process and process.as_json(),
                "rootfs": by_path[path].rootfs,
                "attachments": answer["attachments"],
            }
            notes.add(host, answer["container"], made)
            addresses = (each for attachment in answer["attachments"] for each in attachment["addresses"])
            self.progress.done("container", path, answer["seconds"], " ".join(addresses))

        try:
            attaching.run_jobs(self.lab, jobs, attached)
        finally:
            notes.flush()
        if failures:
            raise LabError(f"{len(failures)} of {len(paths)} containers cannot be attached", failures)

    def remove(self, paths: Sequence[str]) -> None:
        """Detach as their networks were when they were attached, then let their namespaces go."""
        jobs: dict[str, list[attaching.Job]] = {}
        for path in paths:
            host, _, name = path.partition("/")
            running = self.lab.container(host, name)
            removal.end_container(self.lab, running)
            specs = [AttachmentSpec(network=each.network, ifname=each.ifname) for each in running.attachments]
            jobs.setdefault(host, []).append(attaching.job("del", name, specs))
        failures: list[str] = []
        notes = _Notes(self.lab)

        def detached(host: str, answer: attaching.Answer) -> None:
            path = f"{host}/{answer['container']}"
            if "error" in answer:
                failures.append(f"{path}: {answer['error']}")
            notes.add(host, answer["container"], None)
            self.progress.done("remove", path, answer["seconds"])

        try:
            attaching.run_jobs(self.lab, jobs, detached)
        finally:
            notes.flush()
        for failure in failures:  # what DEL could not give back is named, and does not keep the rest
            self.progress.say(f"warning: {failure}")

    def _container(self, path: str) -> ContainerSpec:
        host, _, name = path.partition("/")
        machine = self.want.machine(host)
        spec = None if machine is None else machine.container(name)
        assert spec is not None, path
        return spec


class _Notes:
    """What is to be written of containers into the state: some of them at a time, for it is one file."""

    def __init__(self, lab: RunningLab) -> None:
        self._lab = lab
        self._waiting: list[tuple[str, str, dict[str, Any] | None]] = []
        self._flushed = time.monotonic()

    def add(self, host: str, container: str, made: dict[str, Any] | None) -> None:
        """None: it is gone."""
        self._waiting.append((host, container, made))
        if time.monotonic() - self._flushed > NOTE_S:
            self.flush()

    def flush(self) -> None:
        with self._lab.changing() as state:
            for host, container, made in self._waiting:
                known = state["machines"][host]["containers"]
                known.pop(container, None)
                if made is not None:
                    known[container] = made
        self._waiting = []
        self._flushed = time.monotonic()
