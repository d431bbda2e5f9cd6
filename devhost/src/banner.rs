//! What devhost prints once everything listens: the functions, where to look, and a first order to place.

use axum::http::Method;
use serde_json::{Value, json};

use crate::{
    console,
    function_json::{Function, Trigger},
    stand_ins::Ports,
    vendors::Vendor,
};

/// Prints `Functions:` as `func start` does, each with its URL or its trigger and entity.
pub(crate) fn print_functions(functions: &[Function], prefix: &str, port: u16) {
    console::plain("\nFunctions:\n");
    for function in functions {
        let state = if function.disabled { " (disabled)" } else { "" };
        let what = match &function.trigger {
            Trigger::Http(trigger) => {
                let methods = match &trigger.methods {
                    Some(methods) => methods
                        .iter()
                        .map(Method::as_str)
                        .collect::<Vec<_>>()
                        .join(","),
                    None => "ANY".to_owned(),
                };
                format!(
                    "[{methods}] {}{}",
                    base_url(prefix, port),
                    trigger.route.text()
                )
            }
            Trigger::ServiceBus(trigger) => format!("serviceBusTrigger on {}", trigger.entity),
            Trigger::Timer(_) => "timerTrigger".to_owned(),
        };
        console::plain(format_args!("\t{}: {what}{state}\n", function.name));
    }
}

/// Prints devhost's own addresses.
pub(crate) fn print_addresses(ports: Ports, lines: &[String]) {
    let base = format!("http://localhost:{}", ports.functions);
    for line in lines {
        console::plain(line);
    }
    console::plain(format_args!(
        "Bus:      REST data plane at http://localhost:{}, AMQP at localhost:{}",
        ports.bus, ports.amqp
    ));
    console::plain(format_args!("Entities: {base}/_dev/entities"));
    console::plain(format_args!(
        "Faults:   curl -X PUT {base}/_dev/faults/email -d '{{\"status\":503,\"times\":3}}'"
    ));
}

/// Prints a line that places an order, if the app has the function `checkout`.
pub(crate) fn print_sample_order(
    functions: &[Function],
    prefix: &str,
    port: u16,
    vendors: &[Vendor],
) {
    let checkout = functions
        .iter()
        .find_map(|function| match &function.trigger {
            Trigger::Http(trigger) if function.name == "checkout" && !function.disabled => {
                Some(trigger)
            }
            Trigger::Http(_) | Trigger::ServiceBus(_) | Trigger::Timer(_) => None,
        });
    let Some(checkout) = checkout else {
        return;
    };
    console::plain(format_args!(
        "\nPlace an order:\n\ncurl -i {}{} -H 'Content-Type: application/json' -d '{}'\n",
        base_url(prefix, port),
        checkout.route.text(),
        sample_order(vendors),
    ));
}

/// `http://localhost:7071/api/`
pub(crate) fn base_url(prefix: &str, port: u16) -> String {
    if prefix.is_empty() {
        format!("http://localhost:{port}/")
    } else {
        format!("http://localhost:{port}/{prefix}/")
    }
}

/// An order with one line from each of the first two vendors.
fn sample_order(vendors: &[Vendor]) -> Value {
    let goods = [
        ("PANCAKE-12", "Pancake stack", 2, 1250),
        ("TEA-1", "Pot of tea", 1, 450),
    ];
    let ids: Vec<&str> = match vendors {
        [] => vec!["bakery"],
        some => some.iter().map(|vendor| vendor.id.as_str()).collect(),
    };
    let lines: Vec<Value> = ids
        .into_iter()
        .zip(goods)
        .map(|(vendor, (sku, name, quantity, amount))| {
            json!({
                "vendorId": vendor, "sku": sku, "name": name, "quantity": quantity,
                "unitPrice": { "amount": amount, "currency": "AUD" },
            })
        })
        .collect();
    json!({
        "customer": { "name": "Ada Lovelace", "email": "ada@example.net", "locale": "en-AU" },
        "lineItems": lines,
        "payment": { "source": "cnon:card-nonce-ok" },
        "partner": "brand-7",
    })
}
