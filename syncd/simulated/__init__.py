"""A simulated Dreamship, as nasty as the real one: for the demo, and for the tests."""

from syncd.simulated.app import Api, Call
from syncd.simulated.catalogue import ADDED, UPDATED, Catalogue, Event, Variant
from syncd.simulated.faults import Cache, Faults, Throttle
from syncd.simulated.postman import UNREACHABLE, Postman, Way, iso, stale
from syncd.simulated.server import serving, serving_in_thread

__all__ = [
    "ADDED",
    "UNREACHABLE",
    "UPDATED",
    "Api",
    "Cache",
    "Call",
    "Catalogue",
    "Event",
    "Faults",
    "Postman",
    "Throttle",
    "Variant",
    "Way",
    "iso",
    "serving",
    "serving_in_thread",
    "stale",
]
