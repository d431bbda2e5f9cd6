//! Takes an order: `POST /api/checkout`.
//!
//! Runs once per order that a storefront sends. 202 means that the broker has the order, or while it is down the outbox
//! ([`crate::announce`]), and nothing else was waited for. A process that is killed before the answer may leave an order on the topic whose customer saw an error: a
//! storefront that tries again with the same `Idempotency-Key` gets the same order, and the topic drops the duplicate.

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    App,
    announce::announce,
    event::{self, Event, EventKind},
    order::OrderId,
    order_token::OrderTokens,
    place_order::PlaceOrder,
    problem::Problem,
    problem_type::ProblemType,
    request,
};

pub async fn checkout(State(app): State<App>, headers: HeaderMap, body: Body) -> Response {
    request::answer("checkout", &headers, async {
        let body = request::json(&headers, body).await?;
        let key = idempotency_key(&headers)?;
        let order = PlaceOrder::from_request(&body).map_err(Problem::invalid_fields)?;
        let order_id = match key {
            Some(key) => order.keyed_id(&key),
            None => OrderId(Uuid::now_v7()),
        };
        request::record_order(order_id);
        let now = event::now();
        let event = Event {
            kind: EventKind::Placed,
            time: now,
            order: order.place(order_id, Some(now)),
        };
        announce(&app, &event, &headers).await?;
        Ok(accepted(&event, app.order_tokens.as_ref()))
    })
    .await
}

fn accepted(event: &Event, tokens: Option<&OrderTokens>) -> impl IntoResponse + use<> {
    let order_id = event.order_id();
    let location = format!("/api/orders/{order_id}");
    let mut answer = json!({
        "orderId": order_id,
        "status": "accepted",
        "total": event.order.total,
        "links": { "self": location, "cancel": format!("{location}/cancel") },
    });
    if let Some(tokens) = tokens {
        let token = tokens.token(order_id);
        answer["links"]["status"] = json!(format!("{location}/status?token={token}"));
        answer["token"] = json!(token);
    }
    let body: Json<Value> = Json(answer);
    (StatusCode::ACCEPTED, [(header::LOCATION, location)], body)
}

/// The `Idempotency-Key` header, bare as most send it or a quoted string as draft-ietf-httpapi-idempotency-key-header
/// says. An empty one is none.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut keys = headers.get_all("idempotency-key").iter();
    let Some(value) = keys.next() else {
        return Ok(None);
    };
    let invalid = || {
        Problem::new(
            ProblemType::InvalidIdempotencyKey,
            "There should be one `Idempotency-Key` header of at most 255 printable ASCII characters, bare or in double \
             quotes.",
        )
    };
    if keys.next().is_some() {
        return Err(invalid());
    }
    let text = value.to_str().map_err(|_| invalid())?.trim();
    let key = match text.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"').ok_or_else(invalid)?,
        None => text,
    };
    let valid = key.len() <= 255
        && key
            .bytes()
            .all(|byte| matches!(byte, b' '..=b'~') && byte != b'"');
    match (valid, key) {
        (false, _) => Err(invalid()),
        (true, "") => Ok(None),
        (true, key) => Ok(Some(key.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(value: &'static str) -> Result<Option<String>, StatusCode> {
        let mut headers = HeaderMap::new();
        headers.insert("idempotency-key", value.parse().unwrap());
        idempotency_key(&headers).map_err(|problem| problem.into_response().status())
    }

    #[test]
    fn a_key_is_the_same_bare_and_quoted() {
        assert_eq!(key("8e03978e-40d5"), Ok(Some("8e03978e-40d5".to_owned())));
        assert_eq!(key("\"8e03978e-40d5\""), key(" 8e03978e-40d5 "));
        assert_eq!(key("\"two words\""), Ok(Some("two words".to_owned())));
        assert_eq!(key(""), Ok(None));
        assert_eq!(key("\"\""), Ok(None));
        assert!(matches!(idempotency_key(&HeaderMap::new()), Ok(None)));
    }

    #[test]
    fn a_key_that_is_none_is_refused() {
        for value in ["\"open", "a\"b", "a\tb"] {
            assert_eq!(key(value), Err(StatusCode::BAD_REQUEST), "{value}");
        }
        let mut two = HeaderMap::new();
        two.append("idempotency-key", "a".parse().unwrap());
        two.append("idempotency-key", "b".parse().unwrap());
        assert!(idempotency_key(&two).is_err());
    }
}
