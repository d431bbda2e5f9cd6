//! The package and the binary belong together: each function folder has a route and each route a folder.

use std::path::Path;

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::handler::{Handler, JsonBody};

fn function_json(function: &str) -> Option<Value> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join(function).join("function.json")).ok()?;
    Some(serde_json::from_str(&text).unwrap())
}

pub fn functions() -> Vec<(String, Value)> {
    let root = std::fs::read_dir(env!("CARGO_MANIFEST_DIR")).unwrap();
    let mut functions: Vec<_> = root
        .filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            Some((name.clone(), function_json(&name)?))
        })
        .collect();
    functions.sort_by(|a, b| a.0.cmp(&b.0));
    functions
}

fn read(file: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[tokio::test]
async fn every_function_has_a_route() {
    let handler = Handler::start().await;
    for (name, function) in functions() {
        let trigger = &function["bindings"][0];
        let path = match trigger["type"].as_str().unwrap() {
            "httpTrigger" => {
                let route = trigger["route"].as_str().unwrap();
                let route = route.replace("{orderId:guid}", "01935a1e-9c00-7000-8000-000000000001");
                format!("/api/{}", route.replace("{name}", "not-found"))
            }
            "serviceBusTrigger" | "timerTrigger" => format!("/{name}"),
            other => panic!("{name} has a trigger of type {other}"),
        };
        let method = match trigger["methods"][0].as_str() {
            Some(method) => method.to_ascii_uppercase(),
            None => "POST".to_owned(),
        };
        let request = handler
            .http
            .request(method.parse().unwrap(), handler.url(&path))
            .json_body(&json!({}));
        let response = request.send().await.unwrap();
        let (status, body) = (response.status(), response.text().await.unwrap());
        assert!(
            !body.contains("There is nothing here") && status != StatusCode::METHOD_NOT_ALLOWED,
            "{path} answers {status}"
        );
    }
}

#[test]
fn every_route_has_a_function() {
    let names: Vec<_> = functions().into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        names,
        [
            "book",
            "cancel",
            "checkout",
            "notify",
            "order",
            "order-status",
            "outbox",
            "problem",
            "till",
            "vendor-notify"
        ]
    );
    let source = include_str!("../../src/lib.rs");
    let routes: Vec<&str> = source
        .lines()
        .filter_map(|line| line.trim().strip_prefix(".route(\"")?.split('"').next())
        .collect();
    assert_eq!(
        routes,
        [
            "/",
            "/api/checkout",
            "/api/orders/{order_id}/cancel",
            "/api/orders/{order_id}",
            "/api/orders/{order_id}/status",
            "/api/problems/{name}",
            "/notify",
            "/vendor-notify",
            "/till",
            "/book",
            "/outbox"
        ]
    );
}

#[test]
fn triggers_read_the_entities_of_the_topology_and_take_bytes() {
    let topology = read("servicebus.json");
    let namespace = &topology["UserConfig"]["Namespaces"][0];
    for (name, function) in functions() {
        let trigger = &function["bindings"][0];
        if trigger["type"] != "serviceBusTrigger" {
            continue;
        }
        assert_eq!(trigger["dataType"], "binary", "{name}");
        assert_eq!(trigger["connection"], "ServiceBusConnection", "{name}");
        assert_eq!(trigger["name"], "message", "{name}");
        let entities = if let Some(queue) = trigger["queueName"].as_str() {
            (namespace["Queues"].clone(), queue)
        } else {
            let topics = namespace["Topics"].as_array().unwrap();
            let topic = topics
                .iter()
                .find(|topic| topic["Name"] == trigger["topicName"]);
            let subscription = trigger["subscriptionName"].as_str().unwrap();
            (topic.unwrap()["Subscriptions"].clone(), subscription)
        };
        let exists = entities
            .0
            .as_array()
            .unwrap()
            .iter()
            .any(|entity| entity["Name"] == entities.1);
        assert!(exists, "{name} reads {}", entities.1);
    }
}

#[test]
fn the_host_settings_are_the_ones_that_the_handler_relies_on() {
    let host = read("host.json");
    assert_eq!(host["customHandler"]["enableForwardingHttpRequest"], true);
    assert_eq!(host["customHandler"]["enableProxyingHttpRequest"], true);
    assert_eq!(
        host["customHandler"]["description"]["defaultExecutablePath"],
        "orderup"
    );
    assert_eq!(host["functionTimeout"], "00:05:00");
    assert_eq!(
        host["extensionBundle"]["id"],
        "Microsoft.Azure.Functions.ExtensionBundle"
    );
}
