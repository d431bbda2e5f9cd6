//! Says how far an order is: `GET /api/orders/{orderId}`, and `GET /api/orders/{orderId}/status`.
//!
//! Runs once per request, and only reads the order book. The first is for whoever has a key of the app, for which the host
//! asks; the second for whoever placed the order and has its token ([`crate::order_token`]), which is checked before anything
//! else is asked. Checkout answers before the book has the order, and so 200 with the status `accepted` means that it may
//! have been taken and is not in the book yet, and 404 that it was not. 503 means that the book does not answer; it says
//! nothing about the order.

use std::time::Duration;

use axum::{
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    App,
    order::OrderId,
    order_book::{self, BookError, OrderBook},
    order_token::OrderTokens,
    problem::Problem,
    problem_type::ProblemType,
    request,
    timeline::{self, Contents},
};

/// An order of a hundred vendors has hundreds of facts.
const READS_AT_ONCE: usize = 16;

/// When to ask again for an order that is not in the book yet: it is there within a second or two, unless the bus is down.
const NOT_THERE_YET: &str = "2";

/// When to ask again if the book does not answer.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// How long an order may be on its way into the book: as long as an outage that nobody has mended yet.
const LONGEST_WAY: time::Duration = time::Duration::hours(24);

/// How far the clocks of two instances may be apart.
const CLOCK_SKEW: time::Duration = time::Duration::minutes(5);

/// For whoever has a key of the app.
pub async fn order(
    State(app): State<App>,
    order_id: Result<Path<Uuid>, PathRejection>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    request::answer("order", &headers, async {
        let order = read_id(&order_id)?;
        let tokens = app.order_tokens.as_ref();
        let asked = Asked {
            order,
            is_proven: tokens.is_some_and(|tokens| is_proven(tokens, order, &uri, &headers)),
            link: format!("/api/orders/{order}"),
            now: OffsetDateTime::now_utc(),
        };
        answer(&app.deliverer.book, asked, &headers).await
    })
    .await
}

/// For whoever has the order's token.
pub async fn order_status(
    State(app): State<App>,
    order_id: Result<Path<Uuid>, PathRejection>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    request::answer("order-status", &headers, async {
        let order = read_id(&order_id)?;
        let Some(tokens) = &app.order_tokens else {
            // With 401 its caller would look for a token that nobody can have.
            let detail = "No order has a token here, because ORDER_TOKEN_SECRET is not set. With a key of the app, its \
                 status is at `/api/orders/{orderId}`.";
            return Err(Problem::new(ProblemType::NoOrderTokens, detail));
        };
        if !is_proven(tokens, order, &uri, &headers) {
            return Ok(unauthorized());
        }
        let asked = Asked {
            order,
            is_proven: true,
            link: format!("/api/orders/{order}/status"),
            now: OffsetDateTime::now_utc(),
        };
        answer(&app.deliverer.book, asked, &headers).await
    })
    .await
}

/// Whether an order of which the book knows nothing may have been taken and be on its way there: an id that checkout has made
/// says when. One that is made of an `Idempotency-Key` says nothing.
pub fn may_be_on_its_way(order: OrderId, now: OffsetDateTime) -> bool {
    if order.0.get_version_num() != 7 {
        return false;
    }
    let made = order.0.get_timestamp().and_then(|made| {
        let (seconds, _) = made.to_unix();
        OffsetDateTime::from_unix_timestamp(seconds.try_into().ok()?).ok()
    });
    made.is_some_and(|made| now - made <= LONGEST_WAY && made - now <= CLOCK_SKEW)
}

/// What is asked for.
struct Asked {
    order: OrderId,
    /// There is a valid token for it: it is an id that checkout has given somebody.
    is_proven: bool,
    /// Where it is asked for.
    link: String,
    now: OffsetDateTime,
}

async fn answer(book: &OrderBook, asked: Asked, headers: &HeaderMap) -> Result<Response, Problem> {
    let order = asked.order;
    let facts = async {
        let names = book.names(order).await?;
        let contents = contents(book, order, timeline::needed(&names)).await?;
        Ok((names, contents))
    };
    let (names, contents) = facts.await.map_err(|error| problem(&error))?;
    let is_there = !names.is_empty();
    if !is_there && !asked.is_proven && !may_be_on_its_way(order, asked.now) {
        let detail = "There is no order of that id. One that was sent with an `Idempotency-Key` may be on its way for \
             some seconds.";
        return Err(Problem::new(ProblemType::OrderNotFound, detail));
    }
    let told = timeline::tell(order, &names, &contents, asked.link);
    let body = serde_json::to_vec(&told).expect("a timeline is made of plain values");
    Ok(conditional(body, is_there, headers))
}

/// What is in the facts of these names; one that is gone meanwhile is left out.
async fn contents(
    book: &OrderBook,
    order: OrderId,
    names: Vec<String>,
) -> Result<Contents, BookError> {
    let store = book.store()?;
    let read = stream::iter(names).map(async |name| {
        let body = store.get(&order_book::path(order, &name)).await?;
        Ok::<_, BookError>(body.map(|body| (name, body)))
    });
    read.buffer_unordered(READS_AT_ONCE)
        .try_filter_map(async |read| Ok(read))
        .try_collect()
        .await
}

fn problem(error: &BookError) -> Problem {
    match error {
        // Nothing is out of order, and nothing will be there later.
        BookError::NotKept => Problem::new(
            ProblemType::NoOrderBook,
            "No order book is kept here (see ORDER_BOOK), and so no order's status is known.",
        ),
        BookError::Store(_) | BookError::Corrupt { .. } => Problem::try_again(
            ProblemType::OrderBookUnavailable,
            "The order book does not answer just now. That says nothing about the order; please ask again.",
            TRY_AGAIN,
            error.to_string(),
        ),
    }
}

/// 200 with the body, or 304 where the caller has it.
fn conditional(body: Vec<u8>, is_there: bool, headers: &HeaderMap) -> Response {
    let digest = Sha256::digest(&body);
    let digits: String = digest[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let etag = format!("\"{digits}\"");
    let mut response = if is_known(&etag, headers) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, "application/json")], body).into_response()
    };
    let mut add = |name, value: &str| {
        let value = HeaderValue::from_str(value).expect("these are a header's characters");
        response.headers_mut().insert(name, value);
    };
    add(header::ETAG, &etag);
    // To be kept by whoever asked, and asked for again each time.
    add(header::CACHE_CONTROL, "private, no-cache");
    if !is_there {
        add(header::RETRY_AFTER, NOT_THERE_YET);
    }
    response
}

/// Whether `If-None-Match` has it. It is compared weakly (RFC 9110, section 13.1.2): a proxy may have compressed it.
fn is_known(etag: &str, headers: &HeaderMap) -> bool {
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == etag)
}

fn read_id(order_id: &Result<Path<Uuid>, PathRejection>) -> Result<OrderId, Problem> {
    let Ok(Path(order_id)) = *order_id else {
        let detail = "The order id in the path is not a UUID.";
        return Err(Problem::new(ProblemType::OrderNotFound, detail));
    };
    let order = OrderId(order_id);
    request::record_order(order);
    Ok(order)
}

/// Whether the request has the order's token, in `Authorization: Bearer` or in `?token=`, which a link in an email can have.
fn is_proven(tokens: &OrderTokens, order: OrderId, uri: &Uri, headers: &HeaderMap) -> bool {
    let bearer = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .is_some_and(|(_, token)| tokens.is_valid(order, token.trim()));
    bearer
        || form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
            .any(|(name, token)| name == "token" && tokens.is_valid(order, &token))
}

/// The same whether there is such an order or not.
fn unauthorized() -> Response {
    let detail = "This needs the order's token, which checkout has answered with: `Authorization: Bearer …`, or `?token=…`.";
    let mut response = Problem::new(ProblemType::OrderTokenRequired, detail).into_response();
    let challenge = HeaderValue::from_static("Bearer");
    response
        .headers_mut()
        .insert(header::WWW_AUTHENTICATE, challenge);
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use serde_json::Value;
    use time::macros::datetime;

    use super::*;
    use crate::{
        config::Settings,
        event::tests::order_placed,
        order_book::{PLACED, tests::TestBook},
        order_token::tests::OLD,
    };

    /// Half an hour after the order was placed.
    const NOW: OffsetDateTime = datetime!(2026-11-22 20:10 UTC);

    fn asked(order: OrderId, is_proven: bool) -> Asked {
        Asked {
            order,
            is_proven,
            link: "/here".to_owned(),
            now: NOW,
        }
    }

    fn headers(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
        let pairs = pairs.iter().cloned();
        pairs
            .map(|(name, value)| (name, value.parse().unwrap()))
            .collect()
    }

    async fn json(response: Response) -> Value {
        let body = response.into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice(&body).unwrap()
    }

    fn id_of(made: OffsetDateTime) -> OrderId {
        let seconds = made.unix_timestamp().try_into().unwrap();
        let made = uuid::Timestamp::from_unix(uuid::NoContext, seconds, 0);
        OrderId(Uuid::new_v7(made))
    }

    #[tokio::test]
    async fn an_order_in_the_book_is_told_without_its_customer() {
        let book = TestBook::new();
        let placed = order_placed();
        book.keep_placed(&placed).await.unwrap();
        let answered = answer(&book, asked(placed.order_id(), false), &HeaderMap::new()).await;
        let response = answered.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(
            response.headers()[header::CACHE_CONTROL],
            "private, no-cache"
        );
        assert!(!response.headers().contains_key(header::RETRY_AFTER));
        let told = json(response).await;
        assert_eq!(told["status"], "placed");
        assert_eq!(told["total"]["amount"], 3400);
        for personal in ["Ada", "Lovelace", "example.net", "en-AU", "cnon", "PANCAKE"] {
            assert!(!told.to_string().contains(personal), "{told}");
        }
    }

    #[tokio::test]
    async fn whoever_has_the_answer_does_not_get_it_again() {
        let book = TestBook::new();
        let placed = order_placed();
        let order = placed.order_id();
        book.keep_placed(&placed).await.unwrap();
        let first = answer(&book, asked(order, false), &HeaderMap::new()).await;
        let etag = first.unwrap().headers()[header::ETAG].clone();
        let etag = etag.to_str().unwrap();
        assert_eq!(etag.len(), 34, "{etag}");
        let lists = [
            etag.to_owned(),
            format!("W/{etag}"),
            format!("\"a\", W/\"b\",{etag} "),
            "*".to_owned(),
        ];
        for list in &lists {
            let headers = headers(&[(header::IF_NONE_MATCH, list)]);
            let response = answer(&book, asked(order, false), &headers).await.unwrap();
            assert_eq!(response.status(), StatusCode::NOT_MODIFIED, "{list}");
            assert_eq!(response.headers()[header::ETAG], etag);
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert!(body.is_empty());
        }
        book.write(order, "confirmed.json", &order_book::Confirmed { at: NOW })
            .await
            .unwrap();
        let headers = headers(&[(header::IF_NONE_MATCH, etag)]);
        let response = answer(&book, asked(order, false), &headers).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_ne!(response.headers()[header::ETAG], etag);
    }

    #[tokio::test]
    async fn an_order_that_is_not_there_may_be_on_its_way() {
        let book = TestBook::new();
        let keyed = OrderId(Uuid::new_v5(&Uuid::NAMESPACE_URL, b"key"));
        for (order, is_proven, status) in [
            (id_of(NOW - time::Duration::minutes(1)), false, 200),
            (id_of(NOW - time::Duration::days(2)), false, 404),
            (id_of(NOW - time::Duration::days(2)), true, 200),
            (keyed, false, 404),
            (keyed, true, 200),
        ] {
            let answered = answer(&book, asked(order, is_proven), &HeaderMap::new()).await;
            let response = answered.unwrap_or_else(IntoResponse::into_response);
            assert_eq!(response.status().as_u16(), status, "{order} {is_proven}");
            if status == 200 {
                assert_eq!(response.headers()[header::RETRY_AFTER], "2");
                let told = json(response).await;
                assert_eq!(told["status"], "accepted");
                assert_eq!(told["timeline"], serde_json::json!([]));
            }
        }
        let none = answer(&OrderBook::none(), asked(keyed, true), &HeaderMap::new()).await;
        let response = none.unwrap_err().into_response();
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        let told = json(response).await;
        assert!(told["detail"].as_str().unwrap().contains("No order book"));
    }

    #[tokio::test]
    async fn a_fact_that_is_no_json_is_named() {
        let book = TestBook::new();
        let placed = order_placed();
        let order = placed.order_id();
        book.keep_placed(&placed).await.unwrap();
        let broken = order_book::path(order, "confirmed.json");
        let store = book.store().unwrap();
        store.put_once(&broken, &b"Ada, {"[..]).await.unwrap();
        let answered = answer(&book, asked(order, false), &HeaderMap::new()).await;
        let told = json(answered.unwrap()).await;
        assert_eq!(told["status"], "confirmed");
        assert_eq!(told["unreadable"], serde_json::json!(["confirmed.json"]));
        assert!(
            store
                .get(&order_book::path(order, PLACED))
                .await
                .unwrap()
                .is_some()
        );
    }

    #[test]
    fn a_book_that_does_not_answer_says_nothing_about_the_order() {
        let mut problem = problem(&BookError::Corrupt {
            path: "x".to_owned(),
            reason: "y".to_owned(),
        });
        assert!(problem.take_cause().is_some());
        let response = problem.into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "5");
    }

    #[test]
    fn an_id_says_whether_it_may_be_on_its_way() {
        let minutes = time::Duration::minutes;
        for (age, may) in [
            (minutes(0), true),
            (minutes(24 * 60 - 1), true),
            (minutes(24 * 60 + 1), false),
            (minutes(-4), true),
            (minutes(-6), false),
        ] {
            assert_eq!(may_be_on_its_way(id_of(NOW - age), NOW), may, "{age}");
        }
        for id in [Uuid::new_v4(), Uuid::nil(), Uuid::max()] {
            assert!(!may_be_on_its_way(OrderId(id), NOW), "{id}");
        }
    }

    #[test]
    fn a_token_comes_as_a_bearer_or_in_the_query() {
        let settings = Settings::from_pairs([("ORDER_TOKEN_SECRET", OLD)]);
        let tokens = OrderTokens::from_settings(&settings).unwrap().unwrap();
        let order = order_placed().order_id();
        let token = tokens.token(order);
        let bearer = |text: &str| headers(&[(header::AUTHORIZATION, text)]);
        let is_proven = |query: &str, headers: &HeaderMap| {
            let uri = format!("/api/orders/{order}/status{query}");
            is_proven(&tokens, order, &uri.parse().unwrap(), headers)
        };
        let none = HeaderMap::new();
        assert!(is_proven(&format!("?token={token}"), &none));
        assert!(is_proven(&format!("?a=b&token={token}&c"), &none));
        assert!(is_proven("", &bearer(&format!("Bearer {token}"))));
        assert!(is_proven("?token=x", &bearer(&format!("bearer  {token}"))));
        for (query, headers) in [
            ("", none.clone()),
            ("?token=", none.clone()),
            (&format!("?Token={token}"), none.clone()),
            (&format!("?token={token}x"), none),
            ("", bearer(&token)),
            ("", bearer(&format!("Basic {token}"))),
            ("", bearer("Bearer")),
        ] {
            assert!(!is_proven(query, &headers), "{query} {headers:?}");
        }
        let response = unauthorized();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(response.headers()[header::WWW_AUTHENTICATE], "Bearer");
    }
}
