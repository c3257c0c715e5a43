"""The sockets on which a daemon listens: passed by the service manager, or bound here."""

from __future__ import annotations

import socket
from collections.abc import Callable, MutableMapping
from pathlib import Path

from syncd.config import REMOTE_ADMIN_VARIABLE, Address, Config, is_loopback
from syncd.daemon import systemd
from syncd.errors import ConfigurationError
from syncd.http_server.sockets import bind_tcp, bind_unix


class Listeners:
    """The sockets of one daemon by name: `webhook`, `control` and, unless it is off, `admin`."""

    def __init__(self, config: Config, environ: MutableMapping[str, str]) -> None:
        """Bind the sockets that were not passed; after a ConfigurationError none is open."""
        passed = systemd.take_sockets(environ)
        self.owns_control_socket = "control" not in passed
        binders: dict[str, Callable[[], socket.socket]] = {
            # Any user may connect, like the user of the web server; a delivery needs a signature.
            "webhook": lambda: _bound(config.webhook.listen, "webhook.listen", mode=0o666),
            "control": lambda: bind_unix(config.control.socket, key="control.socket"),
        }
        if (listen := config.admin.listen) is not None:
            binders["admin"] = lambda: _bound(listen, "admin.listen", mode=0o660)
        self.sockets: dict[str, socket.socket] = {}
        try:
            for name, bind in binders.items():
                self.sockets[name] = passed.get(name) or bind()
            self._require_private(may_be_remote=bool(environ.get(REMOTE_ADMIN_VARIABLE)))
        except BaseException:
            for one in self.sockets.values():
                one.close()
            raise

    @property
    def is_admin_remote(self) -> bool:
        """Whether other hosts may reach the admin listener."""
        return "admin" in self.sockets and _is_remote(self.sockets["admin"])

    def _require_private(self, *, may_be_remote: bool) -> None:
        """Refuse sockets that other hosts can reach; a configured name may have any address."""
        errors = []
        if self.sockets["control"].family != socket.AF_UNIX:
            errors.append("control.socket: is no unix socket, so other users or hosts may use it")
        if self.is_admin_remote and not may_be_remote:
            errors.append("admin.listen: is not on loopback, so other hosts may read the status")
        if errors:
            raise ConfigurationError(
                errors, hint="check the socket that the service manager passes, or /etc/hosts"
            )


def _bound(address: Address, key: str, *, mode: int) -> socket.socket:
    if address.kind == "unix":
        return bind_unix(Path(address.path), key=key, mode=mode)
    return bind_tcp(address.host, address.port, key=key)


def _is_remote(bound: socket.socket) -> bool:
    return bound.family != socket.AF_UNIX and not is_loopback(bound.getsockname()[0])
