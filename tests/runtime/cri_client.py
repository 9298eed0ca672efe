"""A client of the Kubernetes Container Runtime Interface, as small as the tests need: gRPC with hand-made messages.

Field numbers are those of k8s.io/cri-api, pkg/apis/runtime/v1/api.proto; the wire format is protobuf's
(protobuf.dev/programming-guides/encoding).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import grpc

from netns_fixtures import wait_until
from tests.runtime.lists import Port

CALL_DEADLINE_S = 60.0
PROTOCOLS = {"tcp": 0, "udp": 1, "sctp": 2}


class CriClient:
    """The calls of the RuntimeService that a kubelet makes for a pod's network; as a context manager it is closed."""

    def __init__(self, socket: Path) -> None:
        self._channel = grpc.insecure_channel(f"unix://{socket}")

    def __enter__(self) -> CriClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self._channel.close()

    def _call(self, method: str, request: Mapping[int, object], service: str = "RuntimeService") -> Fields:
        send = self._channel.unary_unary(
            f"/runtime.v1.{service}/{method}", request_serializer=encode, response_deserializer=Fields
        )
        answer: Fields = send(request, timeout=CALL_DEADLINE_S, wait_for_ready=True)
        return answer

    def version(self) -> tuple[str, str]:
        """Name and version of the runtime."""
        answer = self._call("Version", {})
        return answer.text(2), answer.text(3)

    def conditions(self) -> dict[str, bool]:
        """RuntimeReady and NetworkReady."""
        status = self._call("Status", {}).message(1)
        return {condition.text(1): bool(condition.number(2)) for condition in status.messages(1)}

    def await_image(self, name: str) -> None:
        """Until the runtime knows an image that was imported beside it."""
        wait_until(lambda: self._call("ImageStatus", {1: {1: name}}, "ImageService").messages(1), 30.0, name)

    def run_pod(self, name: str, *, uid: str, namespace: str = "default", ports: Sequence[Port] = ()) -> str:
        """RunPodSandbox; the sandbox's id. `RpcError` where the runtime (or the network) refuses."""
        metadata = {1: name, 2: uid, 3: namespace}
        mapped = [{1: PROTOCOLS[each.proto], 2: each.container, 3: each.host, 4: each.host_ip} for each in ports]
        config = {1: metadata, 2: name, 4: {1: ["192.0.2.53"]}, 5: mapped, 6: {1: "app", 2: name}, 8: {}}
        return self._call("RunPodSandbox", {1: config}).text(1)

    def pod_ready_and_addresses(self, pod: str) -> tuple[bool, list[str]]:
        """PodSandboxStatus: whether SANDBOX_READY, and `ip` with the additional ones."""
        status = self._call("PodSandboxStatus", {1: pod}).message(1)
        network = status.message(5)
        addresses = [network.text(1), *(each.text(1) for each in network.messages(2))]
        return status.number(3) == 0, [address for address in addresses if address]

    def stop_pod(self, pod: str) -> None:
        self._call("StopPodSandbox", {1: pod})

    def remove_pod(self, pod: str) -> None:
        self._call("RemovePodSandbox", {1: pod})


RpcError = grpc.RpcError


def encode(message: Mapping[int, object]) -> bytes:
    """A message from field numbers to values; a list is a repeated field."""
    return b"".join(
        _field(number, each)
        for number, value in message.items()
        for each in (value if isinstance(value, list) else [value])
    )


def _field(number: int, value: object) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    if isinstance(value, Mapping):
        content = encode(value)
    else:
        assert isinstance(value, str)
        content = value.encode()
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


class Fields:
    """A received message by field numbers; absent fields are empty, as in proto3."""

    def __init__(self, data: bytes) -> None:
        self._values: dict[int, list[int | bytes]] = {}
        at = 0
        while at < len(data):
            key, at = _read_varint(data, at)
            value: int | bytes
            if key & 7 == 0:
                value, at = _read_varint(data, at)
            else:
                length, at = {1: (8, at), 5: (4, at)}.get(key & 7) or _read_varint(data, at)
                value = data[at : at + length]
                at += length
            self._values.setdefault(key >> 3, []).append(value)

    def number(self, field: int) -> int:
        return next((value for value in self._values.get(field, ()) if isinstance(value, int)), 0)

    def text(self, field: int) -> str:
        return next((value.decode() for value in self._values.get(field, ()) if isinstance(value, bytes)), "")

    def messages(self, field: int) -> list[Fields]:
        return [Fields(value) for value in self._values.get(field, ()) if isinstance(value, bytes)]

    def message(self, field: int) -> Fields:
        return next(iter(self.messages(field)), Fields(b""))


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
