//! Faults: what can be switched on, and what a client then sees.

use axum::http::Method;
use devhost::faults::Fault;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    app::{App, Devhost},
    stand_ins::{email, signed},
};

const SEND: &str = "/emails:send?api-version=2025-09-01";

#[test]
fn nonsense_is_refused_by_the_name_of_its_field() {
    for (fault, word) in [
        (r#"{"status":200}"#, "`status`"),
        (r#"{"status":"503"}"#, "`status`"),
        (r#"{"status":503,"retryAfter":-1}"#, "`retryAfter`"),
        (r#"{"retryAfter":1,"hang":true}"#, "`retryAfter`"),
        (r#"{"latencyMs":600001}"#, "`latencyMs`"),
        (r#"{"hang":"yes"}"#, "`hang`"),
        (r#"{"hang":true,"status":503}"#, "`hang`"),
        (r#"{"drop":"during"}"#, "`drop`"),
        (r#"{"drop":"after","status":503}"#, "`drop`"),
        (r#"{"status":503,"times":0}"#, "`times`"),
        (r#"{"stauts":503}"#, "`stauts`"),
        ("{}", "must say what goes wrong"),
        ("[]", "JSON object"),
    ] {
        let error = Fault::parse(fault.as_bytes()).unwrap_err();
        assert!(error.contains(word), "{fault}: {error}");
    }
    assert!(Fault::parse(br#"{"status":503,"retryAfter":30,"latencyMs":0,"hang":false,"drop":null,"times":null}"#).is_ok());
}

#[tokio::test]
async fn a_status_strikes_as_often_as_it_should() {
    let app = App::new();
    let devhost = app.run().await;
    let outside = devhost.outside().await;
    assert_eq!(
        devhost
            .set_fault("email", r#"{"status":429,"retryAfter":7,"times":2}"#)
            .await,
        (
            200,
            "{\n  \"status\": 429,\n  \"retryAfter\": 7,\n  \"latencyMs\": 0,\n  \"hang\": false,\n  \
             \"drop\": null,\n  \"times\": 2\n}\n"
                .to_owned()
        )
    );
    for _ in 0..2 {
        let response = devhost
            .client
            .post(format!("{outside}{SEND}"))
            .send()
            .await
            .unwrap();
        assert_eq!(
            (
                response.status().as_u16(),
                response.headers()["retry-after"].to_str().unwrap()
            ),
            (429, "7")
        );
        assert!(response.text().await.unwrap().contains("\"error\""));
    }
    let third = signed(
        &devhost,
        &outside,
        Method::POST,
        SEND,
        email("x").to_string(),
    )
    .send()
    .await
    .unwrap();
    assert_eq!(third.status(), 202);
    assert_eq!(devhost.get_json("/_dev/faults").await, json!({}));
}

#[tokio::test]
async fn faults_are_validated_and_deleted_by_target() {
    let app = App::new();
    let devhost = app.run().await;
    let (status, text) = devhost.set_fault("email", r#"{"status":99}"#).await;
    assert!(status == 400 && text.contains("`status`"), "{text}");
    assert_eq!(
        devhost.set_fault("nothing", r#"{"status":503}"#).await.0,
        404
    );
    assert_eq!(
        devhost
            .set_fault("vendors/nobody", r#"{"status":503}"#)
            .await
            .0,
        404
    );
    for target in ["vendors", "vendors/tea", "bus"] {
        assert_eq!(devhost.set_fault(target, r#"{"status":503}"#).await.0, 200);
    }
    let outside = devhost.outside().await;
    let status = |path: String| async {
        devhost
            .client
            .post(path)
            .send()
            .await
            .unwrap()
            .status()
            .as_u16()
    };
    let bus = devhost.handler_variable("SERVICEBUS_REST_ENDPOINT").await;
    assert_eq!(status(format!("{outside}/vendors/bakery")).await, 503);
    assert_eq!(status(format!("{outside}/vendors/tea")).await, 503);
    assert_eq!(status(format!("{bus}/work/messages")).await, 503);
    for target in ["vendors", "bus"] {
        let url = format!("{}/_dev/faults/{target}", devhost.url);
        assert_eq!(
            devhost.client.delete(url).send().await.unwrap().status(),
            204
        );
    }
    assert_eq!(status(format!("{outside}/vendors/bakery")).await, 401);
    assert_eq!(status(format!("{outside}/vendors/tea")).await, 503);
    assert_ne!(status(format!("{bus}/work/messages")).await, 503);
}

/// Sends a signed email over a connection of its own; gives every byte that came back.
async fn raw_answer(devhost: &Devhost, outside: &str, subject: &str) -> Vec<u8> {
    let request = signed(
        devhost,
        outside,
        Method::POST,
        SEND,
        email(subject).to_string(),
    )
    .build()
    .unwrap();
    let host = outside.trim_start_matches("http://");
    let body = request.body().unwrap().as_bytes().unwrap();
    let mut bytes = format!(
        "POST {SEND} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n",
        body.len()
    )
    .into_bytes();
    for (name, value) in request.headers() {
        bytes.extend(format!("{name}: {}\r\n", value.to_str().unwrap()).into_bytes());
    }
    bytes.extend(b"\r\n");
    bytes.extend(body);
    let mut stream = TcpStream::connect(host).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    let mut answer = Vec::new();
    // A reset instead of a clean end is as good: what counts is what came before it.
    let _ = stream.read_to_end(&mut answer).await;
    answer
}

#[tokio::test]
async fn a_dropped_connection_closes_without_a_single_byte() {
    let app = App::new();
    let devhost = app.run().await;
    let outside = devhost.outside().await;

    devhost
        .set_fault("email", r#"{"drop":"before","times":1}"#)
        .await;
    assert_eq!(raw_answer(&devhost, &outside, "before").await, b"");
    assert_eq!(devhost.get_json("/_dev/emails").await, json!([]));

    devhost
        .set_fault("email", r#"{"drop":"after","times":1}"#)
        .await;
    assert_eq!(raw_answer(&devhost, &outside, "after").await, b"");
    assert_eq!(
        devhost.get_json("/_dev/emails").await[0]["subject"],
        "after"
    );
}

#[tokio::test]
async fn a_hanging_request_takes_no_effect_and_ends_with_its_client() {
    let app = App::new();
    let mut devhost = app.run().await;
    let outside = devhost.outside().await;
    devhost
        .set_fault("email", r#"{"hang":true,"times":1}"#)
        .await;
    let request = |subject: &str| {
        let body = email(subject).to_string();
        signed(&devhost, &outside, Method::POST, SEND, body)
    };
    let (hangs, passes) = (request("hangs"), request("passes"));
    let hanging = tokio::spawn(hangs.send());
    devhost.line("The fault of email strikes").await;
    hanging.abort();
    assert!(hanging.await.unwrap_err().is_cancelled());
    assert_eq!(passes.send().await.unwrap().status(), 202);
    let emails = devhost.get_json("/_dev/emails").await;
    assert_eq!(emails.as_array().unwrap().len(), 1);
    assert_eq!(emails[0]["subject"], "passes");
}

#[tokio::test]
async fn a_request_may_hang_after_it_took_effect() {
    let app = App::new();
    let mut devhost = app.run().await;
    let outside = devhost.outside().await;
    let fault = r#"{"hang":true,"drop":"after","times":1}"#;
    assert_eq!(devhost.set_fault("email", fault).await.0, 200);
    let body = email("hangs").to_string();
    let hanging = tokio::spawn(signed(&devhost, &outside, Method::POST, SEND, body).send());
    devhost.line("The fault of email strikes").await;
    let emails = loop {
        let emails = devhost.get_json("/_dev/emails").await;
        if !emails.as_array().unwrap().is_empty() || hanging.is_finished() {
            break emails;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    };
    assert_eq!(emails[0]["subject"], "hangs");
    assert!(!hanging.is_finished());
    hanging.abort();
}

#[tokio::test]
async fn a_fault_that_could_not_strike_is_refused() {
    let app = App::new();
    let own = [
        ("SMTP_URL", "smtp://127.0.0.1:1"),
        ("VENDORS_FILE", "vendors.json"),
    ];
    let mut devhost = app.start(&[], &own);
    devhost.wait_until_ready().await;
    for (target, name) in [
        ("email", "SMTP_URL"),
        ("vendors", "VENDORS_FILE"),
        ("vendors/tea", "VENDORS_FILE"),
    ] {
        let (status, text) = devhost.set_fault(target, r#"{"status":503}"#).await;
        assert!(status == 409 && text.contains(name), "{status} {text}");
    }
    assert_eq!(devhost.set_fault("bus", r#"{"status":503}"#).await.0, 200);
}
