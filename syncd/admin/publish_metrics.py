"""The metrics of the publication, and of all ways out of the mirror."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from syncd.admin.push_metrics import push_metrics
from syncd.core.snapshots import PublishState
from syncd.core.status_document import PublishStatus, StatusDocument


def output_metrics(document: StatusDocument) -> Iterator[Metric]:
    """Give the metrics of the pushes and of the publication."""
    yield from push_metrics(document.push)
    yield from publish_metrics(document.publish)


def publish_metrics(publish: PublishStatus | None) -> Iterator[Metric]:
    """Give the metrics of the publication; without a target only the states have samples."""
    state = GaugeMetricFamily(
        "syncd_publish_state", "1 for the state of the publication, else 0.", labels=["state"]
    )
    for name in get_args(PublishState):
        state.add_metric([name], int(publish is not None and publish.state == name))
    yield state
    host = GaugeMetricFamily(
        "syncd_publish_active_host", "1 for the host that has the lease.", labels=["host"]
    )
    if publish is not None and publish.active_host is not None:
        host.add_metric([publish.active_host], 1)
    yield host
    for name, text in (
        ("lag_seconds", "The age of the oldest change that is not published."),
        ("seq", "The last row of the target's feed."),
        ("epoch", "The epoch of the lease."),
        ("copying", "1 while the whole target is compared."),
    ):
        gauge = GaugeMetricFamily(f"syncd_publish_{name}", text, labels=[])
        value = getattr(publish, name, None)
        if value is not None:
            gauge.add_metric([], float(value))
        yield gauge
    for name, text in (
        ("batches", "Transactions that were committed."),
        ("rows", "Rows that were written."),
        ("failures", "Transactions and connections that failed."),
    ):
        counter = CounterMetricFamily(f"syncd_publish_{name}", text, labels=[])
        if publish is not None:
            counter.add_metric([], getattr(publish, name))
        yield counter
