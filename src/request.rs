//! A storefront's side of the HTTP functions: reads the JSON body, and logs what was answered.

use std::{
    future::Future,
    panic::AssertUnwindSafe,
    time::{Duration, Instant},
};

use axum::{
    body::{Body, HttpBody},
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use futures_util::{FutureExt, TryFutureExt, future::BoxFuture};
use http_body_util::BodyExt;
use serde_json::Value;
use tracing::{Instrument, error, field, info, info_span, warn};

use crate::{
    invocation::{id, millis},
    json,
    metrics::{self, Figure},
    order::OrderId,
    problem::Problem,
    problem_type::ProblemType,
    span::{Kind, Parent, Span},
    trace::SpanContext,
};

/// The longest body that is read: what a Service Bus message can hold in the Standard tier. An event is hardly
/// larger than the request that it comes from.
pub const LONGEST_BODY: usize = 256 * 1024;

/// How much of a body that is too long is still taken from the connection. A client that is cut off while it
/// sends sees a broken connection instead of the answer.
const LONGEST_DISCARDED: usize = 32 * 1024 * 1024;

/// The host has the body before it calls us, or passes it on as it comes: a storefront that stalls must not keep an
/// instance from stopping.
const SLOWEST_BODY: Duration = Duration::from_secs(20);

/// Runs one HTTP function and logs its answer once.
pub fn answer<'a, T: IntoResponse + 'a>(
    function: &'static str,
    headers: &'a HeaderMap,
    handle: impl Future<Output = Result<T, Problem>> + Send + 'a,
) -> impl Future<Output = Response> + Send + 'a {
    let handle = handle.map_ok(IntoResponse::into_response).boxed();
    answer_by(function, headers, handle)
}

/// `handle` is boxed, so that this is in the program once and not for each function.
async fn answer_by(
    function: &'static str,
    headers: &HeaderMap,
    handle: BoxFuture<'_, Result<Response, Problem>>,
) -> Response {
    let started = Instant::now();
    let span = info_span!(
        "invocation",
        function,
        invocation.id = id(headers),
        order.id = field::Empty,
        trace.id = field::Empty,
        span.id = field::Empty,
        sink = field::Empty,
    );
    let step = begin(function, headers, &span);
    async {
        let mut gone = CallerGone(Some(function));
        let handled = AssertUnwindSafe(step.around(handle)).catch_unwind().await;
        gone.0 = None;
        let handled = handled.unwrap_or_else(|_| Err(Problem::bug()));
        let (response, cause) = match handled {
            Ok(response) => (response, None),
            Err(mut problem) => {
                let cause = problem.take_cause();
                (problem.into_response(), cause)
            }
        };
        let (status, duration_ms) = (response.status().as_u16(), millis(started));
        step.note(|recording| {
            recording.set("http.response.status_code", status);
            if status >= 500 {
                recording.fail(status.to_string());
            }
        });
        if function == "checkout" && status >= 400 {
            let code = response.status();
            let labels = [("http.response.status_code", code.as_str())];
            metrics::add(Figure::Refused, 1, &labels);
        }
        match cause {
            Some(cause) => error!(status, duration_ms, "{function} answered {status}: {cause}"),
            None => info!(status, duration_ms, "{function} answered {status}"),
        }
        response
    }
    .instrument(span)
    .await
}

/// Begins the request's span, as a part of the caller's trace if there is one.
fn begin(function: &'static str, headers: &HeaderMap, log: &tracing::Span) -> Span {
    let incoming = SpanContext::of_request(headers);
    let (method, route) = match function {
        "checkout" => ("POST", "/api/checkout"),
        "cancel" => ("POST", "/api/orders/{orderId}/cancel"),
        "order-status" => ("GET", "/api/orders/{orderId}/status"),
        "problem" => ("GET", "/api/problems/{name}"),
        _ => ("GET", "/api/orders/{orderId}"),
    };
    let span = Span::begin(Kind::Server, Parent::Remote(incoming), || {
        format!("{method} {route}")
    });
    span.note(|recording| {
        recording
            .set("http.request.method", method)
            .set("http.route", route)
            .set("faas.trigger", "http")
            .set_some("faas.invocation_id", id(headers).map(str::to_owned))
            .set("orderup.function", function);
    });
    if let Some(context) = span.context() {
        log.record("trace.id", field::display(context.trace()));
        log.record("span.id", field::display(context.span()));
    } else if let Some(incoming) = incoming {
        log.record("trace.id", field::display(incoming.trace()));
    }
    span
}

/// Says so when the request is dropped before its answer: the caller saw none, and an order may be on the topic.
struct CallerGone(Option<&'static str>);

impl Drop for CallerGone {
    fn drop(&mut self) {
        if let Some(function) = self.0 {
            warn!("the caller of {function} went away before the answer; it may have been taken");
        }
    }
}

/// Adds the order to what the log says of this request.
pub fn record_order(order_id: OrderId) {
    tracing::Span::current().record("order.id", field::display(order_id));
    Span::current().note(|recording| {
        recording.set("orderup.order.id", order_id.to_string());
    });
}

/// The JSON document that the request carries.
pub async fn json(headers: &HeaderMap, body: Body) -> Result<Value, Problem> {
    let media_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .map(|value| value.split(';').next().unwrap_or_default().trim())
        .unwrap_or_default()
        .to_ascii_lowercase();
    let bytes = tokio::time::timeout(SLOWEST_BODY, read(body))
        .await
        .map_err(|_| {
            let detail = "The body did not come in time.";
            Problem::new(ProblemType::BodyTimeout, detail)
        })??;
    if media_type != "application/json"
        && !(media_type.starts_with("application/") && media_type.ends_with("+json"))
    {
        return Err(Problem::new(
            ProblemType::UnsupportedMediaType,
            "The body should be JSON, with `Content-Type: application/json`.",
        ));
    }
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(Problem::new(
            ProblemType::UnsupportedMediaType,
            "The body should be sent as it is, without `Content-Encoding`.",
        ));
    }
    if bytes.is_empty() {
        return Err(Problem::new(
            ProblemType::InvalidJson,
            "The body is empty; it should be JSON.",
        ));
    }
    json::parse(&bytes).map_err(|error| {
        Problem::new(
            ProblemType::InvalidJson,
            format!("The body is not JSON: {error}."),
        )
    })
}

async fn read(mut body: Body) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::with_capacity(body.size_hint().lower().min(LONGEST_BODY as u64) as usize);
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| {
            Problem::new(
                ProblemType::IncompleteBody,
                "The body ended before its time.",
            )
        })?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        length += data.len();
        if length <= LONGEST_BODY {
            bytes.extend_from_slice(data);
        } else if length > LONGEST_DISCARDED {
            break;
        }
    }
    if length > LONGEST_BODY {
        return Err(too_large());
    }
    Ok(bytes)
}

/// 413, for a body that no message can hold.
pub fn too_large() -> Problem {
    Problem::new(
        ProblemType::TooLarge,
        format!("The order is larger than the {LONGEST_BODY} bytes that a message can hold."),
    )
}
