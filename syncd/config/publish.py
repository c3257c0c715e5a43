"""The target of `[publish]`: its URL, where it comes from, and the packages that it needs."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, parse_qsl, unquote, unquote_plus, urlsplit

from syncd.config.files import read_small, reason
from syncd.config.types import Secret
from syncd.errors import ConfigurationError

if TYPE_CHECKING:
    from syncd.config.settings import Publish

URL_CREDENTIAL = "publish-url"
_POSTGRESQL, _MYSQL = "postgresql+psycopg", "mysql+pymysql"
_DRIVERS = {
    **dict.fromkeys(("postgresql", "postgres", _POSTGRESQL), _POSTGRESQL),
    **dict.fromkeys(("mysql", "mariadb", _MYSQL, "mariadb+pymysql"), _MYSQL),
}
# The module and the extra of each driver.
_PACKAGES = {_POSTGRESQL: ("psycopg", "postgresql"), _MYSQL: ("pymysql", "mysql")}
_FORM = "must be postgresql://USER:PASSWORD@HOST/DATABASE, or mysql://…"


class TargetUrl(Secret):
    """The URL of the target. It is masked like a secret, because it contains the password."""

    __slots__ = ()

    @property
    def driver(self) -> str:
        """The name of the dialect and its driver."""
        return self.reveal().partition("://")[0]

    @property
    def secrets(self) -> list[str]:
        """The URL and its passwords in each form, the longest first.

        A password that equals the user, the host or the database is no secret: to mask it would
        make the log unreadable.
        """
        url = urlsplit(self.reveal())
        public = {url.username, url.hostname, url.path.lstrip("/"), ""}
        found = {self.reveal()}
        for name, value in parse_qsl(url.query):
            if "pass" in name.lower():
                found |= {value}
        if url.password:
            found |= {url.password, unquote(url.password), unquote_plus(url.password)}
        return sorted(found - public, key=len, reverse=True)


def parse_target_url(text: str) -> TargetUrl:
    """Return the URL with the name of its driver; ValueError never repeats any part of it."""
    text = text.strip()
    scheme, separator, rest = text.partition("://")
    driver = _DRIVERS.get(scheme.lower())
    if not separator or driver is None:
        raise ValueError(_FORM)
    _check(f"{driver}://{rest}")
    return TargetUrl(f"{driver}://{rest}")


def _check(text: str) -> SplitResult:
    try:
        url = urlsplit(text)
        url.port  # noqa: B018 - reading the port checks it
    except ValueError:
        raise ValueError(f"{_FORM}; write special characters of the password as %XX") from None
    if not text.isprintable() or " " in text:
        raise ValueError(f"{_FORM}; write special characters of the password as %XX")
    if not url.path.strip("/"):
        raise ValueError(f"{_FORM}; the database is missing")
    return url


def read_target(
    publish: Publish, environ: Mapping[str, str], errors: list[str]
) -> TargetUrl | None:
    """Return the URL of the first source that is set: the credential, `url_file`, `url`."""
    if publish.url is not None and publish.url_file is not None:
        errors.append("publish.url_file: there is a url too; write only one of them")
    folder = environ.get("CREDENTIALS_DIRECTORY", "")
    for name, path in (
        (f"credential {URL_CREDENTIAL}", Path(folder) / URL_CREDENTIAL if folder else None),
        ("publish.url_file", publish.url_file),
    ):
        if path is None:
            continue
        try:
            return parse_target_url(read_small(path))
        except (FileNotFoundError, NotADirectoryError):
            if name.startswith("credential"):
                continue
            # The path is not repeated: it may be a URL in the wrong place.
            errors.append(f"{name}: there is no such file; a relative path starts at this file")
        except (OSError, UnicodeError) as error:
            errors.append(f"{name}: cannot be read: {reason(error)}")
        except ValueError as error:
            errors.append(f"{name}: the text in it {error}")
        return None
    return publish.url


def require_driver(target: TargetUrl | None) -> None:
    """Raise ConfigurationError if the packages for a target are not installed."""
    if target is None:
        return
    module, extra = _PACKAGES[target.driver]
    missing = [name for name in ("sqlalchemy", module) if find_spec(name) is None]
    if missing:
        raise ConfigurationError(
            [f"publish.url: needs the packages {' and '.join(missing)}, which are not installed"],
            hint=f"install them, in the checkout of syncd: pip install '.[{extra}]'",
        )
