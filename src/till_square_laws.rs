//! What holds of an order at Square, whatever fails, whoever is killed, and however many are at it at once.
//!
//! For each seed one order goes through the real steps against a model of Square that fails, before and after doing what it was asked.
//! Deliveries, cancellations by a person and cancellations from elsewhere run at the same time, and each may be dropped at any
//! await, which is what a kill is to everybody else. Then everything works again, and comes to its end; what has to hold is
//! in [`Shop::assert_laws`].

use std::{
    collections::BTreeMap,
    future::poll_fn,
    pin::pin,
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use fastrand::Rng;
use futures_util::{
    StreamExt,
    stream::{self, FuturesUnordered},
};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::{
    cancel,
    config::Settings,
    event::{Event, tests::order_placed},
    order::Payment,
    order_book::{Cancelled, Decision, tests::TestBook},
    square::SquareClient,
    till_facts::{Facts, Stop, Verdict},
    till_square::{Submission, release, ring_up},
};

/// Orders that are put through it all, and how many at the same time, each in a world of its own.
const SEEDS: u64 = 400;
const AT_ONCE: usize = 12;

/// Deliveries and cancellations of each, of which three are at it at once.
const ROUNDS: usize = 6;

/// How often somebody is woken before he is killed; about a third comes to an end before that.
const MOST_POLLS: u32 = 24;

/// For one request, in milliseconds.
const LONGEST_WAIT: u64 = 60;

#[derive(Default)]
struct Known {
    rng: Rng,
    is_well: bool,
    /// Requests that have been sent and not done.
    under_way: usize,
    order: Option<&'static str>,
    version: u64,
    payments: Vec<AtSquare>,
    is_token_used: bool,
}

struct AtSquare {
    key: String,
    status: &'static str,
}

type Square = Arc<Mutex<Known>>;

/// The model: the answers as `square_errors.rs` reads them. What has been sent is done, though nobody waits for it any more.
async fn square(State(square): State<Square>, method: Method, uri: Uri, body: Bytes) -> Response {
    let done = tokio::spawn(async move {
        let (fate, wait) = {
            let mut known = square.lock().unwrap();
            known.under_way += 1;
            let fate = if known.is_well {
                9
            } else {
                known.rng.u8(0..12)
            };
            let is_about_money = method == Method::POST && uri.path().contains("pay");
            let one_in = if is_about_money { 2 } else { 8 };
            let is_slow = !known.is_well && known.rng.u8(0..one_in) == 0;
            let longest = if is_slow { LONGEST_WAIT } else { 3 };
            (fate, known.rng.u64(0..longest))
        };
        tokio::time::sleep(Duration::from_millis(wait)).await;
        let body = serde_json::from_slice(&body).unwrap_or_default();
        let answer = {
            let mut known = square.lock().unwrap();
            known.under_way -= 1;
            match fate {
                0 => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
                _ => known.answer(&method, uri.path(), &body),
            }
        };
        match fate {
            1 => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            2 => {
                tokio::time::sleep(Duration::from_millis(5)).await;
                answer.into_response()
            }
            _ => answer.into_response(),
        }
    });
    done.await.unwrap()
}

type Answer = (StatusCode, String);

fn error(category: &str, code: &str) -> Answer {
    let errors = json!({ "errors": [{ "category": category, "code": code }] });
    (StatusCode::BAD_REQUEST, errors.to_string())
}

fn wrong_state() -> Answer {
    error("INVALID_REQUEST_ERROR", "BAD_REQUEST")
}

fn money() -> Value {
    json!({ "amount": 3400, "currency": "AUD" })
}

impl Known {
    fn answer(&mut self, method: &Method, path: &str, body: &Value) -> Answer {
        // Somebody at Square's dashboard.
        if !self.is_well && self.rng.u8(0..25) == 0 {
            for payment in &mut self.payments {
                payment.void();
            }
        }
        let key = body["idempotency_key"].as_str().unwrap_or_default();
        match (method.as_str(), path) {
            ("POST", "/v2/orders") => {
                self.order.get_or_insert("OPEN");
                self.shown()
            }
            ("GET", "/v2/orders/O-1") => self.shown(),
            ("PUT", "/v2/orders/O-1") if self.order != Some("OPEN") => wrong_state(),
            ("PUT", "/v2/orders/O-1") if body["order"]["version"] != self.version => {
                error("INVALID_REQUEST_ERROR", "VERSION_MISMATCH")
            }
            ("PUT", "/v2/orders/O-1") => {
                self.order = Some("CANCELED");
                self.version += 1;
                self.shown()
            }
            ("POST", "/v2/orders/O-1/pay") => self.pay(body["payment_ids"][0].as_str().unwrap()),
            ("POST", "/v2/payments") if body["source_id"] == "EXTERNAL" => self.record(key),
            ("POST", "/v2/payments") => self.authorise(key),
            ("POST", "/v2/payments/cancel") => {
                let mut made = self
                    .payments
                    .iter_mut()
                    .filter(|payment| payment.key == key);
                match made.all(AtSquare::void) {
                    true => (StatusCode::OK, "{}".to_owned()),
                    false => wrong_state(),
                }
            }
            _ => self.payment(path),
        }
    }

    fn shown(&self) -> Answer {
        let state = self.order.expect("somebody has created it");
        let order =
            json!({ "id": "O-1", "version": self.version, "state": state, "total_money": money() });
        (StatusCode::OK, json!({ "order": order }).to_string())
    }

    fn authorise(&mut self, key: &str) -> Answer {
        if let Some(place) = self.payments.iter().position(|payment| payment.key == key) {
            return self.payments[place].shown(place);
        }
        if self.order != Some("OPEN") {
            return wrong_state();
        }
        if self.is_token_used {
            return error("INVALID_REQUEST_ERROR", "CARD_TOKEN_USED");
        }
        self.version += 1;
        match self.rng.u8(0..10) {
            0 => return error("PAYMENT_METHOD_ERROR", "GENERIC_DECLINE"),
            // A card on file, which can be used again.
            1..8 => {}
            _ => self.is_token_used = true,
        }
        self.payments.push(AtSquare {
            key: key.to_owned(),
            status: "APPROVED",
        });
        let place = self.payments.len() - 1;
        self.payments[place].shown(place)
    }

    fn record(&mut self, key: &str) -> Answer {
        if let Some(place) = self.payments.iter().position(|payment| payment.key == key) {
            return self.payments[place].shown(place);
        }
        if self.order != Some("OPEN") {
            return wrong_state();
        }
        if !self.is_well && self.rng.u8(0..4) == 0 {
            return error("INVALID_REQUEST_ERROR", "VALUE_TOO_LOW");
        }
        self.order = Some("COMPLETED");
        self.version += 1;
        self.payments.push(AtSquare {
            key: key.to_owned(),
            status: "COMPLETED",
        });
        let place = self.payments.len() - 1;
        self.payments[place].shown(place)
    }

    fn pay(&mut self, id: &str) -> Answer {
        let place = place(id);
        if self.order != Some("OPEN") || self.payments[place].status != "APPROVED" {
            return wrong_state();
        }
        if !self.is_well && self.rng.bool() {
            return error("INVALID_REQUEST_ERROR", "VALUE_TOO_LOW");
        }
        self.payments[place].status = "COMPLETED";
        for payment in &mut self.payments {
            payment.void();
        }
        self.order = Some("COMPLETED");
        self.version += 1;
        self.shown()
    }

    fn payment(&mut self, path: &str) -> Answer {
        let path = path.strip_prefix("/v2/payments/").unwrap();
        let (id, is_void) = match path.strip_suffix("/cancel") {
            Some(id) => (id, true),
            None => (path, false),
        };
        let place = place(id);
        match is_void && !self.payments[place].void() {
            true => wrong_state(),
            false => self.payments[place].shown(place),
        }
    }

    fn count(&self, status: &str) -> usize {
        let of = self.payments.iter().filter(|it| it.status == status);
        of.count()
    }
}

fn place(id: &str) -> usize {
    id.strip_prefix("P-").unwrap().parse().unwrap()
}

impl AtSquare {
    /// Whether it held money until now, and does no more.
    fn void(&mut self) -> bool {
        let is_held = self.status == "APPROVED";
        if is_held {
            self.status = "CANCELED";
        }
        is_held
    }

    fn shown(&self, place: usize) -> Answer {
        let payment =
            json!({ "id": format!("P-{place}"), "status": self.status, "amount_money": money() });
        (StatusCode::OK, json!({ "payment": payment }).to_string())
    }
}

/// Who cancels the order.
#[derive(Clone, Copy)]
enum Who {
    Nobody,
    Person,
    /// Somebody who had no order book to decide in.
    Elsewhere,
}

struct Shop {
    client: SquareClient,
    square: Square,
    book: TestBook,
    placed: Event,
    seen: Mutex<Seen>,
}

/// What anybody was told of the order.
#[derive(Debug, Default)]
struct Seen {
    confirmed: usize,
    cancelled: usize,
    accepted: usize,
    dead: BTreeMap<&'static str, usize>,
}

impl Shop {
    fn is_external(&self) -> bool {
        let payment = self.placed.order.payment.as_ref();
        payment.is_some_and(Payment::is_external)
    }

    fn rng(&self) -> Rng {
        self.square.lock().unwrap().rng.fork()
    }

    async fn deliver(&self, unconfirmed_hours: Option<i64>) -> Option<Stop> {
        let now = OffsetDateTime::now_utc();
        let submission = Submission {
            order: &self.placed.order,
            placed_at: now,
            unconfirmed_since: unconfirmed_hours.map(|hours| now - time::Duration::hours(hours)),
            now,
        };
        let facts = Facts::of(&self.book, self.placed.order_id()).await.unwrap();
        let rung = ring_up(&self.client, &facts, &submission).await;
        let mut seen = self.seen.lock().unwrap();
        match rung {
            Ok(Verdict::Confirmed(_)) => seen.confirmed += 1,
            Ok(Verdict::Cancelled(_)) => seen.cancelled += 1,
            Err(stop) => {
                if let Stop::Dead(dead) = &stop {
                    *seen.dead.entry(dead.reason.name()).or_default() += 1;
                }
                return Some(stop);
            }
        }
        None
    }

    /// As a person does it; whether it was accepted.
    async fn cancel(&self) -> bool {
        let ours = Decision::Cancel(Cancelled::now("Changed my mind", true));
        let decided = cancel::decided(&self.book, self.placed.order_id(), &ours);
        let is_cancelled = matches!(decided.await.unwrap(), Decision::Cancel(_));
        self.seen.lock().unwrap().accepted += usize::from(is_cancelled);
        is_cancelled
    }

    /// As the function till hears of it.
    async fn hear(&self) -> Option<Stop> {
        let facts = Facts::of(&self.book, self.placed.order_id()).await.unwrap();
        let heard = facts.cancelled().await.unwrap();
        let heard = heard.unwrap_or_else(|| Cancelled::now("By hand", false));
        let released = release(&self.client, &facts, &self.placed.order, &heard).await;
        if released.is_ok() {
            self.seen.lock().unwrap().cancelled += 1;
        }
        released.err()
    }

    async fn one(&self, mut rng: Rng, who: Who) {
        let polls = rng.u32(1..MOST_POLLS);
        let act = async {
            match (rng.u8(0..10), who) {
                (0..3, Who::Person) => {
                    self.cancel().await;
                }
                (0..2, Who::Elsewhere) => {
                    self.hear().await;
                }
                (6..8, _) => {
                    self.deliver(Some(25)).await;
                }
                _ => {
                    self.deliver(None).await;
                }
            }
        };
        killed_after(polls, act).await;
    }

    async fn come_to_an_end(&self) {
        self.square.lock().unwrap().is_well = true;
        // What was sent by those who were killed is still to be done.
        let is_quiet = || self.square.lock().unwrap().under_way == 0;
        let mut quiet = 0;
        while quiet < 5 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            quiet = if is_quiet() { quiet + 1 } else { 0 };
        }
        for _ in 0..8 {
            match self.deliver(None).await {
                None => break,
                Some(Stop::Later(_)) => {}
                // A person has to look at it, and cancels it.
                Some(Stop::Dead(_)) => {
                    self.cancel().await;
                }
            }
        }
    }

    fn assert_laws(&self, seed: u64) {
        let known = self.square.lock().unwrap();
        let seen = self.seen.lock().unwrap();
        let statuses: Vec<_> = known.payments.iter().map(|it| it.status).collect();
        let told = format!("seed {seed}: {:?} {statuses:?} {seen:?}", known.order);
        assert!(known.count("COMPLETED") <= 1, "paid twice: {told}");
        assert_eq!(known.count("APPROVED"), 0, "still reserved: {told}");
        assert!(
            seen.confirmed == 0 || seen.cancelled + seen.accepted == 0,
            "confirmed and cancelled: {told}"
        );
        // Where there was nothing to void, a person is told.
        let is_too_late = self.is_external() && seen.dead.contains_key("CancelledTooLate");
        if !is_too_late {
            assert!(seen.confirmed + seen.cancelled > 0, "neither: {told}");
            assert_eq!(known.count("COMPLETED") == 1, seen.confirmed > 0, "{told}");
        }
        let is_open = matches!(known.order, Some("OPEN"));
        assert!(!is_open, "left open: {told}");
    }
}

/// Drops what somebody does when it has been woken so many times: a kill at one of its awaits, whichever that is.
async fn killed_after(mut polls: u32, act: impl Future<Output = ()>) {
    let mut act = pin!(act);
    poll_fn(|context| match polls {
        0 => Poll::Ready(()),
        _ => {
            polls -= 1;
            act.as_mut().poll(context)
        }
    })
    .await;
}

/// One order's life.
async fn live(seed: u64) -> Seen {
    let known = Known {
        rng: Rng::with_seed(seed),
        ..Known::default()
    };
    let known = Arc::new(Mutex::new(known));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new()
        .fallback(square)
        .with_state(Arc::clone(&known));
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let settings = Settings::from_pairs([
        ("SQUARE_ACCESS_TOKEN", "EAAA-test-token"),
        ("SQUARE_LOCATION_ID", "LOC1"),
        ("SQUARE_BASE_URL", url.as_str()),
    ]);
    let mut placed = order_placed();
    if seed % 8 == 7 || seed % 8 == 1 {
        placed.order.payment.as_mut().unwrap().source = "EXTERNAL".to_owned();
    }
    let shop = Shop {
        client: SquareClient::from_settings(&settings, &reqwest::Client::new()).unwrap(),
        square: known,
        book: TestBook::new(),
        placed,
        seen: Mutex::default(),
    };
    let late = [Who::Nobody, Who::Person, Who::Person, Who::Elsewhere][seed as usize % 4];
    for round in 0..ROUNDS {
        let who = if round < 1 { Who::Nobody } else { late };
        let at_once = (0..3).map(|_| shop.one(shop.rng(), who));
        let mut at_once: FuturesUnordered<_> = at_once.collect();
        while at_once.next().await.is_some() {}
    }
    shop.come_to_an_end().await;
    shop.assert_laws(seed);
    server.abort();
    shop.seen.into_inner().unwrap()
}

#[tokio::test]
async fn an_order_is_paid_once_or_cancelled_and_not_paid() {
    let (mut confirmed, mut cancelled, mut dead) = (0, 0, 0);
    let mut lives = stream::iter(0..SEEDS).map(live).buffer_unordered(AT_ONCE);
    while let Some(seen) = lives.next().await {
        confirmed += usize::from(seen.confirmed > 0);
        cancelled += usize::from(seen.cancelled > 0);
        dead += seen.dead.values().sum::<usize>();
    }
    // It has been everywhere.
    assert!(confirmed > SEEDS as usize / 10, "{confirmed}");
    assert!(cancelled > SEEDS as usize / 10, "{cancelled}");
    assert!(dead > 0, "nothing was ever given up");
}
