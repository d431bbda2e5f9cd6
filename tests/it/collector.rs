//! An OpenTelemetry collector on a free port of this machine, which reads what comes with OpenTelemetry's own types.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Bytes, to_bytes},
    extract::{Request, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use opentelemetry_proto::tonic::{
    collector::{metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::{AnyValue, KeyValue, any_value},
    metrics::v1::{Metric, metric::Data, number_data_point},
    resource::v1::Resource,
    trace::v1::{Span, span::SpanKind},
};
use prost::Message;
use tokio::{net::TcpListener, sync::Notify, task::JoinHandle};

/// Longer than anything here takes on a busy machine; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// What it does with the next requests.
#[derive(Clone)]
pub enum Mood {
    /// Answers 200 with this body.
    Takes(&'static [u8]),
    Answers(u16, Option<&'static str>),
    Hangs,
}

/// One request, whatever was answered.
pub struct Export {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

#[derive(Default)]
struct Kept {
    exports: Vec<Export>,
    /// Of the requests that were taken.
    spans: Vec<Span>,
    metrics: Vec<Metric>,
    resource: Option<Resource>,
    moods: VecDeque<Mood>,
}

#[derive(Clone, Default)]
struct Shared {
    kept: Arc<Mutex<Kept>>,
    came: Arc<Notify>,
}

pub struct Collector {
    shared: Shared,
    pub url: String,
    task: JoinHandle<()>,
}

impl Collector {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Shared::default();
        let router = Router::new().fallback(take).with_state(shared.clone());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { shared, url, task }
    }

    /// What it does with the next request, before it takes whatever comes.
    pub fn next_is(&self, mood: Mood) {
        self.shared.kept.lock().unwrap().moods.push_back(mood);
    }

    /// Waits until what has come is as wanted, and answers what that says.
    async fn wait_for<T>(&self, what: &str, wanted: impl Fn(&Kept) -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            let came = self.shared.came.notified();
            if let Some(found) = wanted(&self.shared.kept.lock().unwrap()) {
                return found;
            }
            let left = PATIENCE.saturating_sub(started.elapsed());
            let came = tokio::time::timeout(left, came).await;
            assert!(came.is_ok(), "{what} has not come: {:#?}", self.names());
        }
    }

    fn names(&self) -> Vec<String> {
        let kept = self.shared.kept.lock().unwrap();
        let spans = kept.spans.iter().map(|span| span.name.clone());
        spans
            .chain(kept.metrics.iter().map(|metric| metric.name.clone()))
            .collect()
    }

    /// Waits for that many requests.
    pub async fn exports(&self, count: usize) {
        self.wait_for("the request", |kept| {
            (kept.exports.len() >= count).then_some(())
        })
        .await;
    }

    /// The requests that have come.
    pub fn take_exports(&self) -> Vec<Export> {
        std::mem::take(&mut self.shared.kept.lock().unwrap().exports)
    }

    /// Waits until as many spans have come as are wanted of that name, and answers all spans, the oldest first.
    pub async fn spans(&self, name: &str, count: usize) -> Vec<Span> {
        let enough = |kept: &Kept| {
            let named = kept.spans.iter().filter(|span| span.name == name);
            (named.count() >= count).then(|| kept.spans.clone())
        };
        let mut spans = self.wait_for(name, enough).await;
        spans.sort_by_key(|span| span.start_time_unix_nano);
        spans
    }

    /// All that has come so far.
    pub fn so_far(&self) -> Vec<Span> {
        self.shared.kept.lock().unwrap().spans.clone()
    }

    pub fn metrics_so_far(&self) -> Vec<Metric> {
        self.shared.kept.lock().unwrap().metrics.clone()
    }

    /// Who exported it.
    pub fn resource(&self) -> Vec<(String, String)> {
        let kept = self.shared.kept.lock().unwrap();
        texts(
            &kept
                .resource
                .as_ref()
                .expect("something was exported")
                .attributes,
        )
    }

    /// Waits for the metric with that value, at the labels that are written like `sink=topic`.
    pub async fn metric(&self, name: &str, labels: &str, value: f64) {
        let what = format!("{name}{{{labels}}} of {value}");
        self.wait_for(&what, |kept| {
            let metrics = kept.metrics.iter().filter(|metric| metric.name == name);
            let mut points = metrics.flat_map(points);
            points
                .any(|(known, is)| known == labels && is == value)
                .then_some(())
        })
        .await;
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn take(State(shared): State<Shared>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let path = head.uri.path().to_owned();
    let mood = {
        let mut kept = shared.kept.lock().unwrap();
        let mood = kept.moods.pop_front().unwrap_or(Mood::Takes(b""));
        if matches!(mood, Mood::Takes(_)) {
            kept.take(&path, &body);
        }
        kept.exports.push(Export {
            path,
            headers: head.headers,
            body,
        });
        mood
    };
    shared.came.notify_waiters();
    match mood {
        Mood::Takes(answer) => answer.into_response(),
        Mood::Answers(status, retry_after) => {
            let mut answer = Response::builder().status(status);
            if let Some(wait) = retry_after {
                answer = answer.header("retry-after", wait);
            }
            answer.body(axum::body::Body::empty()).unwrap()
        }
        Mood::Hangs => std::future::pending().await,
    }
}

impl Kept {
    fn take(&mut self, path: &str, body: &Bytes) {
        match path {
            "/v1/traces" => {
                let request = ExportTraceServiceRequest::decode(body.clone()).unwrap();
                for of_resource in request.resource_spans {
                    self.resource = of_resource.resource;
                    let scopes = of_resource.scope_spans.into_iter();
                    self.spans.extend(scopes.flat_map(|scope| scope.spans));
                }
            }
            "/v1/metrics" => {
                let request = ExportMetricsServiceRequest::decode(body.clone()).unwrap();
                for of_resource in request.resource_metrics {
                    self.resource = of_resource.resource;
                    let scopes = of_resource.scope_metrics.into_iter();
                    self.metrics.extend(scopes.flat_map(|scope| scope.metrics));
                }
            }
            other => panic!("nobody exports to {other}"),
        }
    }
}

/// Each series of a metric: its labels, and its value, or the count of a histogram.
pub fn points(metric: &Metric) -> Vec<(String, f64)> {
    let of_numbers = |points: &[opentelemetry_proto::tonic::metrics::v1::NumberDataPoint]| {
        let point = |point: &opentelemetry_proto::tonic::metrics::v1::NumberDataPoint| {
            let value = match point.value.unwrap() {
                number_data_point::Value::AsDouble(value) => value,
                number_data_point::Value::AsInt(value) => value as f64,
            };
            (labels(&point.attributes), value)
        };
        points.iter().map(point).collect()
    };
    match metric.data.as_ref().unwrap() {
        Data::Gauge(gauge) => of_numbers(&gauge.data_points),
        Data::Sum(sum) => of_numbers(&sum.data_points),
        Data::Histogram(histogram) => {
            let points = histogram.data_points.iter();
            points
                .map(|point| (labels(&point.attributes), point.count as f64))
                .collect()
        }
        other => panic!("{other:?}"),
    }
}

fn labels(attributes: &[KeyValue]) -> String {
    let texts = texts(attributes).into_iter();
    texts
        .map(|(name, value)| format!("{name}={value}"))
        .collect::<Vec<_>>()
        .join(",")
}

fn texts(attributes: &[KeyValue]) -> Vec<(String, String)> {
    let attributes = attributes.iter();
    attributes
        .map(|attribute| (attribute.key.clone(), written(attribute.value.as_ref())))
        .collect()
}

fn written(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        Some(any_value::Value::BoolValue(flag)) => flag.to_string(),
        other => panic!("{other:?}"),
    }
}

/// What tests ask a span.
pub trait Asked {
    fn get(&self, attribute: &str) -> String;
    fn is(&self, kind: SpanKind, name: &str) -> bool;
    fn is_part_of(&self, parent: &Span) -> bool;
    fn is_linked_to(&self, other: &Span) -> bool;
}

impl Asked for Span {
    /// As text; empty if it has none.
    fn get(&self, attribute: &str) -> String {
        let mut attributes = texts(&self.attributes).into_iter();
        let found = attributes.find(|(name, _)| name == attribute);
        found.map(|(_, value)| value).unwrap_or_default()
    }

    fn is(&self, kind: SpanKind, name: &str) -> bool {
        self.kind() == kind && self.name == name
    }

    fn is_part_of(&self, parent: &Span) -> bool {
        self.trace_id == parent.trace_id && self.parent_span_id == parent.span_id
    }

    fn is_linked_to(&self, other: &Span) -> bool {
        let mut links = self.links.iter();
        links.any(|link| (&link.trace_id, &link.span_id) == (&other.trace_id, &other.span_id))
    }
}
