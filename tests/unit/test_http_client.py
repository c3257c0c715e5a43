"""HTTP clients follow the environment; each error is one line with the name of the variable."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import pytest

from syncd import http_client
from syncd.errors import ConfigurationError

URL = "https://api.dreamship.com/v1"
PASSWORD = "hush_0123456789"


@pytest.mark.parametrize(
    ("environ", "url", "variable"),
    [
        ({}, URL, ""),
        ({"HTTPS_PROXY": "http://p:1"}, URL, "HTTPS_PROXY"),
        ({"https_proxy": "http://q:1", "HTTPS_PROXY": "http://p:1"}, URL, "https_proxy"),
        ({"https_proxy": "", "HTTPS_PROXY": "http://p:1"}, URL, ""),
        ({"https_proxy": "", "ALL_PROXY": "http://p:1"}, URL, "ALL_PROXY"),
        ({"HTTPS_PROXY": " "}, URL, ""),
        ({"HTTP_PROXY": "http://p:1"}, URL, ""),
        ({"HTTP_PROXY": "http://p:1"}, "http://hooks.example.com/x", "HTTP_PROXY"),
        ({"HTTP_PROXY": "p:1", "REQUEST_METHOD": "GET"}, "http://hooks.example.com/x", ""),
        ({"all_proxy": "http://p:1"}, "http://hooks.example.com/x", "all_proxy"),
    ],
)
def test_proxy_variables_have_their_usual_precedence(
    environ: dict[str, str], url: str, variable: str
) -> None:
    """Lower case wins, an empty value switches off, the scheme's own variable comes first."""
    assert http_client.proxy_for(url, environ)[0] == variable


@pytest.mark.parametrize(
    ("listed", "host", "is_excepted"),
    [
        ("*", "a.example.com", True),
        ("example.com", "a.example.com", True),
        (".example.com", "a.example.com", True),
        ("*.example.com", "a.example.com", True),
        ("EXAMPLE.com", "a.Example.com", True),
        ("xample.com", "a.example.com", False),
        ("other.com, example.com", "example.com", True),
        ("other.com example.com", "example.com", True),
        ("example.com:443", "example.com", True),
        ("example.com:80", "example.com", False),
        ("https://example.com", "example.com", True),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("fe80::/10", "[fe80::1]", True),
        ("fd07:b51a:cc66:f0::/64,localhost", "[fd07:b51a:cc66:f0::5]", True),
        ("fe80::/10", "example.com", False),
        ("[::1]", "[::1]", True),
        ("[::1]:443", "[::1]", True),
        ("::1", "[::1]", True),
        ("localhost:x", "localhost", False),
        ("[::1", "[::1]", False),
        (",, ,.", "example.com", False),
        ("/8", "10.1.2.3", False),
        ("10.0.0.0/99", "10.0.0.0", False),
        ("\u2603", "example.com", False),
    ],
)
def test_no_proxy_accepts_names_addresses_and_networks(
    listed: str, host: str, is_excepted: bool
) -> None:
    """Any other entry matches no host, and is no error."""
    environ = {"HTTPS_PROXY": "http://p:1", "NO_PROXY": listed}
    assert (http_client.proxy_for(f"https://{host}/x", environ) == ("", "")) is is_excepted


@pytest.mark.parametrize(
    "value",
    [
        f"ftp://u:{PASSWORD}@proxy",
        f"socks4://u:{PASSWORD}@proxy",
        f"u:{PASSWORD}",
        f"http://u:{PASSWORD}@[::1",
        f"http://u:{PASSWORD}@",
        f"http://u:{PASSWORD}@proxy:99999",
        f"http://{PASSWORD} and more",
        f"http://u:{PASSWORD}@a b",
        "http://",
        "://",
    ],
)
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "all_proxy"])
def test_an_invalid_proxy_is_one_line(variable: str, value: str) -> None:
    """With the variable, and without its value, which may hold a password."""
    with pytest.raises(ConfigurationError, match=rf"^{variable}: ") as caught:
        http_client.check(URL, {variable: value})
    assert variable in caught.value.hint
    assert PASSWORD not in str(caught.value) + caught.value.hint
    http_client.check(URL, {variable: value, "NO_PROXY": "dreamship.com"})
    http_client.check(URL, {variable: value}, is_direct=True)


@pytest.mark.parametrize("value", ["http://p:1", "p:1", "https://u:p@p", " http://[::1]:3128 "])
def test_a_valid_proxy_is_used(value: str) -> None:
    """A proxy without a scheme is an HTTP proxy."""
    http_client.check(URL, {"HTTPS_PROXY": value})


def test_a_socks_proxy_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package, the error is one line with its name."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    for scheme in ("socks5", "socks5h"):
        with pytest.raises(ConfigurationError, match=r"^ALL_PROXY: .* socksio") as caught:
            http_client.check(URL, {"ALL_PROXY": f"{scheme}://127.0.0.1:1080"})
        assert "install socksio" in caught.value.hint


def _certificates(folder: Path) -> None:
    folder.mkdir()
    (folder / "0123abcd.0").write_text("one")


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
@pytest.mark.parametrize("kind", ["missing", "text", "empty", "folder", "pipe", "below a file"])
def test_unusable_certificates_are_one_line(tmp_path: Path, variable: str, kind: str) -> None:
    """An empty folder too: OpenSSL accepts it and then trusts no server."""
    path = tmp_path / kind
    if kind in {"text", "empty"}:
        path.write_text("no certificate\n" if kind == "text" else "")
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "below a file":
        path.write_text("")
        path = path / "more"
    with pytest.raises(ConfigurationError, match=rf"^{variable}: ") as caught:
        http_client.check(URL, {variable: str(path)})
    assert f"unset {variable}" in caught.value.hint
    # Nothing of it is needed where no TLS is spoken.
    http_client.check("http://127.0.0.1:9/x", {variable: str(path)})


def test_usable_certificates_are_used(tmp_path: Path) -> None:
    """A file, or several folders of which one has hashed certificates."""
    import certifi  # noqa: PLC0415 - only here

    _certificates(tmp_path / "hashed")
    http_client.check(URL, {"SSL_CERT_FILE": certifi.where(), "SSL_CERT_DIR": "/nowhere"})
    http_client.check(URL, {"SSL_CERT_DIR": str(tmp_path / "hashed")})
    (tmp_path / "none").mkdir()
    http_client.check(URL, {"SSL_CERT_DIR": f"{tmp_path}/none:{tmp_path}/hashed"})
    http_client.check(URL, {"SSL_CERT_FILE": "", "SSL_CERT_DIR": ""})


def test_an_unwritable_key_log_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python opens SSLKEYLOGFILE with every TLS context."""
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "nowhere" / "keys"))
    with pytest.raises(ConfigurationError, match=r"^SSLKEYLOGFILE: ") as caught:
        http_client.check(URL, os.environ)
    assert "SSLKEYLOGFILE" in caught.value.hint


def test_an_impossible_host_name_is_one_line() -> None:
    """Only httpx refuses such a host name."""
    with pytest.raises(ConfigurationError, match="no request"):
        http_client.check("https://\u2603\u200d.example.com/", {})


def test_a_plain_http_call_loads_no_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading them takes longer than the call."""

    def refuse(*_: object, **__: object) -> ssl.SSLContext:
        raise AssertionError

    monkeypatch.setattr(ssl, "create_default_context", refuse)
    http_client.async_client("http://127.0.0.1:9/")
