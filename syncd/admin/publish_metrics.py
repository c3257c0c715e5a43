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
    """Give the metrics of the publication; nothing without a target."""
    if publish is None:
        return
    state = GaugeMetricFamily(
        "syncd_publish_state", "1 for the state of the publication, else 0.", labels=["state"]
    )
    for name in get_args(PublishState):
        state.add_metric([name], int(publish.state == name))
    yield state
    for name, text, value in (
        ("lag_seconds", "The age of the oldest change that is not published.", publish.lag_seconds),
        ("seq", "The last row of the target's feed.", publish.seq),
        ("epoch", "The epoch of the lease.", publish.epoch),
        ("copying", "1 while the whole target is compared.", int(publish.copying)),
    ):
        if value is not None:
            yield GaugeMetricFamily(f"syncd_publish_{name}", text, value=value)
    for name, text, value in (
        ("batches", "Transactions that were committed.", publish.batches),
        ("rows", "Rows that were written.", publish.rows),
        ("failures", "Transactions and connections that failed.", publish.failures),
    ):
        yield CounterMetricFamily(f"syncd_publish_{name}", text, value=value)
