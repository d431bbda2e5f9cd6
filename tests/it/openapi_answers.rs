//! Each answer that `docs/openapi.json` tells of, brought about at the real binary.

use orderup::{config::Settings, order::OrderId, order_token::OrderTokens};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use uuid::Uuid;

use crate::{
    api_answers::{Answered, ApiAnswers},
    devhost::DevHost,
    handler::{Folder, Handler, order, order_placed},
    problems::plain,
    scripted_server::Reply,
};

const ORDER: &str = "01935a1e-9c00-7000-8000-000000000001";
const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// The handler with an order book, and what is in it.
struct Shop {
    handler: Handler,
    book: Folder,
    answers: ApiAnswers,
}

impl Shop {
    async fn start() -> Self {
        let book = Folder::new();
        let folder = book.0.to_str().unwrap();
        let settings = [("ORDER_BOOK", folder), ("ORDER_TOKEN_SECRET", SECRET)];
        let handler = Handler::start_with(&settings).await;
        Self {
            handler,
            book,
            answers: ApiAnswers::new(),
        }
    }

    fn put(&self, order: &str, name: &str, fact: &Value) {
        let path = self.book.0.join(format!("orders/{order}/{name}"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, fact.to_string()).unwrap();
    }

    fn put_placed(&self, order: &str) {
        let mut placed: Value =
            serde_json::from_str(&order_placed().to_string().replace(ORDER, order)).unwrap();
        placed["data"].as_object_mut().unwrap().remove("payment");
        self.put(order, "placed.json", &placed);
    }

    async fn get(&self, operation: &str, path: &str) -> (u16, Value) {
        let response = self.handler.http.get(self.handler.url(path)).send().await;
        self.answers
            .check(operation, &Answered::of(response.unwrap()).await)
    }

    async fn post(&self, operation: &str, path: &str, body: &Value) -> (u16, Value) {
        let response = self.handler.post(path, body).await;
        self.answers.check(operation, &Answered::of(response).await)
    }
}

fn token(order: &str) -> String {
    let settings = Settings::from_pairs([("ORDER_TOKEN_SECRET", SECRET)]);
    let tokens = OrderTokens::from_settings(&settings).unwrap().unwrap();
    tokens.token(OrderId(order.parse().unwrap()))
}

/// What a client gets to a request of which it sends this much, and then nothing more.
async fn raw(handler: &Handler, request: &str) -> Answered {
    let mut stream = TcpStream::connect(handler.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    let end = loop {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        if let Some(end) = end {
            break end;
        }
        assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0);
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = head.lines();
    let status = lines
        .next()
        .unwrap()
        .split(' ')
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    let headers: reqwest::header::HeaderMap = lines
        .map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            let name: reqwest::header::HeaderName = name.parse().unwrap();
            (name, value.parse().unwrap())
        })
        .collect();
    let length: usize = headers["content-length"].to_str().unwrap().parse().unwrap();
    let mut body = bytes.split_off(end + 4);
    while body.len() < length {
        assert_ne!(stream.read_buf(&mut body).await.unwrap(), 0);
    }
    Answered {
        status,
        headers,
        body,
    }
}

/// Brings about every answer that the document tells of, but for those that are named at its end.
#[tokio::test]
async fn every_answer_is_documented_and_every_documented_answer_comes() {
    let shop = Shop::start().await;
    let Shop {
        handler, answers, ..
    } = &shop;

    // Checkout.
    let (status, accepted) = shop.post("placeOrder", "/api/checkout", &order()).await;
    assert_eq!(status, 202);
    let self_link = accepted["links"]["status"].as_str().unwrap();
    assert_eq!(shop.get("getOrderStatus", self_link).await.0, 200);
    let placed = shop.post("placeOrder", "/api/checkout", &json!({})).await;
    assert_eq!(placed.0, 422);
    let send = async |operation: &str, path: &str, headers: &[(&str, &str)], body: String| {
        let mut request = handler.http.post(handler.url(path)).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        answers.check(operation, &Answered::of(response).await).0
    };
    let json = ("Content-Type", "application/json");
    let cancel = format!("/api/orders/{ORDER}/cancel");
    for (operation, path) in [("placeOrder", "/api/checkout"), ("cancelOrder", &cancel)] {
        assert_eq!(send(operation, path, &[json], "{".to_owned()).await, 400);
        assert_eq!(send(operation, path, &[], "{}".to_owned()).await, 415);
        let zipped = ("Content-Encoding", "gzip");
        assert_eq!(
            send(operation, path, &[json, zipped], "{}".to_owned()).await,
            415
        );
        assert_eq!(
            send(operation, path, &[json], " ".repeat(262_145)).await,
            413
        );
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: shop\r\nContent-Type: application/json\r\n");
        // No chunk has such a size.
        let cut = format!("{head}Transfer-Encoding: chunked\r\n\r\nZZ\r\n");
        assert_eq!(answers.check(operation, &raw(handler, &cut).await).0, 400);
    }
    let keys = ("Idempotency-Key", "\"half");
    assert_eq!(
        send(
            "placeOrder",
            "/api/checkout",
            &[json, keys],
            order().to_string()
        )
        .await,
        400
    );

    // The status, in all its parts.
    put_a_whole_life(&shop);
    let token = token(ORDER);
    for (operation, path) in [
        ("getOrder", format!("/api/orders/{ORDER}")),
        (
            "getOrderStatus",
            format!("/api/orders/{ORDER}/status?token={token}"),
        ),
    ] {
        let (status, told) = shop.get(operation, &path).await;
        assert_eq!(status, 200);
        assert_eq!(told["timeline"].as_array().unwrap().len(), 13, "{told:#}");
        assert_eq!(told["unreadable"], json!(["confirmed.json"]));
        let again = handler
            .http
            .get(handler.url(&path))
            .header("If-None-Match", "*");
        let again = again.send().await.unwrap();
        assert_eq!(answers.check(operation, &Answered::of(again).await).0, 304);
    }
    let new = Uuid::now_v7();
    assert_eq!(
        shop.get("getOrder", &format!("/api/orders/{new}")).await.1["status"],
        "accepted"
    );
    assert_eq!(shop.get("getOrder", "/api/orders/7").await.0, 404);
    assert_eq!(
        shop.get("getOrderStatus", "/api/orders/7/status").await.0,
        404
    );
    let none = format!("/api/orders/{ORDER}/status?token=x");
    assert_eq!(shop.get("getOrderStatus", &none).await.0, 401);

    // Cancelling, and being too late.
    let why = json!({ "reason": "Ordered twice" });
    let cancel_of = |order: &str| format!("/api/orders/{order}/cancel");
    let order_2 = ORDER.replace("01935a1e", "01935a1f");
    shop.put_placed(&order_2);
    assert_eq!(
        shop.post("cancelOrder", &cancel_of(&order_2), &why).await.0,
        202
    );
    let order_3 = ORDER.replace("01935a1e", "01935a20");
    shop.put_placed(&order_3);
    shop.put(
        &order_3,
        "decision.json",
        &json!({ "decision": "charge", "at": "2026-11-22T19:40:01Z" }),
    );
    assert_eq!(
        shop.post("cancelOrder", &cancel_of(&order_3), &why).await.0,
        409
    );
    assert_eq!(
        shop.post("cancelOrder", &cancel_of(ORDER), &json!({}))
            .await
            .0,
        422
    );
    let unknown = Uuid::new_v4().to_string();
    assert_eq!(
        shop.post("cancelOrder", &cancel_of(&unknown), &why).await.0,
        404
    );
    assert_eq!(
        shop.post("cancelOrder", &cancel_of(&new.to_string()), &why)
            .await
            .0,
        503
    );
    let order_4 = ORDER.replace("01935a1e", "01935a21");
    shop.put_placed(&order_4);
    shop.put(&order_4, "decision.json", &json!("perhaps"));
    assert_eq!(
        shop.post("cancelOrder", &cancel_of(&order_4), &why).await.0,
        503
    );

    // The book has become something else.
    std::fs::rename(shop.book.0.join("orders"), shop.book.0.join("away")).unwrap();
    // A link to itself leads nowhere, and so nobody can say that something is not there.
    std::os::unix::fs::symlink("orders", shop.book.0.join("orders")).unwrap();
    assert_eq!(
        shop.get("getOrder", &format!("/api/orders/{ORDER}"))
            .await
            .0,
        503
    );
    let path = format!("/api/orders/{ORDER}/status?token={token}");
    assert_eq!(shop.get("getOrderStatus", &path).await.0, 503);

    // The pages have a test of their own.
    assert_eq!(
        shop.get("explainProblem", "/api/problems/not-found")
            .await
            .0,
        200
    );
    assert_eq!(
        shop.get("explainProblem", "/api/problems/other").await.0,
        404
    );

    // Without an order book, and with a bus that takes nothing.
    let bare = Handler::start().await;
    let get = async |operation: &str, path: &str| {
        let response = bare.http.get(bare.url(path)).send().await.unwrap();
        answers.check(operation, &Answered::of(response).await).0
    };
    assert_eq!(get("getOrder", &format!("/api/orders/{ORDER}")).await, 404);
    assert_eq!(
        get("getOrderStatus", &format!("/api/orders/{ORDER}/status")).await,
        404
    );
    let tokens = Handler::start_with(&[("ORDER_TOKEN_SECRET", SECRET)]).await;
    let response = tokens.http.get(tokens.url(&path)).send().await.unwrap();
    assert_eq!(
        answers
            .check("getOrderStatus", &Answered::of(response).await)
            .0,
        404
    );
    let snapshot = json!({ "reason": "Ordered twice", "order": order() });
    for (operation, path, body) in [
        ("placeOrder", "/api/checkout", &order()),
        ("cancelOrder", &cancel, &snapshot),
    ] {
        bare.bus.reply_once(Reply::status(401));
        bare.bus.reply_once(Reply::status(401));
        let response = bare.post(path, body).await;
        assert_eq!(
            answers.check(operation, &Answered::of(response).await).0,
            503
        );
    }

    // A client that stalls.
    let head =
        "HTTP/1.1\r\nHost: shop\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{";
    let stalled = [
        ("placeOrder", format!("POST /api/checkout {head}")),
        ("cancelOrder", format!("POST {cancel} {head}")),
    ];
    let stalled = stalled.map(async |(operation, request)| {
        assert_eq!(
            answers.check(operation, &raw(handler, &request).await).0,
            408
        );
    });
    let [one, other] = stalled;
    tokio::join!(one, other);

    let seen = answers.seen();
    let missing: Vec<_> = answers.documented().difference(&seen).cloned().collect();
    let of_others = missing.iter().filter(|(operation, status, name)| {
        // The host checks its keys, and a fault of ours that nobody knows cannot be brought about.
        let is_host = *status == 401 && name.is_empty() && operation != "getOrderStatus";
        !is_host && name != "internal-error"
    });
    assert_eq!(
        of_others.collect::<Vec<_>>(),
        Vec::<&(String, u16, String)>::new()
    );
}

/// A fact of each kind that a status tells of.
fn put_a_whole_life(shop: &Shop) {
    shop.put_placed(ORDER);
    let at = |second: u32| format!("2026-11-22T19:40:{second:02}Z");
    let later = json!({ "at": at(9), "due": at(40), "error": "transient", "failures": 1 });
    let dead = json!({ "at": at(10), "error": "EmailRefused", "failures": 1 });
    for (name, fact) in [
        ("confirmed.json", json!("yesterday")),
        (
            "cancelled.json",
            json!({ "at": at(8), "reason": "payment_declined", "notCharged": true }),
        ),
        ("till/order.json", json!({ "at": at(2), "id": "o" })),
        (
            "till/payment-1.json",
            json!({ "at": at(3), "id": "p", "status": "APPROVED" }),
        ),
        ("till/paid.json", json!({ "at": at(4) })),
        (
            "till/voided-1.json",
            json!({ "at": at(5), "status": "CANCELED" }),
        ),
        ("told/customers/placed/sent.json", json!({ "at": at(6) })),
        (
            "told/customers/confirmed/superseded.json",
            json!({ "at": at(7) }),
        ),
        ("told/customers/cancelled/dead-0000000001.json", dead),
        ("told/vendors/bakery/placed/later-0000000001.json", later),
        (
            "told/vendors/florist/placed/intent.json",
            json!({ "at": at(11) }),
        ),
        ("told/till/placed/sent.json", json!({ "at": at(12) })),
        (
            "told/vendors/florist/cancelled/sent.json",
            json!({ "at": at(13) }),
        ),
    ] {
        shop.put(ORDER, name, &fact);
    }
}

/// As a storefront sees it: through the Functions host's stand-in, with a till.
#[tokio::test]
async fn an_order_s_life_is_told_as_the_document_has_it() {
    let answers = ApiAnswers::new();
    let host = DevHost::with_till(&[]).await;
    let accepted = Answered::of(host.post("/api/checkout", &order()).await).await;
    let (status, accepted) = answers.check("placeOrder", &accepted);
    assert_eq!(status, 202);
    let order_id = accepted["orderId"].as_str().unwrap();
    host.wait_for_status(order_id, "confirmed").await;
    let get = async |path: &str| {
        let response = host.http.get(host.url(path)).send().await.unwrap();
        Answered::of(response).await
    };
    let (_, told) = answers.check("getOrder", &get(&format!("/api/orders/{order_id}")).await);
    assert_eq!(told["status"], "confirmed");
    let body = json!({ "reason": "Changed my mind" });
    let response = host
        .post(&format!("/api/orders/{order_id}/cancel"), &body)
        .await;
    let (status, problem) = answers.check("cancelOrder", &Answered::of(response).await);
    assert_eq!(status, 409);
    // The type of a problem leads somewhere, from where it was read.
    let page = get(problem["type"].as_str().unwrap()).await;
    let (status, page) = answers.check("explainProblem", &page);
    assert_eq!(status, 200);
    let title = problem["title"].as_str().unwrap();
    assert!(plain(page.as_str().unwrap()).contains(title));
}
