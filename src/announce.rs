//! Puts what happened to an order on the topic, and tells the caller when that was not possible.

use std::time::Duration;

use axum::http::HeaderMap;

use crate::{
    event::{self, Event},
    orders_topic::{OrdersTopic, Outgoing, PropertyValue, PublishError},
    problem::Problem,
    properties::{DIAGNOSTIC_ID, GENERATION, TRACEPARENT},
    request::{LONGEST_BODY, too_large},
    trace::{self, TraceParent},
};

/// What the broker's own properties and ours take of a message, generously.
const PROPERTIES: usize = 4 * 1024;

/// When a storefront should try again if the broker did not say.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// Answers once the broker has the event. The same event has the same message id, however often it is announced.
pub async fn announce(
    topic: &OrdersTopic,
    event: &Event,
    headers: &HeaderMap,
) -> Result<(), Problem> {
    let body = event.to_json();
    if body.len() + PROPERTIES > LONGEST_BODY {
        return Err(too_large());
    }
    let incoming = headers
        .get("traceparent")
        .and_then(|value| value.to_str().ok());
    let traceparent = TraceParent::next(incoming).to_string();
    if let Some(trace_id) = trace::trace_id(&traceparent) {
        tracing::Span::current().record("trace.id", trace_id);
    }
    let message = Outgoing {
        message_id: event.id(),
        label: event.kind.name().to_owned(),
        correlation_id: event.order_id().to_string(),
        content_type: event::CONTENT_TYPE.into(),
        body,
        scheduled_enqueue_time: None,
        properties: vec![
            // The first copy of what happened.
            (GENERATION.to_owned(), PropertyValue::Integer(0)),
            (
                TRACEPARENT.to_owned(),
                PropertyValue::Text(traceparent.clone()),
            ),
            (DIAGNOSTIC_ID.to_owned(), PropertyValue::Text(traceparent)),
        ],
    };
    topic.publish(&message).await.map_err(|error| match error {
        PublishError::TooLarge { .. } => too_large(),
        // Ours to mend, like a missing right, or the bus's; the caller can only come again either way.
        PublishError::Unsendable(_)
        | PublishError::Rejected { .. }
        | PublishError::Busy { .. }
        | PublishError::Unreachable { .. }
        | PublishError::Unanswered { .. }
        | PublishError::NoToken(_) => Problem::try_again(
            "This could not be taken just now. Please send the same request again; with the same \
             `Idempotency-Key` an order is not taken twice within ten minutes.",
            error.retry_after().unwrap_or(TRY_AGAIN),
            error.to_string(),
        ),
    })
}
