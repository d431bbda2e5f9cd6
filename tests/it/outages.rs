//! Outages, one delivery at a time, through the real binary: when a message comes again, when it is given up, and how a
//! provider or a vendor that is down is left alone.

use std::time::Duration;

use axum::http::StatusCode;
use serde_json::json;
use time::OffsetDateTime;

use crate::{
    copies::{Copy, ORDER, at, down},
    handler::{Handler, order_placed},
    scripted_server::{Received, Reply},
    triggers::assert_completed,
};

#[tokio::test]
async fn a_longer_wait_that_is_asked_for_wins_and_a_rate_limit_is_no_failure() {
    let date = httpdate::fmt_http_date(std::time::SystemTime::now() + Duration::from_secs(600));
    for (reply, due, failures) in [
        (Reply::with_header(429, "retry-after", "600"), 600, "0"),
        (Reply::with_header(503, "retry-after", date), 600, "1"),
        (Reply::with_header(503, "retry-after", "86400"), 3600, "1"),
    ] {
        // Each has a handler of its own: the first pauses the channel.
        let handler = Handler::start().await;
        handler.provider.reply_once(reply);
        let response = handler
            .trigger_copy("notify", &order_placed(), &json!({}))
            .await;
        assert_completed(response).await;
        let copy = Copy::next(&handler).await;
        let latest = due + due / 4;
        assert!(
            (due - 5..=latest + 1).contains(&copy.due_in()),
            "{}",
            copy.due_in()
        );
        assert_eq!(copy["failures"], failures);
    }
}

#[tokio::test]
async fn what_a_provider_refuses_for_good_is_condemned_with_the_reason() {
    let handler = Handler::start().await;
    handler.provider.reply_once(Reply::text(
        400,
        r#"{"error":{"code":"InvalidRecipient","message":"ada@example.net"}}"#,
    ));
    handler.provider.reply_once(Reply::status(404));
    let properties = json!({ "audience": "customers", "generation": 4, "failures": 3, "first-seen": "2026-11-22T19:40:00Z" });
    assert_completed(
        handler
            .trigger_copy("notify", &order_placed(), &properties)
            .await,
    )
    .await;
    let copy = Copy::next(&handler).await;
    assert_eq!(copy.id(), format!("{ORDER}:placed:customers:5"));
    assert_eq!(copy["audience"], "customers");
    assert_eq!(copy["dead-letter-reason"], "EmailRefused");
    assert_eq!(
        &copy["dead-letter-description"],
        "ACS refused the email: 400 InvalidRecipient"
    );
    assert_eq!(copy.broker.get("ScheduledEnqueueTimeUtc"), None);

    // It is failed at once, as often as it comes, without asking anybody; so the broker dead-letters it.
    handler.provider.rest();
    for _ in 0..10 {
        let response = handler
            .trigger_copy("notify", &order_placed(), &copy.properties())
            .await;
        assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
    }
    assert!(handler.provider.rest().is_empty() && handler.bus.rest().is_empty());

    // Re-sent from the dead-letter queue by whatever tool, it is tried again, with its counters reset; its copies have
    // names that its earlier life cannot have used.
    let now = OffsetDateTime::now_utc();
    for marks in [
        json!({ "DeadLetterReason": "MaxDeliveryCountExceeded" }),
        json!({ "DeadLetterReason": "MaxDeliveryCountExceeded", "generation": "5", "failures": "30", "first-seen": 7 }),
        json!({ "dead-letter-time": at(now - time::Duration::minutes(11)) }),
    ] {
        let mut replay = copy.properties();
        for (name, value) in marks.as_object().unwrap() {
            replay[name] = value.clone();
        }
        let metadata = json!({ "EnqueuedTime": at(now), "ApplicationProperties": replay });
        // It is asked first whether it has the email.
        handler.provider.reply_once(Reply::status(404));
        handler
            .provider
            .reply_once(Reply::with_header(503, "retry-after", "10"));
        let body = order_placed().to_string();
        let response = handler
            .trigger_with("notify", body.as_bytes(), &metadata)
            .await;
        assert_completed(response).await;
        let again = Copy::next(&handler).await;
        let generation = now.unix_timestamp() + 1;
        assert_eq!(
            again.id(),
            format!("{ORDER}:placed:customers:{generation}"),
            "{marks}"
        );
        assert!(!again.has("dead-letter-reason"));
        assert_eq!(again["failures"], "1", "{marks}");
    }
}

#[tokio::test]
async fn a_vendor_nobody_knows_is_condemned_and_the_others_are_told() {
    let handler = Handler::start().await;
    let mut event = order_placed();
    event["data"]["lineItems"][1]["vendorId"] = json!("butcher");
    assert_completed(
        handler
            .trigger_copy("vendor-notify", &event, &json!({}))
            .await,
    )
    .await;
    assert_eq!(handler.bakery.rest().len(), 1);
    let copy = Copy::next(&handler).await;
    assert_eq!(copy["vendor"], "butcher");
    assert_eq!(copy["dead-letter-reason"], "UnknownVendor");
    assert!(handler.bus.rest().is_empty());
    // A vendor that is not in the order, or cannot be one, is nobody, and not everybody.
    for vendor in ["inside", "ada@example.net"] {
        let response = handler
            .trigger_copy(
                "vendor-notify",
                &order_placed(),
                &json!({ "vendor": vendor }),
            )
            .await;
        assert_completed(response).await;
        let copy = Copy::next(&handler).await;
        assert_eq!(copy["dead-letter-reason"], "UnknownVendor");
        assert!(!format!("{} {:?}", copy.broker, copy.properties()).contains("ada@"));
    }
    assert!(handler.bakery.rest().is_empty() && handler.florist.rest().is_empty());
}

#[tokio::test]
async fn what_was_sent_to_the_wrong_place_tells_nobody() {
    let handler = Handler::start().await;
    for (function, own, other) in [
        ("notify", "customers", "vendors"),
        ("vendor-notify", "vendors", "customers"),
    ] {
        let properties =
            json!({ "audience": other, "DeadLetterReason": "MaxDeliveryCountExceeded" });
        let response = handler
            .trigger_copy(function, &order_placed(), &properties)
            .await;
        assert_completed(response).await;
        let copy = Copy::next(&handler).await;
        assert_eq!(copy["dead-letter-reason"], "WrongAudience");
        assert_eq!(
            copy["dead-letter-description"],
            format!("it is for {other}")
        );
        assert_eq!(copy["audience"], own);
    }
    for outside in [
        &handler.provider,
        &handler.bakery,
        &handler.florist,
        &handler.bus,
    ] {
        assert!(outside.rest().is_empty());
    }
}

#[tokio::test]
async fn after_the_deadline_a_message_has_one_more_try_and_is_condemned() {
    let handler = Handler::start_with(&[("RETRY_DEADLINE", "1h")]).await;
    let old = json!({
        "audience": "customers", "generation": 30, "failures": 12,
        "first-seen": at(OffsetDateTime::now_utc() - time::Duration::minutes(61)),
    });
    handler
        .provider
        .reply_once(Reply::with_header(503, "retry-after", "60"));
    assert_completed(handler.trigger_copy("notify", &order_placed(), &old).await).await;
    let copy = Copy::next(&handler).await;
    assert_eq!(copy["dead-letter-reason"], "DeadlineExceeded");
    let description = &copy["dead-letter-description"];
    assert!(description.starts_with("transient: ACS"), "{description}");
    assert!(
        description.ends_with("given up after 1h, failed attempts: 13"),
        "{description}"
    );
    assert_eq!(copy["failures"], "13");
    assert_eq!(handler.provider.rest().len(), 1);
}

#[tokio::test]
async fn while_a_provider_is_down_it_is_left_alone_and_the_log_says_so_once() {
    let handler = Handler::start().await;
    down(&handler.provider, 5);
    for _ in 0..20 {
        assert_completed(
            handler
                .trigger_copy("notify", &order_placed(), &json!({}))
                .await,
        )
        .await;
    }
    assert_eq!(handler.provider.rest().len(), 5);
    let copies: Vec<_> = handler.bus.rest().into_iter().map(Copy::of).collect();
    assert_eq!(copies.len(), 20);
    for held in &copies[2..] {
        assert_eq!(held["failures"], "0");
        assert!(held["last-error"].starts_with("paused: "));
        assert!((0..=61).contains(&held.due_in()), "{}", held.due_in());
    }
    let lines = handler.stop().await;
    let opened = lines
        .iter()
        .filter(|line| line.contains("is left alone for a while"))
        .count();
    assert_eq!(opened, 1, "{lines:#?}");
    let warnings = lines
        .iter()
        // Not what is said at start.
        .filter(|line| line.contains(r#""level":"WARN""#) && line.contains("span"))
        .count();
    assert_eq!(
        warnings, 3,
        "the first two messages, and the pause: {lines:#?}"
    );
}

#[tokio::test]
async fn credentials_that_are_refused_pause_the_channel_and_lose_nothing() {
    let handler = Handler::start().await;
    handler.provider.reply_once(Reply::status(401));
    handler.provider.reply_once(Reply::status(401));
    for _ in 0..3 {
        assert_completed(
            handler
                .trigger_copy("notify", &order_placed(), &json!({}))
                .await,
        )
        .await;
        let due = Copy::next(&handler).await.due_in();
        assert!((28..=61).contains(&due), "{due}");
    }
    assert_eq!(handler.provider.rest().len(), 2);
    let lines = handler.stop().await;
    let errors: Vec<_> = lines
        .iter()
        .filter(|line| line.contains(r#""level":"ERROR""#))
        .collect();
    assert_eq!(errors.len(), 1, "{errors:#?}");
    assert!(
        errors[0].contains("takes nothing until somebody mends it"),
        "{errors:?}"
    );
}

#[tokio::test]
async fn a_vendor_that_is_gone_or_parked_is_left_alone_and_its_messages_wait() {
    let handler = Handler::start_with(&[("PARKED_VENDORS", "bakery")]).await;
    handler.florist.reply_once(Reply::status(410));
    for _ in 0..2 {
        assert_completed(
            handler
                .trigger_copy("vendor-notify", &order_placed(), &json!({}))
                .await,
        )
        .await;
        let copies: Vec<_> = handler.bus.rest().into_iter().map(Copy::of).collect();
        assert_eq!(copies.len(), 2);
        for copy in &copies {
            match copy["vendor"].as_str() {
                "bakery" => {
                    assert!(copy["last-error"].starts_with("parked: "));
                    assert!(copy.due_in() >= 590);
                }
                "florist" => assert!((28..=61).contains(&copy.due_in()), "{}", copy.due_in()),
                other => panic!("{other}"),
            }
        }
    }
    assert!(handler.bakery.rest().is_empty());
    assert_eq!(handler.florist.rest().len(), 1);
}

#[tokio::test]
async fn a_backlog_waits_its_turn_at_the_providers_pace() {
    let handler = Handler::start_with(&[("EMAIL_RATE_LIMIT", "2/m")]).await;
    for _ in 0..6 {
        assert_completed(
            handler
                .trigger_copy("notify", &order_placed(), &json!({}))
                .await,
        )
        .await;
    }
    assert_eq!(handler.provider.rest().len(), 2);
    let copies: Vec<_> = handler.bus.rest().into_iter().map(Copy::of).collect();
    let due: Vec<_> = copies.iter().map(|copy| (copy.due_in() + 5) / 60).collect();
    assert_eq!(due, [1, 1, 2, 2]);
    assert!(
        copies
            .iter()
            .all(|copy| copy["last-error"].starts_with("paced: ") && copy["failures"] == "0")
    );
}

#[tokio::test]
async fn a_cancellation_that_overtakes_leaves_one_truthful_notification() {
    let handler = Handler::start().await;
    let mut cancelled = order_placed();
    cancelled["type"] = json!("order.cancelled");
    cancelled["data"]["cancellation"] = json!({ "reason": "Ordered twice" });
    // The placed one is held up on its way to the florist; meanwhile everybody hears of the cancellation.
    handler
        .florist
        .reply_once(Reply::with_header(503, "retry-after", "20"));
    assert_completed(
        handler
            .trigger_copy("vendor-notify", &order_placed(), &json!({}))
            .await,
    )
    .await;
    let placed = Copy::next(&handler).await;
    let first = [handler.bakery.next().await, handler.florist.next().await];
    assert_completed(
        handler
            .trigger_copy("vendor-notify", &cancelled, &json!({}))
            .await,
    )
    .await;
    let second = [handler.bakery.next().await, handler.florist.next().await];
    for (first, second) in first.iter().zip(&second) {
        assert_eq!(second.json()["type"], "order.cancelled");
        let version = |webhook: &Received| webhook.json()["data"]["version"].as_u64().unwrap();
        assert!(version(first) < version(second));
    }
    assert_completed(
        handler
            .trigger_copy("vendor-notify", &order_placed(), &placed.properties())
            .await,
    )
    .await;
    assert!(
        handler.florist.rest().is_empty(),
        "no placed after a cancelled"
    );

    // The same for the customer, of whom this instance heard in `vendor-notify`.
    assert_completed(
        handler
            .trigger_copy("notify", &order_placed(), &json!({}))
            .await,
    )
    .await;
    assert!(handler.provider.rest().is_empty());
    assert_completed(handler.trigger_copy("notify", &cancelled, &json!({})).await).await;
    assert!(handler.provider.next().await.body.contains("cancelled"));
    assert!(handler.bus.rest().is_empty());
}

#[tokio::test]
async fn an_email_that_is_hours_late_says_so() {
    let handler = Handler::start().await;
    let text = async |age: time::Duration| {
        let placed = OffsetDateTime::now_utc() - age;
        let mut event = order_placed();
        event["time"] = json!(at(placed));
        event["data"]["placedAt"] = json!(at(placed));
        let response = handler
            .trigger("notify", event.to_string().as_bytes())
            .await;
        assert_completed(response).await;
        let email = handler.provider.next().await.json();
        email["content"]["plainText"].as_str().unwrap().to_owned()
    };
    assert!(
        !text(time::Duration::minutes(59))
            .await
            .contains("this email is late")
    );
    assert!(
        text(time::Duration::minutes(61))
            .await
            .contains("this email is late")
    );
}

#[tokio::test]
async fn an_answer_that_was_lost_is_asked_for_and_doubt_is_kept() {
    let handler = Handler::start().await;
    // Nobody knows: the answer is lost, and so is that to the question.
    handler.provider.reply_once(Reply::status(500));
    handler.provider.reply_once(Reply::status(500));
    assert_completed(
        handler
            .trigger_copy("notify", &order_placed(), &json!({}))
            .await,
    )
    .await;
    let copy = Copy::next(&handler).await;
    assert!(copy["last-error"].starts_with("ambiguous: "));
    assert!(copy.has("unconfirmed-since"));
    assert_eq!(
        handler.provider.rest().len(),
        2,
        "what may be there is not repeated in a hurry"
    );
    // The copy asks first, and learns that it is there.
    handler
        .provider
        .reply_once(Reply::text(200, r#"{"id":"x","status":"Succeeded"}"#));
    assert_completed(
        handler
            .trigger_copy("notify", &order_placed(), &copy.properties())
            .await,
    )
    .await;
    let asked = handler.provider.rest();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].method, "GET");
    assert!(handler.bus.rest().is_empty());
}

#[tokio::test]
async fn while_the_bus_is_down_a_copy_is_not_given_up() {
    let handler = Handler::start().await;
    handler
        .florist
        .reply_once(Reply::with_header(503, "retry-after", "20"));
    handler.bus.reply_once(Reply::status(503));
    handler.bus.reply_once(Reply::status(401));
    handler.bus.reply_once(Reply::status(401));
    handler.bus.reply_once(Reply::status(500));
    let message = order_placed().to_string();
    assert_completed(handler.trigger("vendor-notify", message.as_bytes()).await).await;
    let ids: Vec<_> = handler
        .bus
        .rest()
        .into_iter()
        .map(|sent| Copy::of(sent).id().to_owned())
        .collect();
    assert_eq!(ids.len(), 5);
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

/// With the times of a test; the handler's own are the host's five minutes.
#[tokio::test]
async fn a_bus_that_stays_down_fails_the_invocation_and_completes_nothing() {
    use orderup::{
        App,
        attempt::{Attempt, Held},
        config::Settings,
        delivery::Told,
        redelivery::Audience,
    };

    let bus = crate::scripted_server::ScriptedServer::start([Reply::with_header(
        503,
        "retry-after",
        "0",
    )])
    .await;
    let vendors = concat!(env!("CARGO_MANIFEST_DIR"), "/vendors.json");
    let settings = Settings::from_pairs([
        (
            "ServiceBusConnection",
            "Endpoint=sb://localhost;SharedAccessKeyName=n;SharedAccessKey=k;UseDevelopmentEmulator=true",
        ),
        ("SERVICEBUS_REST_ENDPOINT", &bus.url()),
        ("EMAIL_PROVIDER", "smtp"),
        ("EMAIL_FROM", "orders@shop.example"),
        ("SMTP_URL", "smtp://127.0.0.1:1"),
        ("VENDORS_FILE", vendors),
    ]);
    let mut deliverer = App::from_settings(&settings).unwrap().deliverer;
    let connection = orderup::connection::TopicSettings::read(&settings).unwrap();
    let limits = orderup::data_plane::SendLimits {
        attempt: Duration::from_millis(200),
        total: Duration::from_millis(300),
        first_backoff: Duration::from_millis(50),
    };
    deliverer.topic = orderup::orders_topic::OrdersTopic::with_limits(
        &connection,
        &reqwest::Client::new(),
        limits,
    );
    deliverer.publish_until = Duration::from_secs(26);
    let envelope = json!({ "Data": { "message": order_placed() }, "Metadata": {} }).to_string();
    let response = deliverer
        .deliver(
            "notify",
            Audience::Customers,
            &axum::http::HeaderMap::new(),
            &envelope.into(),
            async |_| {
                vec![Told {
                    vendor: None,
                    attempt: Attempt::Held(Held::Parked),
                }]
            },
        )
        .await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    let ids: Vec<_> = bus
        .rest()
        .into_iter()
        .map(|sent| Copy::of(sent).id().to_owned())
        .collect();
    assert!(
        ids.len() > 3 && ids.iter().all(|id| *id == ids[0]),
        "{ids:?}"
    );
}
