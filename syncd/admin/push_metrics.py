"""The metrics of the pushes; the names are those of the configuration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from syncd.core.status_document import PushStatus


def push_metrics(pushes: Sequence[PushStatus]) -> Iterator[Metric]:
    """Give each metric with a sample for each push."""
    seq = GaugeMetricFamily(
        "syncd_push_seq", "The last change that the receiver has taken.", labels=["name"]
    )
    lag = GaugeMetricFamily(
        "syncd_push_lag_changes", "Changes after the last one that was taken.", labels=["name"]
    )
    failing = GaugeMetricFamily(
        "syncd_push_failing", "1 while the last batch was not taken.", labels=["name"]
    )
    failures = CounterMetricFamily(
        "syncd_push_failures", "Batches that were sent and not taken.", labels=["name"]
    )
    batches = CounterMetricFamily("syncd_push_batches", "Batches that were taken.", labels=["name"])
    for push in pushes:
        if push.seq is not None:
            seq.add_metric([push.name], push.seq)
        lag.add_metric([push.name], push.lag_changes)
        failing.add_metric([push.name], int(push.error is not None))
        failures.add_metric([push.name], push.failures)
        batches.add_metric([push.name], push.batches)
    yield from (seq, lag, failing, failures, batches)
