"""Where and how etcd is reached: the `etcd` object of a config as a value. Pure; refusals are CniError 7."""

from __future__ import annotations

from pycni.cni import json_text
from pycni.cni.errors import CniError, Code, shown
from pycni.cni.keys import Keys
from pycni.cni.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEFAULT_PORT = 2379
DEFAULT_PREFIX = "/pycni"
_CONNECTION = ("endpoints", "ca", "cert", "key", "user", "password")
_PREFIX_CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-/"


class Endpoint(Value):
    """One member's client address. host: a name or an address, IPv6 without brackets."""

    host: str
    port: int
    tls: bool

    @property
    def target(self) -> str:
        """host:port, as gRPC, HTTP and people write it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.target}"


class EtcdConf(Value):
    """endpoints: at least one. prefix: of the cluster's keys, "/pycni", no slash at its end. ca, cert and key are paths
    of PEM files; user and password are for etcd's own authentication."""

    endpoints: tuple[Endpoint, ...]
    prefix: str = DEFAULT_PREFIX
    ca: str = ""
    cert: str = ""
    key: str = ""
    user: str = ""
    password: str = ""

    @classmethod
    def parse(cls, keys: Keys) -> EtcdConf:
        """The checked `etcd` object; docs/etcd.md has every key."""
        endpoints = tuple(_endpoint(keys, at, text) for at, text in enumerate(keys.texts("endpoints")))
        if not endpoints:
            raise keys.wrong("endpoints", 'is missing: give a list as ["https://10.0.0.1:2379"]')
        conf = cls(
            endpoints=endpoints,
            prefix=_prefix(keys),
            **{name: keys.text(name) for name in ("ca", "cert", "key", "user", "password")},
        )
        _check_security(keys, conf)
        return conf

    @classmethod
    def parse_text(cls, connection: str) -> EtcdConf:
        """The checked `etcd` object that is kept as JSON text."""
        return cls.parse(Keys(json_text.loads(connection), "etcd"))


def renewed(then: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """The `etcd` object *then* with the members, certificates and password of *now*; *then* as it is where *now* is of
    another cluster, or cannot be used."""
    try:
        if EtcdConf.parse(Keys(now, "etcd")).prefix != _prefix(Keys(then, "etcd")):
            return then
    except CniError:
        return then
    kept = {key: value for key, value in then.items() if key.lower() not in _CONNECTION}
    return {**kept, **{key: value for key, value in now.items() if key.lower() in _CONNECTION}}


def _endpoint(keys: Keys, at: int, text: str) -> Endpoint:
    scheme, found, rest = text.partition("://")
    if not found or scheme not in ("http", "https"):
        raise keys.wrong(f"endpoints[{at}]", f"is {shown(text)}: it begins with http:// or https://")
    rest = rest.rstrip("/")
    host, port = rest, ""
    if rest.startswith("["):
        host, _, behind = rest[1:].partition("]")
        port = behind[1:] if behind.startswith(":") else behind and "?"
    elif rest.count(":") == 1:
        host, _, port = rest.partition(":")
    if not host or "/" in rest or "@" in rest or (":" in host and not rest.startswith("[")):
        raise keys.wrong(
            f"endpoints[{at}]", f"is {shown(text)}, not as https://10.0.0.1:2379 or https://[fd00::1]:2379"
        )
    if port and not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
        raise keys.wrong(f"endpoints[{at}]", f"is {shown(text)}: the port is a number in 1..65535")
    return Endpoint(host, int(port) if port else DEFAULT_PORT, scheme == "https")


def _prefix(keys: Keys) -> str:
    text = keys.text("prefix") or DEFAULT_PREFIX
    prefix = text.rstrip("/")
    if not prefix.startswith("/") or prefix.strip(_PREFIX_CHARACTERS) or "//" in prefix or len(prefix) > 200:
        raise keys.wrong("prefix", f'is {shown(text)}: one as "/pycni/lab", of letters, digits, "_", "." and "-"')
    return prefix


def _check_security(keys: Keys, conf: EtcdConf) -> None:
    """Half a configuration is refused: what was meant to be encrypted must not go out in clear text."""
    tls = {endpoint.tls for endpoint in conf.endpoints}
    if len(tls) == 2:
        raise keys.wrong("endpoints", "mixes http and https: passwords and leases would go out in clear text as well")
    if True in tls and not conf.ca:
        raise keys.wrong("ca", "is missing: https needs the file of the authority that signed etcd's certificates")
    if False in tls and (conf.ca or conf.cert or conf.key):
        raise keys.wrong("endpoints", "are http, so ca, cert and key would not be used: write https")
    if bool(conf.cert) != bool(conf.key):
        raise keys.wrong("key" if conf.cert else "cert", "is missing: cert and key belong together")
    if bool(conf.user) != bool(conf.password):
        raise keys.wrong("password" if conf.user else "user", "is missing: user and password belong together")
    for name in ("ca", "cert", "key"):
        path = getattr(conf, name)
        if path and not path.startswith("/"):
            raise CniError(Code.INVALID_CONFIG, f"{keys.path(name)} is {shown(path)}, not an absolute path")
