//! Two thousand orders while everything breaks: the provider and the vendors fail and recover, the bus refuses, the
//! handler is killed, and the host with the bus inside it. In the end every order has to be told of, once.
//!
//! What breaks when is counted in orders, and not in time, so that every run meets all of it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::http::StatusCode;
use reqwest::Client;
use serde_json::Value;
use tokio::{sync::Notify, task::JoinSet};

use crate::{
    devhost::DevHost,
    handler::{JsonBody, order},
};

const ORDERS: usize = 2000;

/// Storefronts that order at the same time.
const STOREFRONTS: usize = 8;

/// Something breaks, or is mended, after so many orders.
const STEP: usize = 50;

/// After so many crashes of the handler the host ends, as Azure's does, and the platform starts another.
const HOST_GIVES_UP: usize = 3;

/// What breaks and what is mended, one after the other and again from the start.
#[derive(Debug, Clone, Copy)]
enum Step {
    Fault(&'static str, &'static str),
    Mend(&'static str),
    KillHandler,
    KillHost,
}

const STEPS: [Step; 19] = [
    Step::Fault("email", r#"{"status":503}"#),
    Step::KillHandler,
    Step::Mend("email"),
    Step::Fault("vendors", r#"{"status":500}"#),
    Step::Fault("email", r#"{"drop":"after"}"#),
    Step::KillHandler,
    Step::Mend("vendors"),
    Step::KillHost,
    Step::Fault("email", r#"{"status":429,"retryAfter":1}"#),
    Step::Fault("vendors/florist", r#"{"drop":"before"}"#),
    Step::KillHandler,
    Step::Mend("email"),
    Step::Fault("bus", r#"{"status":503,"times":20}"#),
    Step::KillHost,
    Step::Fault("vendors", r#"{"latencyMs":300}"#),
    Step::Fault("email", r#"{"drop":"before"}"#),
    Step::KillHandler,
    Step::Mend("email"),
    Step::Mend("vendors"),
];

/// How far the storefronts are.
#[derive(Default)]
struct Progress {
    next: AtomicUsize,
    accepted: AtomicUsize,
    one_more: Notify,
}

#[tokio::test]
async fn two_thousand_orders_survive_outages_and_kills_and_nobody_is_told_twice() {
    let settings = [("RETRY_SCHEDULE", "1s,2s")];
    let mut host = DevHost::start_with(&settings).await;
    let progress = Arc::new(Progress::default());
    let mut storefronts = JoinSet::new();
    for _ in 0..STOREFRONTS {
        storefronts.spawn(storefront(host.url("/api/checkout"), Arc::clone(&progress)));
    }

    let (mut kills, mut crashes) = (0, 0);
    for (count, step) in STEPS.iter().cycle().enumerate() {
        let due = (count + 1) * STEP;
        if due >= ORDERS {
            break;
        }
        while progress.accepted.load(Ordering::SeqCst) < due {
            progress.one_more.notified().await;
        }
        match step {
            Step::Fault(target, fault) => {
                host.fault(target, &serde_json::from_str(fault).unwrap())
                    .await;
            }
            Step::Mend(target) => host.no_fault(target).await,
            Step::KillHandler => {
                kills += 1;
                crashes += 1;
                host.kill_handler().await;
                if crashes == HOST_GIVES_UP {
                    host.ended().await;
                    host = host.kill_and_restart().await;
                    crashes = 0;
                }
            }
            Step::KillHost => {
                kills += 1;
                host = host.kill_and_restart().await;
                crashes = 0;
            }
        }
    }
    let mut orders = Vec::new();
    while let Some(placed) = storefronts.join_next().await {
        orders.extend(placed.unwrap());
    }
    assert_eq!(orders.len(), ORDERS);
    assert!(kills > 10, "{kills}");
    for target in ["email", "vendors", "vendors/florist", "bus"] {
        host.no_fault(target).await;
    }
    host.wait_until_idle().await;

    for entity in host.get("/_dev/entities").await.as_array().unwrap() {
        assert_eq!(entity["deadLetter"], 0, "{entity}");
    }
    // The provider knows an email by its key and a vendor a webhook by its id: each of them is there once.
    let emails = host.get("/_dev/emails").await;
    let emails = count(&emails, |email| {
        email["text"].as_str()?.split_whitespace().last()
    });
    let webhooks = host.get("/_dev/webhooks").await;
    assert!(
        webhooks
            .as_array()
            .unwrap()
            .iter()
            .all(|webhook| webhook["verified"] == true)
    );
    let repeated = host.repeated_webhooks().await;
    let webhooks = count(&webhooks, |webhook| {
        webhook["body"]["data"]["orderId"].as_str()
    });
    let expected = |times| -> BTreeMap<String, usize> {
        orders.iter().map(|order| (order.clone(), times)).collect()
    };
    assert_eq!(emails, expected(1), "emails by order");
    assert_eq!(webhooks, expected(2), "webhooks by order");
    println!(
        "{ORDERS} orders, {kills} kills: lost 0, told twice 0; {repeated} webhooks came again under the id that \
         their vendor knew"
    );
}

/// Orders until all are placed. Whoever gets no 202 asks again with the same key, as a storefront should.
async fn storefront(url: String, progress: Arc<Progress>) -> Vec<String> {
    let http = Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(60))
        .build()
        .unwrap();
    let mut placed = Vec::new();
    loop {
        let number = progress.next.fetch_add(1, Ordering::SeqCst);
        if number >= ORDERS {
            return placed;
        }
        loop {
            let request = http
                .post(&url)
                .header("Idempotency-Key", format!("order-{number}"))
                .json_body(&order());
            if let Ok(response) = request.send().await
                && response.status() == StatusCode::ACCEPTED
                && let Ok(body) = response.bytes().await
            {
                let answer: Value = serde_json::from_slice(&body).unwrap();
                placed.push(answer["orderId"].as_str().unwrap().to_owned());
                break;
            }
            progress.one_more.notify_one();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        progress.accepted.fetch_add(1, Ordering::SeqCst);
        progress.one_more.notify_one();
    }
}

fn count<'a>(
    list: &'a Value,
    order_id: impl Fn(&'a Value) -> Option<&'a str>,
) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for item in list.as_array().unwrap() {
        let order_id = order_id(item).unwrap_or_else(|| panic!("no order in {item}"));
        *counts.entry(order_id.to_owned()).or_default() += 1;
    }
    counts
}
