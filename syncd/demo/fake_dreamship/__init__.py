"""A simulated Dreamship, as nasty as the real one: for the demo, and for the tests."""

from syncd.demo.fake_dreamship.app import Api, Call
from syncd.demo.fake_dreamship.catalogue import ADDED, UPDATED, Catalogue, Event, Variant
from syncd.demo.fake_dreamship.faults import Cache, Faults, Throttle
from syncd.demo.fake_dreamship.postman import UNREACHABLE, Postman, Way, iso, stale
from syncd.demo.fake_dreamship.server import serving, serving_in_thread

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
