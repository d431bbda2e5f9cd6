//! How the process starts, ends and logs.

use std::{process::Output, sync::Arc};

use axum::http::StatusCode;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::Notify};

use crate::{
    handler::{Folder, Handler, command, free_port, order, order_placed},
    scripted_server::Reply,
};

#[tokio::test]
async fn it_answers_the_host_before_it_has_reached_anything_outside() {
    let handler = Handler::start().await;
    let response = handler.http.get(handler.url("/")).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    for outside in [
        &handler.bus,
        &handler.provider,
        &handler.bakery,
        &handler.florist,
    ] {
        assert!(outside.rest().is_empty());
    }
}

async fn run(change: impl FnOnce(&mut tokio::process::Command)) -> (Output, String) {
    let mut command = command(free_port());
    change(&mut command);
    let output = command.output().await.unwrap();
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    (output, stderr)
}

#[tokio::test]
async fn each_setting_that_is_missing_or_wrong_is_named_once() {
    let cases: &[(&str, &str)] = &[
        ("FUNCTIONS_CUSTOMHANDLER_PORT", ""),
        ("FUNCTIONS_CUSTOMHANDLER_PORT", "eighty"),
        ("ServiceBusConnection", ""),
        ("ServiceBusConnection", "Endpoint=hunter2"),
        ("ORDERS_TOPIC", "orders?hunter2"),
        ("SERVICEBUS_REST_ENDPOINT", "hunter2"),
        ("EMAIL_PROVIDER", ""),
        ("EMAIL_PROVIDER", "hunter2"),
        ("EMAIL_FROM", ""),
        ("EMAIL_FROM", "hunter2"),
        ("EMAIL_REPLY_TO", "hunter2"),
        ("ACS_CONNECTION_STRING", ""),
        (
            "ACS_CONNECTION_STRING",
            "endpoint=https://x/;accesskey=hunter2!",
        ),
        ("VENDORS_FILE", "/no/such/file"),
        ("VENDORS_FILE", r#"[{"secrets":["whsec_hunter2"]}]"#),
        ("HTTPS_PROXY", "ftp://hunter2.example"),
        ("SMTP_URL", "smtp://ada:hunter2@mail.example"),
        ("FUNCTIONS_CUSTOMHANDLER_PORT", "0"),
        ("SENDGRID_API_KEY", ""),
        ("SENDGRID_BASE_URL", "http://hunter2.example"),
        ("RESEND_API_KEY", ""),
        ("RESEND_BASE_URL", "hunter2"),
        ("ACS_ENDPOINT", "http://hunter2.example"),
        ("ServiceBusConnection__fullyQualifiedNamespace", "hunter2"),
        ("ServiceBusConnection__credential", "hunter2"),
        ("ORDER_BOOK", "hunter2--"),
        ("AzureWebJobsStorage", "AccountName=hunter2"),
        ("TILL", "hunter2"),
        ("TILL_URL", "http://hunter2.example"),
        ("SQUARE_ACCESS_TOKEN", ""),
        ("SQUARE_LOCATION_ID", ""),
        ("SQUARE_BASE_URL", "hunter2"),
        ("VENDOR_NOTIFY_ON", "hunter2"),
        ("ORDER_TOKEN_SECRET", "hunter2"),
    ];
    for (variable, value) in cases {
        let (output, stderr) = run(|command| {
            match *variable {
                "SMTP_URL" => command.env("EMAIL_PROVIDER", "smtp"),
                "SENDGRID_API_KEY" | "SENDGRID_BASE_URL" => command
                    .env("EMAIL_PROVIDER", "sendgrid")
                    .env("SENDGRID_API_KEY", "SG.key"),
                "RESEND_API_KEY" | "RESEND_BASE_URL" => command
                    .env("EMAIL_PROVIDER", "resend")
                    .env("RESEND_API_KEY", "re_key"),
                "TILL" => command.env("ORDER_BOOK", "./target/tmp/"),
                "TILL_URL" => command
                    .env("ORDER_BOOK", "./target/tmp/")
                    .env("TILL", "pos"),
                "SQUARE_ACCESS_TOKEN" | "SQUARE_LOCATION_ID" | "SQUARE_BASE_URL" => command
                    .env("ORDER_BOOK", "./target/tmp/")
                    .env("TILL", "square")
                    .env("SQUARE_ACCESS_TOKEN", "EAAA")
                    .env("SQUARE_LOCATION_ID", "L1"),
                "ORDER_BOOK" => command.env("AzureWebJobsStorage", "UseDevelopmentStorage=true"),
                "ACS_ENDPOINT" => command.env_remove("ACS_CONNECTION_STRING"),
                "ServiceBusConnection__fullyQualifiedNamespace"
                | "ServiceBusConnection__credential" => {
                    command.env_remove("ServiceBusConnection").env(
                        "ServiceBusConnection__fullyQualifiedNamespace",
                        "shop.servicebus.windows.net",
                    )
                }
                _ => command,
            };
            command.env(variable, value);
        })
        .await;
        assert_eq!(output.status.code(), Some(1), "{variable}={value}");
        assert_eq!(stderr.lines().count(), 1, "{variable}={value}: {stderr}");
        assert!(stderr.contains(variable), "{variable}={value}: {stderr}");
        assert!(stderr.contains("should be"), "{variable}={value}: {stderr}");
        assert!(!stderr.contains("hunter2"), "{variable}={value}: {stderr}");
    }
}

#[tokio::test]
async fn several_mistakes_are_told_together() {
    let (output, stderr) = run(|command| {
        command
            .env_remove("EMAIL_PROVIDER")
            .env("ServiceBusConnection", "x")
            .env("VENDORS_FILE", "/no/such/file");
    })
    .await;
    assert_eq!(output.status.code(), Some(1));
    for variable in ["EMAIL_PROVIDER", "ServiceBusConnection", "VENDORS_FILE"] {
        assert!(stderr.contains(variable), "{stderr}");
    }
}

#[tokio::test]
async fn a_broken_vendors_file_is_told_with_its_place() {
    let folder = Folder::new();
    let path = folder.0.join("vendors.json");
    std::fs::write(
        &path,
        r#"[{"id":"bakery","name":"x","url":"https://x.example/","secrets":["whsec_hunter2"]}]"#,
    )
    .unwrap();
    let (output, stderr) = run(|command| {
        command.env("VENDORS_FILE", &path);
    })
    .await;
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr.contains("VENDORS_FILE") && stderr.contains("vendor 0 (`bakery`)"),
        "{stderr}"
    );
    assert!(!stderr.contains("hunter2"), "{stderr}");
}

#[tokio::test]
async fn a_port_in_use_is_told() {
    let taken = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let output = command(port).output().await.unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr.contains(&port.to_string()) && stderr.contains("FUNCTIONS_CUSTOMHANDLER_PORT"),
        "{stderr}"
    );
}

#[tokio::test]
async fn a_signal_ends_it_after_the_requests_in_flight() {
    for signal in ["-TERM", "-INT"] {
        let handler = Handler::start().await;
        let release = Arc::new(Notify::new());
        handler
            .bus
            .reply_once(Reply::Held(release.clone(), 201, String::new()));

        let url = handler.url("/api/checkout");
        let http = handler.http.clone();
        let request = tokio::spawn(async move {
            let request = http.post(url).header("Content-Type", "application/json");
            request.body(order().to_string()).send().await
        });
        handler.bus.next().await;
        handler.signal(signal);
        // The broker answers only now, after the signal.
        release.notify_one();

        assert_eq!(
            request.await.unwrap().unwrap().status(),
            StatusCode::ACCEPTED,
            "{signal}"
        );
        let (status, _) = handler.ended().await;
        assert!(status.success(), "{signal}: {status}");
    }
}

#[tokio::test]
async fn a_delivery_is_logged_as_one_json_line_that_names_it() {
    let handler = Handler::start().await;
    handler
        .trigger("notify", order_placed().to_string().as_bytes())
        .await;
    let lines = handler.stop().await;
    let lines: Vec<Value> = lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .filter(|line: &Value| line.get("outcome").is_some())
        .collect();
    let [line] = &lines[..] else {
        panic!("{lines:?}");
    };
    assert_eq!(line["level"], "INFO");
    assert_eq!(line["outcome"], "delivered");
    assert!(line["duration_ms"].is_u64());
    assert_eq!(line["span"]["function"], "notify");
    assert_eq!(
        line["span"]["invocation.id"],
        "3f1c0f0e-0000-4000-8000-000000000001"
    );
    assert_eq!(
        line["span"]["order.id"],
        "01935a1e-9c00-7000-8000-000000000001"
    );
    assert_eq!(line["span"]["message.id"], "m-1");
    assert_eq!(line["span"]["delivery_count"], 1);
}

/// Whatever goes right or wrong, no one can read in the log who ordered, how they pay, or a key.
#[tokio::test]
async fn nothing_personal_and_no_secret_reaches_the_log() {
    let handler = Handler::start().await;
    let message = order_placed().to_string();
    let quoting = || {
        Reply::Answer {
            status: 400,
            headers: vec![("content-type", "application/json".to_owned())],
            body: r#"{"error":{"code":"InvalidRecipient","message":"Ada Lovelace <ada@example.net> is not known"}}"#.to_owned(),
        }
    };
    handler.post("/api/checkout", &order()).await;
    handler.bus.reply_once(Reply::status(401));
    handler.bus.reply_once(Reply::status(403));
    handler.post("/api/checkout", &order()).await;
    let mut wrong = order();
    wrong["customer"]["email"] = json!("ada@example@net");
    wrong["payment"]["source"] = json!("4111111111111111");
    handler.post("/api/checkout", &wrong).await;
    handler.trigger("notify", message.as_bytes()).await;
    handler.provider.reply_once(quoting());
    handler.trigger("notify", message.as_bytes()).await;
    handler.bakery.reply_once(quoting());
    handler.trigger("vendor-notify", message.as_bytes()).await;
    handler
        .trigger(
            "notify",
            message.replace("ada@example.net", "ada").as_bytes(),
        )
        .await;
    handler
        .trigger("notify", message.replace("Ada", "Ada\\n").as_bytes())
        .await;
    handler
        .trigger("notify", message.replace('}', "").as_bytes())
        .await;
    for sent in handler.bus.rest() {
        // Properties are seen by everyone who may look at the queue.
        let headers = format!("{:?}", sent.headers);
        assert!(
            !headers.contains("Ada")
                && !headers.contains("example.net")
                && !headers.contains("cnon"),
            "{headers}"
        );
    }

    let lines = handler.stop().await.join("\n");
    assert!(lines.lines().count() >= 9, "{lines}");
    for secret in [
        "Ada",
        "Lovelace",
        "ada@",
        "example.net",
        "cnon",
        "4111",
        "whsec",
        "MfKQ9r8G",
        "c2VjcmV0",
        "SAS_KEY_VALUE",
        "SharedAccessSignature",
        "HMAC-SHA256",
    ] {
        assert!(!lines.contains(secret), "{secret} in {lines}");
    }
}
