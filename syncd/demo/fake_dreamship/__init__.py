"""A simulated Dreamship, as nasty as the real one: for the demo, and for the tests."""

from syncd.demo.fake_dreamship.api import Api, Call
from syncd.demo.fake_dreamship.catalog import ADDED, UPDATED, Catalog, Event, Variant
from syncd.demo.fake_dreamship.faults import Cache, Faults, Throttle
from syncd.demo.fake_dreamship.server import serving, serving_in_thread
from syncd.demo.fake_dreamship.webhook_sender import UNREACHABLE, Way, WebhookSender, iso, stale

__all__ = [
    "ADDED",
    "UNREACHABLE",
    "UPDATED",
    "Api",
    "Cache",
    "Call",
    "Catalog",
    "Event",
    "Faults",
    "Throttle",
    "Variant",
    "Way",
    "WebhookSender",
    "iso",
    "serving",
    "serving_in_thread",
    "stale",
]
