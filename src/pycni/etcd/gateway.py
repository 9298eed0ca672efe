"""One endpoint by etcd's JSON gateway (/v3/…, on the client port): for the process that asks once or twice and ends."""

from __future__ import annotations

import binascii

from pycni.cni import json_text
from pycni.cni.errors import shown
from pycni.etcd.failure import AUTH_OFF, NO_USER, UNAUTHENTICATED, NoGateway, Rejected, Unreachable, sort_out
from pycni.etcd.http import Connection
from pycni.etcd.requests import METHODS, Answer, KeyValue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pycni.etcd.conf import Endpoint, EtcdConf
    from pycni.etcd.requests import Request

_NOT_FOUND = 404
_NO_NAMES = b"CommonName of client"  # "… sending a request against gateway will be ignored and not used as expected"


class Gateway:
    """One endpoint. *token*: of an earlier authentication, "" for none; the current one is `token`."""

    def __init__(self, endpoint: Endpoint, conf: EtcdConf, token: str = "") -> None:
        self.endpoint = endpoint
        self.token = token
        self._conf = conf
        self._connection: Connection | None = None
        self._open = False  # authentication is not switched on: a token would be refused

    def call(self, method: str, body: Request, timeout_s: float) -> Answer:
        """The answer; raises the failures of `pycni.etcd.failure`."""
        if self._conf.user and not self.token and not self._open:
            self.authenticate(timeout_s)
        raw = self._post(METHODS[method][0], body, timeout_s)
        return _answer(raw.get("result", raw))  # a stream's messages are each inside of "result"

    def authenticate(self, timeout_s: float) -> None:
        """Get a token for the user; etcd hashes the password for some 60 ms."""
        self.token, self._open = "", False
        who = {"name": self._conf.user, "password": self._conf.password}
        try:
            self.token = str(self._post("/v3/auth/authenticate", who, timeout_s).get("token", ""))
        except Rejected as refusal:
            if AUTH_OFF not in refusal.text:
                raise
            self._open = True

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _post(self, path: str, body: Request, timeout_s: float) -> dict[str, Any]:
        headers = {"Authorization": self.token} if self.token else {}
        sent = False
        try:
            if self._connection is None:
                tls = _tls_context(self._conf) if self.endpoint.tls else None
                self._connection = Connection(self.endpoint, tls)
            text_body = json_text.dumps(_plain(body)).encode()
            self._connection.connect(timeout_s)
            sent = True
            status, text = self._connection.post(path, text_body, headers, timeout_s)
        except OSError as exc:
            raise Unreachable(_reason(exc), sent=sent) from None
        try:
            answer = json_text.loads(text.decode())
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            if status == _NOT_FOUND or _NO_NAMES in text:
                raise NoGateway(f"{self.endpoint}: {text.decode(errors='replace').strip()}")
            raise Unreachable(f"HTTP {status}, and {shown(text[:60].decode(errors='replace'))} is no JSON object")
        if status != 200:
            raise _failure(status, answer, with_user=bool(self._conf.user))
        return answer


def _failure(status: int, answer: dict[str, Any], *, with_user: bool) -> Exception:
    code = answer.get("code", answer.get("grpc_code"))
    text = str(answer.get("error") or answer.get("message") or f"HTTP {status}")
    if NO_USER in text:
        return Rejected(UNAUTHENTICATED, text) if with_user else NoGateway(text)
    return sort_out(code if isinstance(code, int) else 0, text)


def _plain(value: Any) -> Any:
    """*value* as the JSON form of protobuf: bytes in base64."""
    if isinstance(value, bytes):
        return binascii.b2a_base64(value, newline=False).decode()
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value


def _answer(raw: dict[str, Any]) -> Answer:
    """64-bit numbers come as text, and what is zero or empty does not come at all."""
    parts = []
    for part in raw.get("responses", ()):
        ((_, inner),) = part.items()
        parts.append(_answer(inner))
    return Answer(
        revision=int(raw.get("header", {}).get("revision", 0)),
        found=tuple(map(_key_value, raw.get("kvs", ()))),
        count=int(raw.get("count", 0)),
        succeeded=bool(raw.get("succeeded", False)),
        parts=tuple(parts),
        lease=int(raw.get("ID", 0)),
        ttl_s=int(raw.get("TTL", 0)),
        version=str(raw.get("version", "")),
    )


def _key_value(raw: dict[str, Any]) -> KeyValue:
    return KeyValue(
        key=binascii.a2b_base64(raw["key"]).decode("utf-8", "replace"),
        value=binascii.a2b_base64(raw.get("value", "")),
        create_revision=int(raw.get("create_revision", 0)),
        mod_revision=int(raw.get("mod_revision", 0)),
        lease=int(raw.get("lease", 0)),
    )


def _tls_context(conf: EtcdConf) -> Any:
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(conf.ca)
        if conf.cert:
            context.load_cert_chain(conf.cert, conf.key)
    except OSError as exc:
        raise OSError(f"ca, cert or key: {exc.strerror or exc}") from None
    return context


def _reason(exc: OSError) -> str:
    return str(exc.strerror or exc or type(exc).__name__).lower()
