//! Stands in for an OpenTelemetry collector: takes what the handler exports, and keeps the spans for people to look at.
//!
//! OTLP over HTTP with binary Protocol Buffers, read with OpenTelemetry's own types. Spans are kept in memory, as many as there is
//! room for, and are gone with devhost. Metrics are read, and not kept.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use bytes::Bytes;
use opentelemetry_proto::tonic::{
    collector::{metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::any_value,
    trace::v1::{self, span::SpanKind, status::StatusCode as SpanStatus},
};
use prost::Message;

/// The oldest make room for the newest.
const MOST_SPANS: usize = 50_000;

/// One step of a story.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    pub trace: Vec<u8>,
    pub id: Vec<u8>,
    /// Empty if it has none.
    pub parent: Vec<u8>,
    pub name: String,
    pub kind: SpanKind,
    /// Nanoseconds since 1970.
    pub started: u64,
    pub ended: u64,
    pub has_failed: bool,
    pub attributes: BTreeMap<String, String>,
    /// The ids of the spans that it is linked to.
    pub links: Vec<Vec<u8>>,
}

/// The spans that have come, in that order.
#[derive(Debug, Default)]
pub struct Traces(Mutex<VecDeque<Span>>);

impl Traces {
    pub fn all(&self) -> Vec<Span> {
        self.lock().iter().cloned().collect()
    }

    pub fn clear(&self) {
        self.lock().clear();
    }

    pub fn add(&self, spans: impl IntoIterator<Item = Span>) {
        let mut kept = self.lock();
        kept.extend(spans);
        let too_many = kept.len().saturating_sub(MOST_SPANS);
        kept.drain(..too_many);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Span>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the handler exports to.
pub fn router(traces: Arc<Traces>) -> Router {
    Router::new()
        .route("/v1/traces", post(take_traces))
        .route("/v1/metrics", post(take_metrics))
        .with_state(traces)
}

async fn take_traces(
    State(traces): State<Arc<Traces>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Ok(request) = read::<ExportTraceServiceRequest>(&headers, body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let of_resources = request.resource_spans.into_iter();
    let scopes = of_resources.flat_map(|of_resource| of_resource.scope_spans);
    traces.add(scopes.flat_map(|scope| scope.spans).map(Span::from));
    taken()
}

async fn take_metrics(headers: HeaderMap, body: Bytes) -> Response {
    match read::<ExportMetricsServiceRequest>(&headers, body) {
        Ok(_) => taken(),
        Err(()) => StatusCode::BAD_REQUEST.into_response(),
    }
}

fn read<T: Message + Default>(headers: &HeaderMap, body: Bytes) -> Result<T, ()> {
    let content_type = headers.get(header::CONTENT_TYPE);
    if content_type.is_none_or(|value| value != "application/x-protobuf") {
        return Err(());
    }
    T::decode(body).map_err(|_| ())
}

/// An empty answer is a whole success.
fn taken() -> Response {
    [(header::CONTENT_TYPE, "application/x-protobuf")].into_response()
}

impl From<v1::Span> for Span {
    fn from(span: v1::Span) -> Self {
        let kind = span.kind();
        let status = span.status.map(|status| status.code());
        let attributes = span.attributes.into_iter().filter_map(|attribute| {
            let value = match attribute.value?.value? {
                any_value::Value::StringValue(text) => text,
                any_value::Value::BoolValue(flag) => flag.to_string(),
                any_value::Value::IntValue(number) => number.to_string(),
                any_value::Value::DoubleValue(number) => number.to_string(),
                _ => return None,
            };
            Some((attribute.key, value))
        });
        Self {
            attributes: attributes.collect(),
            trace: span.trace_id,
            id: span.span_id,
            parent: span.parent_span_id,
            name: span.name,
            kind,
            started: span.start_time_unix_nano,
            ended: span.end_time_unix_nano,
            has_failed: status == Some(SpanStatus::Error),
            links: span.links.into_iter().map(|link| link.span_id).collect(),
        }
    }
}
