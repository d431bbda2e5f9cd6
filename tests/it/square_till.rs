//! Orders at Square, one delivery at a time: what is asked of it after each of its answers, and what comes of the order.
//!
//! What holds in every test: whatever is said for certain, nothing stays reserved and the order can be cancelled; a captured
//! payment is a confirmed order.

use std::sync::Arc;

use axum::http::StatusCode;
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};
use tokio::sync::Notify;

use crate::{
    copies::at,
    handler::{Folder, Handler, order_placed},
    scripted_server::{Received, Reply, ScriptedServer},
};

const ORDER: &str = "01935a1e-9c00-7000-8000-000000000001";

const CREATE: &str = "POST /v2/orders";
const AUTHORISE: &str = "POST /v2/payments";
const CAPTURE: &str = "POST /v2/orders/O-1/pay";
const ASK: &str = "GET /v2/payments/P-1";
const ASK_ORDER: &str = "GET /v2/orders/O-1";
const VOID: &str = "POST /v2/payments/P-1/cancel";
const VOID_BY_KEY: &str = "POST /v2/payments/cancel";
const CANCEL: &str = "PUT /v2/orders/O-1";

struct Shop {
    handler: Handler,
    square: ScriptedServer,
    book: Folder,
    event: Value,
}

async fn instance(square: &ScriptedServer, book: &Folder) -> Handler {
    Handler::start_with(&[
        ("ORDER_BOOK", book.0.to_str().unwrap()),
        ("TILL", "square"),
        ("SQUARE_BASE_URL", &square.url()),
        ("SQUARE_ACCESS_TOKEN", "EAAA-test-token"),
        ("SQUARE_LOCATION_ID", "LOC1"),
    ])
    .await
}

impl Shop {
    /// An order of a minute ago.
    async fn start() -> Self {
        let square = ScriptedServer::start([Reply::status(503)]).await;
        let book = Folder::new();
        let handler = instance(&square, &book).await;
        let mut event = order_placed();
        event["time"] = json!(at(OffsetDateTime::now_utc() - Duration::minutes(1)));
        Self {
            handler,
            square,
            book,
            event,
        }
    }

    async fn external() -> Self {
        let mut shop = Self::start().await;
        shop.event["data"]["payment"]["source"] = json!("EXTERNAL");
        shop
    }

    fn square_says(&self, replies: impl IntoIterator<Item = Reply>) {
        for reply in replies {
            self.square.reply_once(reply);
        }
    }

    /// Delivers the order to the till, and answers what went to the topic.
    async fn deliver(&self) -> Came {
        self.deliver_with(&json!({})).await
    }

    async fn deliver_with(&self, properties: &Value) -> Came {
        let response = self.handler.trigger_copy("till", &self.event, properties);
        assert_eq!(response.await.status(), StatusCode::OK);
        let mut sent = self.handler.bus.rest();
        assert_eq!(sent.len(), 1, "{sent:?}");
        Came(sent.remove(0))
    }

    /// A cancellation of somebody who had no order book, as the function hears it.
    async fn hears_of_a_cancellation(&self, function: &str) -> Vec<Received> {
        let mut event = self.event.clone();
        event["type"] = json!("order.cancelled");
        event["id"] = json!(format!("{ORDER}:cancelled"));
        event["data"]["cancellation"] = json!({ "reason": "By hand" });
        let body = event.to_string();
        let response = self.handler.trigger(function, body.as_bytes()).await;
        assert_eq!(response.status(), StatusCode::OK);
        self.handler.bus.rest()
    }

    async fn keep_placed(&self) {
        let body = self.event.to_string();
        let response = self.handler.trigger("book", body.as_bytes()).await;
        assert_eq!(response.status(), StatusCode::OK);
    }

    async fn cancel(&self) -> StatusCode {
        self.keep_placed().await;
        let body = json!({ "reason": "Changed my mind" });
        let path = format!("/api/orders/{ORDER}/cancel");
        let status = self.handler.post(&path, &body).await.status();
        self.handler.bus.rest();
        status
    }

    /// What Square was asked since the last time.
    fn asked(&self) -> Vec<String> {
        let asked = self.square.rest().into_iter();
        asked
            .map(|asked| format!("{} {}", asked.method, asked.path_and_query))
            .collect()
    }

    fn fact(&self, name: &str) -> std::path::PathBuf {
        self.book.0.join(format!("orders/{ORDER}/{name}"))
    }

    /// The order is a person's, who may cancel it: then it stays cancelled, and nothing is captured.
    async fn assert_given_up(&self, came: &Came, reason: &str) {
        assert_eq!(came.reason(), Some(reason), "{came:?}");
        assert_eq!(self.cancel().await, StatusCode::ACCEPTED);
        self.square.rest();
        // Every round's payment is voided once more.
        let is_there =
            |name: &str, round: u32| self.fact(&format!("till/{name}-{round}.json")).exists();
        let mut voided = Vec::new();
        for round in 1.. {
            match is_there("payment", round) {
                true => {
                    voided.push(VOID);
                    self.square_says([payment("CANCELED")]);
                }
                false => {
                    voided.push(VOID_BY_KEY);
                    self.square_says([nothing_found()]);
                }
            }
            if !is_there("released", round) {
                break;
            }
        }
        self.square_says([order("CANCELED")]);
        let came = self.deliver().await;
        assert_eq!(came.kind(), "order.cancelled");
        assert_eq!(self.asked(), [&voided[..], &[ASK_ORDER]].concat());
    }
}

/// What the delivery put onto the topic.
#[derive(Debug)]
struct Came(Received);

impl Came {
    fn kind(&self) -> String {
        self.0.json()["type"].as_str().unwrap().to_owned()
    }

    fn reason(&self) -> Option<&str> {
        let reason = self.0.headers.get("dead-letter-reason")?;
        Some(reason.to_str().unwrap().trim_matches('"'))
    }

    /// The order comes again.
    fn is_later(&self) -> bool {
        self.kind() == "order.placed" && self.reason().is_none()
    }
}

fn order(state: &str) -> Reply {
    let money = json!({ "amount": 3400, "currency": "AUD" });
    let order = json!({ "id": "O-1", "version": 1, "state": state, "total_money": money });
    Reply::text(200, &json!({ "order": order }).to_string())
}

fn payment_text(status: &str) -> String {
    let money = json!({ "amount": 3400, "currency": "AUD" });
    json!({ "payment": { "id": "P-1", "status": status, "amount_money": money } }).to_string()
}

fn payment(status: &str) -> Reply {
    Reply::text(200, &payment_text(status))
}

fn no(status: u16, category: &str, code: &str) -> Reply {
    let errors = json!({ "errors": [{ "category": category, "code": code }] });
    Reply::text(status, &errors.to_string())
}

fn wrong_state() -> Reply {
    no(400, "INVALID_REQUEST_ERROR", "BAD_REQUEST")
}

fn refused() -> Reply {
    no(400, "INVALID_REQUEST_ERROR", "VALUE_TOO_LOW")
}

fn declined() -> Reply {
    no(402, "PAYMENT_METHOD_ERROR", "GENERIC_DECLINE")
}

/// Of this request alone.
fn not_now() -> Reply {
    no(409, "INVALID_REQUEST_ERROR", "CONFLICT")
}

fn used() -> Reply {
    no(400, "INVALID_REQUEST_ERROR", "CARD_TOKEN_USED")
}

fn nothing_found() -> Reply {
    Reply::text(200, "{}")
}

#[tokio::test]
async fn what_is_authorised_is_voided_when_the_capture_is_refused_for_good() {
    for (answer, reason) in [
        (refused(), "TillRefused"),
        (wrong_state(), "TillRefused"),
        (declined(), "PaymentLapsed"),
    ] {
        let shop = Shop::start().await;
        shop.square_says([order("OPEN"), payment("APPROVED"), answer]);
        shop.square_says([payment("APPROVED"), payment("CANCELED"), order("OPEN")]);
        let came = shop.deliver().await;
        let asked = [CREATE, AUTHORISE, CAPTURE, ASK, VOID, ASK_ORDER];
        assert_eq!(shop.asked(), asked);
        shop.assert_given_up(&came, reason).await;
    }
}

#[tokio::test]
async fn what_was_taken_back_at_square_is_a_persons() {
    let shop = Shop::start().await;
    shop.square_says([order("OPEN"), payment("APPROVED"), wrong_state()]);
    shop.square_says([payment("CANCELED"), wrong_state(), payment("CANCELED")]);
    shop.square_says([order("OPEN")]);
    let came = shop.deliver().await;
    shop.assert_given_up(&came, "PaymentLapsed").await;

    // Or before its answer came.
    let shop = Shop::start().await;
    shop.square_says([order("OPEN"), payment("CANCELED")]);
    shop.square_says([nothing_found(), order("OPEN")]);
    let came = shop.deliver().await;
    assert_eq!(shop.asked(), [CREATE, AUTHORISE, VOID_BY_KEY, ASK_ORDER]);
    shop.assert_given_up(&came, "PaymentLapsed").await;
}

#[tokio::test]
async fn what_is_captured_already_is_confirmed() {
    let shop = Shop::start().await;
    shop.square_says([order("OPEN"), payment("APPROVED"), wrong_state()]);
    shop.square_says([payment("COMPLETED")]);
    assert_eq!(shop.deliver().await.kind(), "order.confirmed");
    assert_eq!(shop.cancel().await, StatusCode::CONFLICT);
    // Whatever others make of its round.
    let step = json!({ "at": "2026-11-25T05:00:00Z" }).to_string();
    std::fs::write(shop.fact("till/released-1.json"), step).unwrap();
    assert_eq!(shop.cancel().await, StatusCode::CONFLICT);

    // Also where it comes to light only when it is to be voided.
    let shop = Shop::start().await;
    shop.square_says([order("OPEN"), payment("APPROVED"), refused()]);
    shop.square_says([payment("APPROVED"), wrong_state(), payment("COMPLETED")]);
    assert_eq!(shop.deliver().await.kind(), "order.confirmed");

    // Or by the order alone, its own answer being lost.
    let shop = Shop::start().await;
    shop.square_says([order("OPEN"), wrong_state(), wrong_state()]);
    shop.square_says([order("COMPLETED")]);
    assert_eq!(shop.deliver().await.kind(), "order.confirmed");
}

/// Whatever it answers, or nothing, when it has captured: the next delivery finds out.
#[tokio::test]
async fn a_capture_whose_answer_was_lost_is_confirmed_and_not_repeated() {
    for answer in [
        Reply::status(503),
        Reply::with_header(429, "retry-after", "1"),
        Reply::status(500),
        no(500, "API_ERROR", "GATEWAY_TIMEOUT"),
        Reply::Hang,
    ] {
        let mut shop = Shop::start().await;
        shop.square_says([order("OPEN"), payment("APPROVED"), answer]);
        assert!(shop.deliver().await.is_later());
        // One that need not wait until Square wants to be asked again.
        shop.handler = instance(&shop.square, &shop.book).await;
        let asked = shop.square.rest();
        let key = asked[2].json()["idempotency_key"].clone();
        shop.square_says([wrong_state(), payment("COMPLETED")]);
        assert_eq!(shop.deliver().await.kind(), "order.confirmed");
        let asked = shop.square.rest();
        assert_eq!(asked[0].path_and_query, "/v2/orders/O-1/pay");
        assert_eq!(asked[0].json()["idempotency_key"], key);
        assert_eq!(asked.len(), 2, "{asked:?}");
    }
}

#[tokio::test]
async fn a_payment_that_is_refused_as_it_is_written_is_a_persons() {
    for answer in [
        refused(),
        wrong_state(),
        no(400, "INVALID_REQUEST_ERROR", "LOCATION_MISMATCH"),
    ] {
        let shop = Shop::start().await;
        shop.square_says([order("OPEN"), answer, nothing_found(), order("OPEN")]);
        let came = shop.deliver().await;
        shop.assert_given_up(&came, "TillRefused").await;
    }
}

/// Killed after any of its steps, giving up is finished by the next delivery.
#[tokio::test]
async fn what_is_begun_to_be_given_up_is_finished() {
    let shop = Shop::start().await;
    shop.square_says([order("OPEN"), payment("APPROVED"), refused()]);
    shop.square_says([payment("APPROVED"), Reply::status(503)]);
    assert!(shop.deliver().await.is_later());
    assert!(shop.fact("till/abandoned-1.json").exists());
    // As long as nobody knows whether it was captured.
    assert_eq!(shop.cancel().await, StatusCode::CONFLICT);
    let asked = shop.square.rest();
    let first_key = asked[1].json()["idempotency_key"].clone();

    shop.square_says([payment("CANCELED"), order("OPEN"), used()]);
    shop.square_says([nothing_found(), order("OPEN")]);
    let came = shop.deliver().await;
    let asked = shop.square.rest();
    assert_eq!(asked[2].path_and_query, "/v2/payments");
    assert_ne!(asked[2].json()["idempotency_key"], first_key);
    assert_eq!(asked.len(), 5, "{asked:?}");
    shop.assert_given_up(&came, "PaymentLapsed").await;
}

#[tokio::test]
async fn a_kill_after_the_payment_is_voided_leaves_no_order_that_can_t_be_cancelled() {
    let shop = Shop::start().await;
    shop.square_says([order("OPEN"), payment("APPROVED"), Reply::status(503)]);
    assert!(shop.deliver().await.is_later());
    let step = json!({ "at": "2026-11-25T05:00:00Z" }).to_string();
    for name in ["abandoned-1", "voided-1"] {
        std::fs::write(shop.fact(&format!("till/{name}.json")), &step).unwrap();
    }
    shop.square.rest();
    shop.square_says([wrong_state(), payment("CANCELED"), order("OPEN"), used()]);
    shop.square_says([nothing_found(), order("OPEN")]);
    let came = shop.deliver().await;
    assert_eq!(shop.asked()[..4], [VOID, ASK, ASK_ORDER, AUTHORISE]);
    shop.assert_given_up(&came, "PaymentLapsed").await;
}

/// The others have voided before it was authorised, and so could not see it.
#[tokio::test]
async fn what_others_have_given_up_meanwhile_is_voided_and_not_captured() {
    let shop = Shop::start().await;
    let release = Arc::new(Notify::new());
    let held = Reply::Held(release.clone(), 200, payment_text("APPROVED"));
    shop.square_says([order("OPEN"), held, payment("CANCELED")]);
    let meanwhile = async {
        while shop.square.next().await.path_and_query != "/v2/payments" {}
        let step = json!({ "at": "2026-11-25T05:00:00Z" }).to_string();
        std::fs::write(shop.fact("till/abandoned-1.json"), step).unwrap();
        release.notify_one();
    };
    let (came, ()) = tokio::join!(shop.deliver(), meanwhile);
    assert!(came.is_later(), "{came:?}");
    assert_eq!(shop.asked(), [VOID]);
}

/// The book does not take what was authorised: it is not captured, and found again by its key.
#[tokio::test]
async fn a_book_that_is_gone_in_the_middle_of_an_order_delays_it() {
    let shop = Shop::start().await;
    let elsewhere = Folder::new();
    let release = Arc::new(Notify::new());
    let held = Reply::Held(release.clone(), 200, payment_text("APPROVED"));
    shop.square_says([order("OPEN"), held]);
    let meanwhile = async {
        let authorised = loop {
            let asked = shop.square.next().await;
            if asked.path_and_query == "/v2/payments" {
                break asked;
            }
        };
        std::fs::rename(&shop.book.0, elsewhere.0.join("book")).unwrap();
        release.notify_one();
        authorised.json()["idempotency_key"].clone()
    };
    let (came, key) = tokio::join!(shop.deliver(), meanwhile);
    assert!(came.is_later(), "{came:?}");
    assert!(shop.asked().is_empty());
    std::fs::rename(elsewhere.0.join("book"), &shop.book.0).unwrap();
    shop.square_says([payment("APPROVED"), order("COMPLETED")]);
    assert_eq!(shop.deliver().await.kind(), "order.confirmed");
    let asked = shop.square.rest();
    assert_eq!(asked[0].json()["idempotency_key"], key);
    assert_eq!(asked[1].path_and_query, "/v2/orders/O-1/pay");
}

/// An attempt of ours of which nobody knows may have used the token up: no decline, which would cancel the order.
#[tokio::test]
async fn a_token_that_is_used_up_after_a_lost_answer_is_no_decline() {
    let shop = Shop::start().await;
    shop.square_says([order("OPEN"), Reply::status(500)]);
    assert!(shop.deliver().await.is_later());
    shop.square_says([used(), nothing_found(), order("OPEN")]);
    let came = shop.deliver().await;
    shop.assert_given_up(&came, "PaymentLapsed").await;
}

#[tokio::test]
async fn a_token_that_has_lapsed_while_the_order_waited_is_no_decline() {
    for code in ["CARD_TOKEN_EXPIRED", "SOURCE_EXPIRED", "NOT_FOUND"] {
        let mut shop = Shop::start().await;
        shop.event["time"] = json!(at(OffsetDateTime::now_utc() - Duration::minutes(11)));
        let field = json!({ "errors": [{ "category": "INVALID_REQUEST_ERROR", "code": code, "field": "source_id" }] });
        shop.square_says([order("OPEN"), Reply::text(400, &field.to_string())]);
        shop.square_says([nothing_found(), order("OPEN")]);
        let came = shop.deliver().await;
        shop.assert_given_up(&came, "PaymentLapsed").await;
    }
    // A card that has expired is one, however late.
    let mut shop = Shop::start().await;
    shop.event["time"] = json!(at(OffsetDateTime::now_utc() - Duration::minutes(11)));
    shop.square_says([
        order("OPEN"),
        no(400, "PAYMENT_METHOD_ERROR", "CARD_EXPIRED"),
    ]);
    shop.square_says([nothing_found()]);
    assert_eq!(shop.deliver().await.kind(), "order.cancelled");
}

/// What Square answers to whoever voids a payment that has failed it does not say.
#[tokio::test]
async fn a_decline_cancels_the_order_whatever_square_says_of_what_is_left_of_it() {
    let shop = Shop::start().await;
    shop.square_says([order("OPEN"), declined(), wrong_state(), order("OPEN")]);
    shop.square_says([order("OPEN"), order("CANCELED")]);
    assert_eq!(shop.deliver().await.kind(), "order.cancelled");
    let asked = [CREATE, AUTHORISE, VOID_BY_KEY, ASK_ORDER, ASK_ORDER, CANCEL];
    assert_eq!(shop.asked(), asked);

    // The order at Square is cancelled later, and nobody waits for that.
    let shop = Shop::start().await;
    shop.square_says([order("OPEN"), declined(), nothing_found()]);
    assert_eq!(shop.deliver().await.kind(), "order.cancelled");
    shop.square.rest();
    shop.square_says([nothing_found(), order("OPEN"), order("CANCELED")]);
    assert!(shop.hears_of_a_cancellation("till").await.is_empty());
    assert_eq!(shop.asked(), [VOID_BY_KEY, ASK_ORDER, CANCEL]);
    assert!(shop.fact("till/order-cancelled.json").exists());
}

#[tokio::test]
async fn a_payment_elsewhere_that_square_does_not_record_is_a_persons() {
    let shop = Shop::external().await;
    shop.square_says([order("OPEN"), refused(), nothing_found(), order("OPEN")]);
    let came = shop.deliver().await;
    shop.assert_given_up(&came, "TillRefused").await;

    // It has recorded it already.
    let shop = Shop::external().await;
    shop.square_says([
        order("OPEN"),
        wrong_state(),
        wrong_state(),
        order("COMPLETED"),
    ]);
    assert_eq!(shop.deliver().await.kind(), "order.confirmed");
}

#[tokio::test]
async fn an_order_that_costs_nothing_is_completed_once_or_a_persons() {
    let free = async || {
        let mut shop = Shop::start().await;
        for line in [0, 1] {
            shop.event["data"]["lineItems"][line]["unitPrice"]["amount"] = json!(0);
        }
        shop.event["data"]["total"]["amount"] = json!(0);
        shop
    };
    let order = |state: &str| {
        let money = json!({ "amount": 0, "currency": "AUD" });
        let order = json!({ "id": "O-1", "version": 1, "state": state, "total_money": money });
        Reply::text(200, &json!({ "order": order }).to_string())
    };
    let shop = free().await;
    shop.square_says([order("OPEN"), Reply::status(500)]);
    assert!(shop.deliver().await.is_later());
    shop.square_says([wrong_state(), nothing_found(), order("COMPLETED")]);
    assert_eq!(shop.deliver().await.kind(), "order.confirmed");

    let shop = free().await;
    shop.square_says([order("OPEN"), refused(), nothing_found(), order("OPEN")]);
    let came = shop.deliver().await;
    shop.assert_given_up(&came, "TillRefused").await;
}

/// Nothing that was voided could have told Square: the order is completed there, and cancelled here.
#[tokio::test]
async fn what_is_recorded_of_an_order_that_is_cancelled_meanwhile_is_a_persons() {
    let shop = Shop::external().await;
    let release = Arc::new(Notify::new());
    let held = Reply::Held(release.clone(), 200, payment_text("COMPLETED"));
    shop.square_says([order("OPEN"), held]);
    let meanwhile = async {
        while shop.square.next().await.path_and_query != "/v2/payments" {}
        shop.square_says([
            nothing_found(),
            order("OPEN"),
            nothing_found(),
            nothing_found(),
        ]);
        shop.square_says([order("OPEN"), order("CANCELED")]);
        let other = instance(&shop.square, &shop.book).await;
        let mut event = shop.event.clone();
        event["type"] = json!("order.cancelled");
        event["id"] = json!(format!("{ORDER}:cancelled"));
        event["data"]["cancellation"] = json!({ "reason": "By hand" });
        let body = event.to_string();
        let response = other.trigger("till", body.as_bytes()).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert!(other.bus.rest().is_empty());
        release.notify_one();
    };
    let (came, ()) = tokio::join!(shop.deliver(), meanwhile);
    assert_eq!(came.reason(), Some("CancelledTooLate"), "{came:?}");
    assert!(!shop.fact("confirmed.json").exists());
}

/// What Square never took has nothing to void.
#[tokio::test]
async fn a_cancelled_order_that_square_does_not_take_is_over() {
    let shop = Shop::start().await;
    shop.square_says([refused()]);
    assert_eq!(shop.deliver().await.reason(), Some("TillRefused"));
    assert_eq!(shop.cancel().await, StatusCode::ACCEPTED);
    shop.square_says([refused(), refused()]);
    assert_eq!(shop.deliver().await.kind(), "order.cancelled");
    assert!(shop.hears_of_a_cancellation("till").await.is_empty());
}

/// A key may be forgotten after a day: then what was made under it is voided, and there is another.
#[tokio::test]
async fn an_answer_that_was_lost_a_day_ago_is_not_asked_for_again() {
    let shop = Shop::start().await;
    shop.square_says([order("OPEN"), Reply::status(500)]);
    assert!(shop.deliver().await.is_later());
    let first = shop.square.rest()[1].json()["idempotency_key"].clone();
    let lost_at = |hours| at(OffsetDateTime::now_utc() - Duration::hours(hours));
    let copy = |hours| json!({ "generation": 1, "unconfirmed-since": lost_at(hours) });

    shop.square_says([not_now()]);
    assert!(shop.deliver_with(&copy(23)).await.is_later());
    assert_eq!(shop.square.rest()[0].json()["idempotency_key"], first);

    shop.square_says([nothing_found(), order("OPEN"), not_now()]);
    assert!(shop.deliver_with(&copy(25)).await.is_later());
    let asked = shop.square.rest();
    assert_eq!(asked[0].path_and_query, "/v2/payments/cancel");
    assert_eq!(asked[0].json()["idempotency_key"], first);
    let second = asked[2].json()["idempotency_key"].clone();
    assert_ne!(second, first);

    // That one is new, however old the doubt is.
    shop.square_says([payment("APPROVED"), order("COMPLETED")]);
    let came = shop.deliver_with(&copy(26)).await;
    assert_eq!(came.kind(), "order.confirmed");
    assert_eq!(shop.square.rest()[0].json()["idempotency_key"], second);
}

#[tokio::test]
async fn a_cancellation_from_elsewhere_counts_before_anything_is_captured() {
    // The order book hears of it first, and the till of the order after that.
    let shop = Shop::start().await;
    shop.hears_of_a_cancellation("book").await;
    assert_eq!(shop.deliver().await.kind(), "order.cancelled");
    assert!(shop.asked().is_empty());
    assert!(shop.hears_of_a_cancellation("till").await.is_empty());

    // It was decided to charge, and nobody knows whether Square has: it is voided.
    let shop = Shop::start().await;
    shop.square_says([order("OPEN"), payment("APPROVED"), Reply::status(503)]);
    assert!(shop.deliver().await.is_later());
    shop.hears_of_a_cancellation("book").await;
    shop.square.rest();
    shop.square_says([payment("CANCELED"), order("OPEN")]);
    shop.square_says([wrong_state(), payment("CANCELED"), nothing_found()]);
    shop.square_says([order("OPEN"), order("CANCELED")]);
    assert!(shop.hears_of_a_cancellation("till").await.is_empty());
    let closed = [VOID, ASK_ORDER];
    let voided = [VOID, ASK, VOID_BY_KEY, ASK_ORDER, CANCEL];
    assert_eq!(shop.asked(), [&closed[..], &voided[..]].concat());
    shop.square_says([wrong_state(), payment("CANCELED"), nothing_found()]);
    assert_eq!(shop.deliver().await.kind(), "order.cancelled");

    // It has.
    let shop = Shop::start().await;
    shop.square_says([order("OPEN"), payment("APPROVED"), order("COMPLETED")]);
    assert_eq!(shop.deliver().await.kind(), "order.confirmed");
    let mut sent = shop.hears_of_a_cancellation("till").await;
    let came = Came(sent.remove(0));
    assert_eq!(came.reason(), Some("CancelledTooLate"));
}

/// It has been here before, and so something would be known of it.
#[tokio::test]
async fn an_order_of_which_the_book_has_lost_everything_waits() {
    let shop = Shop::start().await;
    let came = shop.deliver_with(&json!({ "generation": 1 })).await;
    assert!(came.is_later(), "{came:?}");
    assert!(shop.asked().is_empty());
    shop.keep_placed().await;
    shop.square_says([order("OPEN"), payment("APPROVED"), order("COMPLETED")]);
    let came = shop.deliver_with(&json!({ "generation": 1 })).await;
    assert_eq!(came.kind(), "order.confirmed");
}

#[tokio::test]
async fn a_fact_that_is_spoilt_stops_its_order_before_any_money_is_taken() {
    for name in ["decision.json", "till/payment-1.json", "till/order.json"] {
        let shop = Shop::start().await;
        shop.square_says([order("OPEN"), payment("APPROVED"), Reply::status(503)]);
        assert!(shop.deliver().await.is_later());
        shop.square.rest();
        let spoilt = shop.fact(name);
        std::fs::remove_file(&spoilt).unwrap();
        std::fs::write(&spoilt, "{ nonsense").unwrap();
        assert!(shop.deliver().await.is_later(), "{name}");
        assert!(shop.asked().is_empty(), "{name}");
    }
}
