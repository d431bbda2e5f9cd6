"""What the handler exports, read by OpenTelemetry's own types with Google's Protocol Buffers."""

import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from events import order_placed
from loopback import wait_until
from webhook_receiver import WebhookReceiver

TYPES = {"/v1/traces": ExportTraceServiceRequest, "/v1/metrics": ExportMetricsServiceRequest}


@pytest.fixture
def collector():
    with WebhookReceiver(otherwise=200) as receiver:
        yield receiver


def read(collector: WebhookReceiver, path: str) -> list:
    """All requests to the path, each of which has to be whole."""
    requests = []
    for got in collector.at(path):
        assert got.headers["content-type"] == "application/x-protobuf"
        request = TYPES[path]()
        assert request.ParseFromString(got.body) == len(got.body)
        assert_known(request)
        requests.append(request)
    return requests


def assert_known(message):
    """No field that the schema does not have, at any depth."""
    assert len(UnknownFieldSet(message)) == 0, message
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for part in value if field.is_repeated else [value]:
            assert_known(part)


def spans(collector: WebhookReceiver) -> list[Span]:
    requests = read(collector, "/v1/traces")
    return [span for request in requests for of in request.resource_spans for scope in of.scope_spans for span in scope.spans]


def figures(collector: WebhookReceiver, wanted: str) -> dict | None:
    """The metrics by name, once that one is among them."""
    for request in read(collector, "/v1/metrics"):
        (of,) = request.resource_metrics
        assert attributes(of.resource)["service.name"] == "shop"
        (scope,) = of.scope_metrics
        metrics = {metric.name: metric for metric in scope.metrics}
        if wanted in metrics:
            return metrics
    return None


def attributes(holder) -> dict:
    return {one["key"]: next(iter(one["value"].values())) for one in MessageToDict(holder).get("attributes", [])}


def test_spans_and_metrics_are_what_opentelemetry_says(start_orderup, collector):
    orderup = start_orderup(
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url(""),
            "OTEL_SERVICE_NAME": "shop",
            "OTEL_BSP_SCHEDULE_DELAY": "20",
            "OTEL_METRIC_EXPORT_INTERVAL": "100",
        }
    )
    # There is no SMTP server: a delivery, a failed call and a copy for later.
    orderup.deliver("notify", order_placed("en-IE")).assert_completed()
    told = wait_until(lambda: [span for span in spans(collector) if span.name == "process notifications"], "the span")

    (delivery,) = told
    parts = [span for span in spans(collector) if span.parent_span_id == delivery.span_id]
    assert delivery.kind == Span.SPAN_KIND_CONSUMER
    assert attributes(delivery)["orderup.classes"] == "transient:1"
    assert attributes(delivery)["messaging.servicebus.message.delivery_count"] == "1"
    # Three tries in the call, and the copy.
    assert [span.name for span in parts] == ["send smtp"] * 3 + ["schedule orders"]
    for span in [delivery, *parts]:
        assert (len(span.trace_id), len(span.span_id)) == (16, 8)
        assert span.trace_id == delivery.trace_id
        assert 0 < span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.flags & 1
    assert parts[0].status.code == 2 and delivery.status.code == 0

    metrics = wait_until(lambda: figures(collector, "orderup.notifications"), "the figures")
    (point,) = metrics["orderup.notifications"].sum.data_points
    assert (point.as_int, attributes(point)["outcome"]) == (1, "later")
    assert metrics["orderup.notifications"].sum.is_monotonic
    (duration,) = metrics["orderup.provider.duration"].histogram.data_points
    assert (duration.count, sum(duration.bucket_counts)) == (3, 3)
    assert len(duration.bucket_counts) == len(duration.explicit_bounds) + 1
    assert list(duration.explicit_bounds) == sorted(duration.explicit_bounds)
    assert duration.min <= duration.sum / 3 <= duration.max
