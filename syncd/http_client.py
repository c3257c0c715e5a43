"""Builds all HTTP clients, with the proxy and the certificates of the environment.

httpx reads the same variables, but it builds a client for each of them, even if it is not used, and
does not translate the exceptions. Each client of syncd calls one URL and follows no redirect. So
this module reads the variables for that URL, and an error in a variable is a ConfigurationError
with its name. Messages never contain a value: the address of a proxy may contain a password.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import re
import socket
import ssl
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from syncd.errors import ConfigurationError

if importlib.util.find_spec("sniffio") is None:
    # httpcore imports it for each lock. Python does not remember that a module is missing, and
    # searches every folder again: a tenth of the processor time of a read.
    sys.modules.setdefault("sniffio", None)  # type: ignore[arg-type]

_SCHEMES = {"http", "https", "socks5", "socks5h"}
_MAX_PORT = 65_535
# The names of certificates in a folder of OpenSSL: the hash of the subject, and a number.
_HASHED = re.compile(r"[0-9a-f]{8}\.[0-9]+")


def async_client(
    url: str,
    *,
    is_direct: bool = False,
    transport: httpx.AsyncBaseTransport | None = None,
    **options: Any,
) -> httpx.AsyncClient:
    """Return a client for `url` and the paths below it; `is_direct`: without a proxy.

    `options` are httpx's. Raises ConfigurationError if a variable of the environment is unusable.
    """
    if transport is not None:
        return httpx.AsyncClient(transport=transport, **options)
    return httpx.AsyncClient(**_proxy_options(url, os.environ, is_direct=is_direct), **options)


def cause(error: BaseException) -> str:
    """Say why a request failed, without the address: a URL may contain a token."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, ssl.SSLCertVerificationError):
            return "the certificate is not trusted, or it is for another name"
        if isinstance(found, ssl.SSLError):
            return f"TLS failed ({found.reason})"
        if isinstance(found, socket.gaierror):
            return "the name of the host is not known"
        if isinstance(found, OSError) and found.errno is not None:
            return os.strerror(found.errno)
        found = found.__cause__ or found.__context__
    return type(error).__name__


def check(url: str, environ: Mapping[str, str], *, is_direct: bool = False) -> None:
    """Raise ConfigurationError if no client can be built for `url`."""
    try:
        httpx.URL(url)
    except httpx.InvalidURL:
        # httpx rejects more invalid names of hosts than urllib does.
        raise ConfigurationError(
            ["no request can be sent to this address"], hint="check the name of its host"
        ) from None
    _proxy_options(url, environ, is_direct=is_direct)


def proxy_for(url: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """Return the variable with the proxy for `url`, and its value; empty texts if there is none."""
    parts = urlsplit(url)
    if not parts.hostname or _is_excepted(
        parts.hostname, parts.port or (443 if parts.scheme == "https" else 80), environ
    ):
        return "", ""
    names = [f"{parts.scheme}_proxy", f"{parts.scheme.upper()}_PROXY", "all_proxy", "ALL_PROXY"]
    if "REQUEST_METHOD" in environ:
        # In a CGI program HTTP_PROXY is a request header called Proxy.
        names.remove("HTTP_PROXY")
    for name in names:
        if name in environ:
            # An empty variable in lower case disables the same variable in upper case.
            if environ[name].strip():
                return name, environ[name].strip()
            if name.islower():
                names[names.index(name) + 1] = name
    return "", ""


def _is_excepted(host: str, port: int, environ: Mapping[str, str]) -> bool:
    """Return whether NO_PROXY names a host: by domain, address or network, maybe with a port.

    Other entries are ignored.
    """
    listed = environ.get("no_proxy", environ.get("NO_PROXY", ""))
    return any(_names(entry, host.casefold(), port) for entry in re.split(r"[,\s]+", listed))


def _names(entry: str, host: str, port: int) -> bool:
    entry = entry.casefold().partition("://")[2] or entry.casefold()
    if entry == "*":
        return True
    bare = re.fullmatch(r"\[(.+)\](?::([0-9]+))?|([^:]+)(?::([0-9]+))?", entry)
    if bare is not None:
        entry = bare[1] or bare[3]
        if (limited := bare[2] or bare[4]) and int(limited[:9]) != port:
            return False
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        domain = entry.removeprefix("*").removeprefix(".")
        return bool(domain) and (host == domain or host.endswith(f".{domain}"))


def _proxy_options(url: str, environ: Mapping[str, str], *, is_direct: bool) -> dict[str, Any]:
    """Return the options of httpx for the proxy and the certificates of `url`."""
    variable, address = ("", "") if is_direct else proxy_for(url, environ)
    proxy = _proxy(variable, address) if variable else None
    if urlsplit(url).scheme == "https" or (proxy is not None and proxy.url.scheme == "https"):
        context = _certificates(environ)
    else:
        # No TLS is used; to read every certificate of the host takes longer than the call.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if proxy is not None and proxy.url.scheme == "https":
        proxy.ssl_context = context
    return {"proxy": proxy, "verify": context, "trust_env": False}


def _proxy(variable: str, address: str) -> httpx.Proxy:
    address = address if "://" in address else f"http://{address}"
    hint = f"write {variable}=http://HOST:PORT, or name the host in NO_PROXY to use no proxy"
    try:
        proxy = httpx.Proxy(address)
        host, port = proxy.url.host, proxy.url.port
    except (ValueError, httpx.InvalidURL):
        scheme = address.partition("://")[0].casefold()
        error = "is no address of a proxy"
        if scheme not in _SCHEMES:
            error = f"names a kind of proxy that is none of {', '.join(sorted(_SCHEMES))}"
        raise ConfigurationError([f"{variable}: {error}"], hint=hint) from None
    if not host or " " in host or "%20" in host or (port or 0) > _MAX_PORT:
        raise ConfigurationError([f"{variable}: is no address of a proxy"], hint=hint)
    if proxy.url.scheme.startswith("socks") and importlib.util.find_spec("socksio") is None:
        raise ConfigurationError(
            [f"{variable}: names a SOCKS proxy, which needs the Python package socksio"],
            hint=f"install socksio beside syncd; or {hint}",
        )
    return proxy


def _certificates(environ: Mapping[str, str]) -> ssl.SSLContext:
    """Return the trusted certificates: of $SSL_CERT_FILE, $SSL_CERT_DIR, or certifi."""
    file, folders = environ.get("SSL_CERT_FILE"), environ.get("SSL_CERT_DIR")
    if file:
        _require(_file_error(file), "SSL_CERT_FILE", "name a readable file of certificates (PEM)")
    elif folders:
        hint = "name a folder of certificates that `openssl rehash` has processed"
        _require(_folder_error(folders), "SSL_CERT_DIR", hint)
    else:
        import certifi  # noqa: PLC0415 - a module of data, needed only here

        file = certifi.where()
        _require(_file_error(file), f"the certificates in {file}", "install syncd again", unset="")
    try:
        return ssl.create_default_context(cafile=file or None, capath=None if file else folders)
    except OSError as error:
        # It also opens this file for writing; all other files are checked already.
        hint = "name a file that this user may write"
        _require(error.strerror or "cannot be used", "SSLKEYLOGFILE", hint)
        raise AssertionError from None


def _require(error: str, variable: str, hint: str, *, unset: str = ", or unset {}") -> None:
    if error:
        raise ConfigurationError([f"{variable}: {error}"], hint=hint + unset.format(variable))


def _file_error(file: str) -> str:
    """Return why a file of certificates is unusable, or an empty text."""
    try:
        if not stat.S_ISREG(os.stat(file).st_mode):  # noqa: PTH116 - text of the environment
            return "is no file"
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=file)
    except ssl.SSLError:
        return "contains no certificate in PEM form"
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or "cannot be read"
    return ""


def _folder_error(folders: str) -> str:
    """Return why folders of certificates are unusable, or an empty text."""
    try:
        for folder in folders.split(os.pathsep):
            if any(_HASHED.fullmatch(one.name) for one in Path(folder).iterdir()):
                return ""
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or "cannot be read"
    return "contains no certificate named by its hash"
