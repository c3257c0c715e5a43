"""How long deliveries take, as a Prometheus histogram."""

from __future__ import annotations

from prometheus_client import Histogram, disable_created_metrics

# A commit takes milliseconds, a disk in trouble seconds, and Dreamship waits 30.
_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

# One more series for each histogram, the time of its creation: that is the daemon's own start.
disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no annotations


def delivery_seconds() -> Histogram:
    """Return the histogram of the seconds that deliveries answered 200 took."""
    return Histogram(
        "syncd_delivery_seconds",
        "From a delivery's last byte until it was on disk, of those answered 200.",
        buckets=_BUCKETS_S,
        registry=None,
    )
