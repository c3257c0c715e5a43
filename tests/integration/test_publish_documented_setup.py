"""The documented statements on a new server: syncd writes, and the shop reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import targets
from documents import PUBLISH, code_of
from publishing import Mirror, published, publishing, until

from syncd.config.publish import TargetUrl, parse_target_url
from syncd.publish.target import Target

# PyMySQL leaves the socket of a connection that failed to the garbage collector.
pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
    ),
]
KINDS = [targets.Postgresql, targets.Mariadb]


@pytest.fixture(params=KINDS, ids=["pg", "maria"])
def server(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Give a new server: the document names its roles and its database."""
    with targets.running(request.param) as one:
        yield one


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    with closing(Mirror(tmp_path / "m")) as one:
        one.item(1)
        one.change(1, "in_stock")
        one.change(2, "out_of_stock")
        yield one


def statements(server: Any) -> tuple[str, str]:
    """Return the documented statements of this server: the roles, and the rights without DDL."""
    is_mysql = server.kind == "mysql"
    sql = [one for one in code_of(PUBLISH, "sql") if ("@'%'" in one) == is_mysql]
    (roles,) = (one for one in sql if "CREATE DATABASE shop" in one)
    (rights,) = (one for one in sql if "GRANT" in one and one is not roles)
    return roles, rights


def execute(server: Any, sql: str, *, database: str = "") -> None:
    before, _, after = sql.replace("%", "%%").partition("\\connect shop")
    server.execute(before, database=database)
    server.execute(after, database="shop")


def url(server: Any, user: str, password: str) -> TargetUrl:
    return parse_target_url(f"{server.kind}://{user}:{password}@127.0.0.1:{server.port}/shop")


def sold(server: Any) -> list[int]:
    """Read the view as the role of the shop does."""
    shop = Target(url(server, "shop", "secret-2"), "syncd")
    at = "syncd_" if server.kind == "mysql" else "syncd."
    with closing(shop), shop.transaction() as db:
        query = f"SELECT variant_id FROM {at}availability WHERE sellable"  # noqa: S608 - a constant
        return list(db.execute(sa.text(query)).scalars())


def test_the_documented_roles_are_enough(server: Any, mirror: Mirror) -> None:
    """The writer may not create a schema; it creates the tables in the one that it owns."""
    execute(server, statements(server)[0])
    with publishing(url(server, "syncd", "secret-1"), mirror.path) as one:
        until(lambda: published(one, mirror))
    assert sold(server) == [1]


def test_the_documented_rights_are_enough_if_the_administrator_creates_the_tables(
    server: Any, mirror: Mirror
) -> None:
    """The shop can read these tables too."""
    roles, rights = statements(server)
    execute(server, roles)
    # The role of the document has more rights than it needs here.
    if server.kind == "postgresql":
        server.execute("ALTER SCHEMA syncd OWNER TO admin", database="shop")
    else:
        server.execute("REVOKE CREATE, ALTER, INDEX, CREATE VIEW, DROP ON shop.* FROM syncd@'%%'")
    with closing(Target(url(server, "syncd", "secret-1"), "syncd")) as target:
        printed = target.tables.statements()
    for statement in printed:
        server.execute(statement.replace("%", "%%"), database="shop")
    execute(server, rights, database="shop")
    with publishing(url(server, "syncd", "secret-1"), mirror.path) as one:
        until(lambda: published(one, mirror))
    assert sold(server) == [1]
