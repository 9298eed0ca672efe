"""Import the `etcd3` package on a current protobuf.

etcd3 0.12.0 ships classes generated in 2020, which protobuf refuses since 4.0 ("Descriptors cannot be created
directly"); its client code is fine. Each generated module holds its file descriptor as a literal. Those are read as
text, never run, put into a descriptor pool of their own (others have a rpc.proto and a kv.proto, too), and the
classes built from them stand in for `etcd3.etcdrpc`. So nothing generated is kept here that protobuf binds to one
version of its own, and any protobuf from 5.29 on will do.
"""

from __future__ import annotations

import ast
import importlib.machinery
import re
import sys
import threading
import types
from pathlib import Path
from typing import Any

from pycni.etcd.failure import NotInstalled

_LITERAL = re.compile(r"serialized_pb=(?:_b\()?(b?'(?:[^'\\]|\\.)*')")
_GENERATED = ("kv", "auth", "rpc")  # in the order in which they import each other
_once = threading.Lock()


def load() -> Any:
    """The package `etcd3`, with `etcd3.etcdrpc`; NotInstalled, which is CniError 7, where it is not there."""
    with _once:
        try:
            if "etcd3.etcdrpc" not in sys.modules:
                sys.modules["etcd3.etcdrpc"] = _stand_in()
            import etcd3
        except ImportError as exc:
            sys.modules.pop("etcd3.etcdrpc", None)
            raise NotInstalled(str(exc.name or exc)) from exc
    return etcd3


def _stand_in() -> types.ModuleType:
    literals = _literals()
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    from google.protobuf.internal import enum_type_wrapper

    pool = descriptor_pool.DescriptorPool()
    module = types.ModuleType("etcd3.etcdrpc")
    module.__path__ = []
    files = [descriptor_pb2.FileDescriptorProto.FromString(literal) for literal in literals]
    for each in files:
        _add_progress_request(each)
        pool.Add(each)
    for file in [pool.FindFileByName(each.name) for each in files]:
        for name, message in file.message_types_by_name.items():
            setattr(module, name, message_factory.GetMessageClass(message))
        for name, enum in file.enum_types_by_name.items():
            setattr(module, name, enum_type_wrapper.EnumTypeWrapper(enum))
            for value in enum.values:
                setattr(module, value.name, value.number)
        for name, service in file.services_by_name.items():
            setattr(module, f"{name}Stub", _stub(f"{name}Stub", service, message_factory.GetMessageClass))
    return module


def _add_progress_request(file: Any) -> None:
    """The package's definitions are of etcd 3.3. Since 3.4 a watch can be asked for a sign of life:
    `message WatchProgressRequest {}`, number 3 of WatchRequest.request_union (rpc.proto)."""
    for message in file.message_type:
        if message.name == "WatchRequest" and "progress_request" not in [field.name for field in message.field]:
            asked = message.field.add(name="progress_request", number=3, label=1, type=11, oneof_index=0)  # a message
            asked.type_name = f".{file.package}.WatchProgressRequest"
            file.message_type.add(name="WatchProgressRequest")
            return


def _stub(name: str, service: Any, class_of: Any) -> type:
    def __init__(self: Any, channel: Any) -> None:
        for method in service.methods:
            here = "stream" if method.client_streaming else "unary"
            there = "stream" if method.server_streaming else "unary"
            call = getattr(channel, f"{here}_{there}")(
                f"/{service.full_name}/{method.name}",
                request_serializer=class_of(method.input_type).SerializeToString,
                response_deserializer=class_of(method.output_type).FromString,
            )
            setattr(self, method.name, call)

    return type(name, (), {"__init__": __init__})


def _literals() -> list[bytes]:
    spec = importlib.machinery.PathFinder.find_spec("etcd3")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("No module named 'etcd3'", name="etcd3")
    folder = Path(spec.origin).parent / "etcdrpc"
    found = []
    for name in _GENERATED:
        # Python 2 wrote bytes as text: latin-1 keeps each character the byte it was.
        literal = _LITERAL.search((folder / f"{name}_pb2.py").read_text(encoding="latin-1"))
        if literal is None:
            raise ImportError(f"etcd3 {name}_pb2.py holds no descriptor: pycni needs etcd3==0.12.0", name="etcd3")
        text = literal[1]
        found.append(ast.literal_eval(text if text.startswith("b") else f"b{text}"))
    return found
