"""The duration of deliveries, as a Prometheus histogram."""

from __future__ import annotations

from prometheus_client import Histogram, disable_created_metrics

# A commit takes milliseconds, or seconds on a slow disk. Dreamship waits 30 seconds.
_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

# Otherwise each histogram has one more series, its creation time: the start of the daemon.
disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no annotations


def delivery_seconds() -> Histogram:
    """Return the histogram of the seconds that deliveries with the answer 200 take."""
    return Histogram(
        "syncd_delivery_seconds",
        "From a delivery's last byte until it was on disk, of those answered 200.",
        buckets=_BUCKETS_S,
        registry=None,
    )
