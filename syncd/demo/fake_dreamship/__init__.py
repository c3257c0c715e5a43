"""A simulated Dreamship with faults that can be turned on, for the demo and the tests."""

from syncd.demo.fake_dreamship.api import Api, Call
from syncd.demo.fake_dreamship.catalog import ADDED, UPDATED, Catalog, Event, Variant
from syncd.demo.fake_dreamship.faults import Cache, Faults, Throttle
from syncd.demo.fake_dreamship.server import serving, serving_in_thread
from syncd.demo.fake_dreamship.webhook_sender import (
    UNREACHABLE,
    Network,
    WebhookSender,
    django_timestamp,
    stale_event,
)

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
    "Network",
    "Throttle",
    "Variant",
    "WebhookSender",
    "django_timestamp",
    "serving",
    "serving_in_thread",
    "stale_event",
]
