//! Resend.

use orderup::email::EmailSender;

use crate::{
    golden::Golden,
    provider::{ada_email, class, free_port, impatient_sender, sender},
    scripted_server::{Reply, ScriptedServer},
};

fn settings(url: &str) -> [(&str, &str); 5] {
    [
        ("EMAIL_PROVIDER", "resend"),
        ("EMAIL_FROM", "Contoso Orders <orders@contoso.example>"),
        ("EMAIL_REPLY_TO", "help@contoso.example"),
        ("RESEND_API_KEY", "re_test_key"),
        ("RESEND_BASE_URL", url),
    ]
}

fn client(url: &str) -> EmailSender {
    sender(settings(url))
}

#[tokio::test]
async fn an_email_is_sent_as_the_sdk_sends_it() {
    let resend = ScriptedServer::start([Reply::text(200, r#"{"id":"1"}"#)]).await;
    client(&resend.url()).send(&ada_email()).await.unwrap();

    let request = resend.next().await;
    Golden::parse(include_str!("../golden/resend-emails.js-sdk-6.38.0.http"))
        .assert_sent(&request, &["content-type", "authorization"]);
    // Which key a message has is ours to choose.
    assert_eq!(
        request.headers["idempotency-key"],
        ada_email().key.to_string()
    );
}

#[tokio::test]
async fn a_name_with_a_comma_is_quoted() {
    let resend = ScriptedServer::start([Reply::text(200, "")]).await;
    let url = resend.url();
    let mut settings = settings(&url);
    settings[1].1 = r#""Contoso, Orders" <orders@contoso.example>"#;
    sender(settings).send(&ada_email()).await.unwrap();
    let body: serde_json::Value = serde_json::from_str(&resend.next().await.body).unwrap();
    assert_eq!(
        body["from"],
        r#""Contoso, Orders" <orders@contoso.example>"#
    );
}

#[tokio::test]
async fn each_answer_has_its_class_and_keeps_only_its_name() {
    for (status, body, expected, text) in [
        (
            422,
            r#"{"statusCode":422,"name":"invalid_parameter","message":"ada@example.net"}"#,
            "refused",
            "422 invalid_parameter",
        ),
        (
            400,
            r#"{"statusCode":400,"name":"Ada Lovelace","message":""}"#,
            "refused",
            "400",
        ),
        (
            409,
            r#"{"name":"invalid_idempotent_request","message":"ada@example.net"}"#,
            "known otherwise",
            "409 invalid_idempotent_request",
        ),
        (
            409,
            r#"{"name":"concurrent_idempotent_requests","message":""}"#,
            "deferred",
            "409 concurrent_idempotent_requests",
        ),
        (
            403,
            r#"{"name":"validation_error","message":"the domain of ada is not verified"}"#,
            "unauthorized",
            "403 validation_error",
        ),
        (
            401,
            r#"{"name":"missing_api_key"}"#,
            "unauthorized",
            "401 missing_api_key",
        ),
        (
            429,
            r#"{"name":"daily_quota_exceeded"}"#,
            "rate-limited",
            "429 daily_quota_exceeded, and asks to be left alone for 3600 s",
        ),
        (
            500,
            r#"{"name":"application_error"}"#,
            "unanswered",
            "500 application_error",
        ),
        (
            503,
            r#"{"name":"service_unavailable"}"#,
            "busy",
            "503 service_unavailable",
        ),
        (502, "<html>", "unanswered", "502"),
    ] {
        let resend = ScriptedServer::start([Reply::text(status, body)]).await;
        let error = client(&resend.url()).send(&ada_email()).await.unwrap_err();
        assert_eq!(class(&error), expected, "{error}");
        assert!(error.to_string().ends_with(text), "{error}");
    }
}

#[tokio::test]
async fn an_outage_is_told_from_a_lost_answer() {
    let url = format!("http://127.0.0.1:{}", free_port().await);
    let error = client(&url).send(&ada_email()).await.unwrap_err();
    assert_eq!(class(&error), "unreachable");

    let resend = ScriptedServer::start([Reply::Hang]).await;
    let client = impatient_sender(settings(&resend.url()));
    let error = client.send(&ada_email()).await.unwrap_err();
    assert_eq!(class(&error), "unanswered");
}

#[tokio::test]
async fn a_rate_limit_says_in_how_many_seconds_it_ends() {
    for (header, value) in [("ratelimit-reset", "7"), ("retry-after", "7")] {
        let resend = ScriptedServer::start([Reply::with_header(429, header, value)]).await;
        let error = client(&resend.url()).send(&ada_email()).await.unwrap_err();
        assert_eq!(class(&error), "rate-limited");
        assert!(error.to_string().ends_with("for 7 s"), "{error}");
    }
}

#[tokio::test]
async fn an_email_that_is_known_as_it_was_is_asked_for_as_it_was() {
    let known = Reply::text(409, r#"{"name":"invalid_idempotent_request","message":""}"#);
    let resend = ScriptedServer::start([known, Reply::text(200, r#"{"id":"x"}"#)]).await;
    let mut late = ada_email();
    late.text.push_str(" It is late.");
    let told = client(&resend.url()).attempt(&late, ada_email, false).await;
    assert_eq!(told, Ok(()));
    let (first, second) = (resend.next().await, resend.next().await);
    assert_eq!(
        first.header("idempotency-key"),
        second.header("idempotency-key")
    );
    assert!(first.body.contains("It is late.") && !second.body.contains("It is late."));
}
