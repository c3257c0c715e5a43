"""From what is known and what was observed to what must be written: whole batches, purely.

`merge` judges one variant; this package carries its verdicts to the rows of the mirror: variants,
the change feed, and the questions put to the source. The store loads a snapshot, calls one of
these functions and writes what they return, in one transaction.
"""

from syncd.core.observations.delivering import deliver
from syncd.core.observations.reading import is_no_evidence, read
from syncd.core.observations.removing import (
    absent,
    is_whole,
    is_whole_row,
    lift,
    not_found,
    rejudge,
    remove,
)

__all__ = [
    "absent",
    "deliver",
    "is_no_evidence",
    "is_whole",
    "is_whole_row",
    "lift",
    "not_found",
    "read",
    "rejudge",
    "remove",
]
