"""SQLite, and nothing but SQLite.

`Database` runs functions of the modules in this folder in its write thread. Such a function takes
the connection first, and is one transaction. `Queries` reads for users and shops.
"""

from __future__ import annotations

from syncd.store.database import Database
from syncd.store.queries import Queries

__all__ = ["Database", "Queries"]
