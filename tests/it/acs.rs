//! Azure Communication Services Email.

use std::{process::Stdio, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, Mac};
use orderup::{
    config::Settings,
    email::{EmailError, EmailSender},
    failure::{Class, Failure},
    http_client,
};
use sha2::{Digest, Sha256};

use crate::{
    golden::Golden,
    provider::{ada_email, class, free_port, impatient_sender, sender},
    scripted_server::{Received, Reply, ScriptedServer},
};

const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
fn taken() -> Reply {
    Reply::text(202, r#"{"id":"8540c0de","status":"Running","error":null}"#)
}

fn denied() -> Reply {
    Reply::text(
        401,
        r#"{"error":{"code":"Denied","message":"Time drift, ada@example.net"}}"#,
    )
}

fn settings(connection_string: &str) -> [(&str, &str); 4] {
    [
        ("EMAIL_PROVIDER", "acs"),
        ("EMAIL_FROM", "Contoso Orders <orders@contoso.example>"),
        ("EMAIL_REPLY_TO", "Help <help@contoso.example>"),
        ("ACS_CONNECTION_STRING", connection_string),
    ]
}

fn client(url: &str) -> EmailSender {
    sender(settings(&format!("endpoint={url}/;accesskey={KEY}")))
}

/// Checks the signature as ACS does, from what arrived.
fn assert_signed(request: &Received) {
    let header = |name: &str| request.header(name);
    let hash = BASE64_STANDARD.encode(Sha256::digest(&request.body));
    assert_eq!(header("x-ms-content-sha256"), hash);
    let mut mac = Hmac::<Sha256>::new_from_slice(&BASE64_STANDARD.decode(KEY).unwrap()).unwrap();
    mac.update(
        format!(
            "{}\n{}\n{};{};{hash}",
            request.method,
            request.path_and_query,
            header("x-ms-date"),
            header("host")
        )
        .as_bytes(),
    );
    let signature = BASE64_STANDARD.encode(mac.finalize().into_bytes());
    assert_eq!(
        header("authorization"),
        format!(
            "HMAC-SHA256 SignedHeaders=x-ms-date;host;x-ms-content-sha256&Signature={signature}"
        )
    );
}

#[tokio::test]
async fn an_email_is_sent_as_the_sdk_sends_it() {
    let acs = ScriptedServer::start([taken()]).await;
    client(&acs.url()).send(&ada_email()).await.unwrap();

    let request = acs.next().await;
    Golden::parse(include_str!(
        "../golden/acs-email-send.js-sdk-1.1.0.hmac.http"
    ))
    .assert_sent(&request, &["content-type", "operation-id"]);
    assert!(request.headers.contains_key("x-ms-client-request-id"));
    assert_signed(&request);
}

#[tokio::test]
async fn a_refused_signature_is_made_anew_once() {
    let acs = ScriptedServer::start([denied(), taken()]).await;
    client(&acs.url()).send(&ada_email()).await.unwrap();

    let (first, second) = (acs.next().await, acs.next().await);
    assert_signed(&first);
    assert_signed(&second);
    assert_eq!(first.body, second.body);
    assert_eq!(
        first.headers["operation-id"],
        second.headers["operation-id"]
    );
    assert_ne!(
        first.headers["x-ms-client-request-id"],
        second.headers["x-ms-client-request-id"]
    );
}

#[tokio::test]
async fn a_second_401_is_about_our_key() {
    let acs = ScriptedServer::start([denied(), denied(), taken()]).await;
    let error = client(&acs.url()).send(&ada_email()).await.unwrap_err();
    assert_eq!(class(&error), "unauthorized");
    assert!(error.to_string().ends_with("401 Denied"), "{error}");
    acs.next().await;
    acs.next().await;
    assert!(acs.rest().is_empty());
}

#[tokio::test]
async fn each_answer_has_its_class_and_keeps_only_its_code() {
    for (reply, expected, text) in [
        (
            Reply::text(
                400,
                r#"{"error":{"code":"BadRequest","message":"ada@example.net is invalid"}}"#,
            ),
            "refused",
            "400 BadRequest",
        ),
        (
            Reply::text(
                404,
                r#"{"error":{"code":"DomainNotLinked","message":"Ada Lovelace"}}"#,
            ),
            "unauthorized",
            "404 DomainNotLinked",
        ),
        (
            Reply::with_header(403, "x-ms-error-code", "Denied"),
            "unauthorized",
            "403 Denied",
        ),
        (Reply::text(409, ""), "deferred", "409"),
        (
            Reply::with_header(429, "retry-after", "42"),
            "rate-limited",
            "429, and asks to be left alone for 42 s",
        ),
        (
            Reply::text(500, r#"{"error":{"code":"ada@example.net"}}"#),
            "unanswered",
            "the status was 500",
        ),
        (
            Reply::text(200, "<html>Hello Ada</html>"),
            "unanswered",
            "the status was 200",
        ),
        (
            Reply::with_header(302, "location", "https://example.net/ada"),
            "busy",
            "302",
        ),
    ] {
        // A question whether ACS has the email all the same is answered with no.
        let acs = ScriptedServer::start([reply, Reply::status(404)]).await;
        let error = client(&acs.url()).send(&ada_email()).await.unwrap_err();
        assert_eq!(class(&error), expected, "{error}");
        assert!(error.to_string().ends_with(text), "{error}");
        match error {
            EmailError::RateLimited { retry_after, .. } => {
                assert_eq!(retry_after, Some(Duration::from_secs(42)));
            }
            EmailError::Busy { retry_after, .. } => assert_eq!(retry_after, None),
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_repetition_that_acs_refuses_is_no_failure_if_it_has_the_email() {
    for refusal in [400, 409] {
        let operation = Reply::text(200, r#"{"id":"x","status":"Running"}"#);
        let acs = ScriptedServer::start([Reply::status(refusal), operation]).await;
        client(&acs.url()).send(&ada_email()).await.unwrap();
        let sent = acs.next().await;
        let asked = acs.next().await;
        assert_eq!(asked.method, "GET");
        assert_eq!(
            asked.path_and_query,
            format!(
                "/emails/operations/{}?api-version=2025-09-01",
                sent.header("operation-id")
            )
        );
    }
}

#[tokio::test]
async fn an_email_is_not_given_up_while_acs_cannot_be_asked() {
    for unclear in [Reply::status(503), Reply::status(429)] {
        let acs = ScriptedServer::start([Reply::status(400), unclear]).await;
        let error = client(&acs.url()).send(&ada_email()).await.unwrap_err();
        assert_eq!(class(&error), "unanswered", "{error}");
    }
}

/// Sends an email that may have been taken at an earlier attempt.
async fn send_again(acs: &ScriptedServer) -> Result<(), Failure> {
    let client = client(&acs.url());
    client.attempt(&ada_email(), ada_email, true).await
}

#[tokio::test]
async fn an_email_that_may_be_there_is_asked_for_before_it_is_sent() {
    let operation =
        |status: &str| Reply::text(200, &format!(r#"{{"id":"x","status":"{status}"}}"#));
    for status in ["NotStarted", "Running", "Succeeded"] {
        let acs = ScriptedServer::start([operation(status)]).await;
        send_again(&acs).await.unwrap();
        assert_eq!(acs.next().await.method, "GET");
        assert!(acs.rest().is_empty());
    }
    let acs = ScriptedServer::start([Reply::status(404), taken()]).await;
    send_again(&acs).await.unwrap();
    assert_eq!(acs.next().await.method, "GET");
    assert_eq!(acs.next().await.method, "POST");

    let acs = ScriptedServer::start([operation("Failed")]).await;
    let failure = send_again(&acs).await.unwrap_err();
    assert_eq!(failure.class, Class::Refused);
}

#[tokio::test]
async fn as_long_as_acs_cannot_be_asked_nothing_is_sent_and_doubt_stays() {
    for (unclear, class, asked) in [
        (Reply::text(200, "<html>"), Class::Transient, 1),
        (
            Reply::text(200, r#"{"status":"Unheard of"}"#),
            Class::Transient,
            1,
        ),
        (Reply::status(500), Class::Ambiguous, 1),
        (Reply::status(503), Class::Transient, 1),
        (Reply::status(400), Class::Transient, 1),
        (
            Reply::with_header(429, "retry-after", "7"),
            Class::RateLimited,
            1,
        ),
        (Reply::status(401), Class::ChannelBroken, 2),
    ] {
        let acs = ScriptedServer::start([unclear]).await;
        let failure = send_again(&acs).await.unwrap_err();
        assert_eq!(failure.class, class, "{failure}");
        assert!(!failure.nothing_taken, "{failure}");
        let is_limit = class == Class::RateLimited;
        assert_eq!(
            failure.retry_after,
            is_limit.then_some(Duration::from_secs(7))
        );
        let requests = acs.rest();
        assert_eq!(requests.len(), asked, "{failure}");
        assert!(requests.iter().all(|request| request.method == "GET"));
    }
    // A clear answer settles what became of the earlier attempts, too.
    let acs = ScriptedServer::start([Reply::status(404), Reply::status(503)]).await;
    let failure = send_again(&acs).await.unwrap_err();
    assert_eq!(
        (failure.class, failure.nothing_taken),
        (Class::Transient, true)
    );
}

#[tokio::test]
async fn an_answer_that_was_lost_is_asked_for() {
    let operation = Reply::text(200, r#"{"id":"x","status":"Succeeded"}"#);
    for lost in [Reply::status(500), Reply::status(502), Reply::status(504)] {
        let acs = ScriptedServer::start([lost, operation.clone()]).await;
        client(&acs.url()).send(&ada_email()).await.unwrap();
        assert_eq!(acs.rest().len(), 2);
    }
}

#[tokio::test]
async fn an_answer_is_read_up_to_a_cap() {
    let long = "x".repeat(100_000);
    let body = format!(r#"{{"error":{{"message":"{long}","code":"BeyondTheCap"}}}}"#);
    let acs = ScriptedServer::start([Reply::text(400, &body), Reply::status(404)]).await;
    let error = client(&acs.url()).send(&ada_email()).await.unwrap_err();
    assert!(error.to_string().ends_with("400"), "{error}");
}

#[tokio::test]
async fn nobody_listening_means_that_nothing_was_sent() {
    let port = free_port().await;
    let client = client(&format!("http://127.0.0.1:{port}"));
    let error = client.send(&ada_email()).await.unwrap_err();
    assert_eq!(class(&error), "unreachable");
}

#[tokio::test]
async fn silence_means_that_it_may_have_been_sent() {
    let acs = ScriptedServer::start([Reply::Hang, Reply::Hang]).await;
    let string = format!("endpoint={};accesskey={KEY}", acs.url());
    let client = impatient_sender(settings(&string));
    let error = client.send(&ada_email()).await.unwrap_err();
    assert_eq!(class(&error), "unanswered");
    assert_eq!(acs.rest().len(), 2, "it was asked");
}

const TOKEN_TEST: &str =
    "acs::a_token_is_sent_as_the_sdk_sends_it_and_is_replaced_when_it_is_rejected";
const IS_SENDER: &str = "ORDERUP_TEST_IS_SENDER";

fn token(token: &str) -> Reply {
    Reply::text(
        200,
        &format!(
            r#"{{"access_token":"{token}","expires_on":"4102444800","resource":"https://communication.azure.com/","token_type":"Bearer"}}"#
        ),
    )
}

/// Where the identity's tokens come from is read from the process's environment, and so the sending side is a
/// second process of this test.
#[tokio::test]
async fn a_token_is_sent_as_the_sdk_sends_it_and_is_replaced_when_it_is_rejected() {
    if std::env::var_os(IS_SENDER).is_some() {
        let settings = Settings::from_env();
        let http = http_client::outgoing(&settings).unwrap();
        let client = EmailSender::from_settings(&settings, &http).unwrap();
        client.send(&ada_email()).await.unwrap();
        assert!(!format!("{client:?}").contains("jwt"));
        return;
    }

    let identity = ScriptedServer::start([token("first-jwt"), token("second-jwt")]).await;
    let acs = ScriptedServer::start([denied(), taken()]).await;
    let sender = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args([TOKEN_TEST, "--exact", "--nocapture"])
        .env_clear()
        .env(IS_SENDER, "1")
        .env("IDENTITY_ENDPOINT", format!("{}/msi/token", identity.url()))
        .env("IDENTITY_HEADER", "header-secret")
        .env("AZURE_CLIENT_ID", "client-1")
        .env("EMAIL_PROVIDER", "acs")
        .env("EMAIL_FROM", "orders@contoso.example")
        .env("ACS_ENDPOINT", acs.url())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let output = String::from_utf8_lossy(&sender.stdout);
    assert!(sender.status.success(), "{output}");
    assert!(output.contains("1 passed"), "{output}");

    let asked = identity.rest();
    assert_eq!(asked.len(), 2);
    assert!(
        asked[0].path_and_query.ends_with("&client_id=client-1"),
        "{}",
        asked[0].path_and_query
    );
    let golden = Golden::parse(include_str!(
        "../golden/acs-email-send.js-sdk-1.1.0.bearer.http"
    ));
    let sent = acs.rest();
    assert_eq!(sent.len(), 2);
    for (request, token) in sent.iter().zip(["first-jwt", "second-jwt"]) {
        assert_eq!(request.method, golden.method);
        assert_eq!(request.path_and_query, golden.path_and_query);
        assert_eq!(
            request.header("content-type"),
            golden.header("content-type")
        );
        let (scheme, _) = golden.header("authorization").split_once(' ').unwrap();
        assert_eq!(request.header("authorization"), format!("{scheme} {token}"));
        assert!(!request.headers.contains_key("x-ms-date"));
    }
}
