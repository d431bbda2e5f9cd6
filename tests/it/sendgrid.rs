//! SendGrid.

use orderup::email::EmailSender;
use serde_json::json;

use crate::{
    golden::Golden,
    provider::{ada_email, class, free_port, impatient_sender, sender},
    scripted_server::{Reply, ScriptedServer},
};

fn settings(url: &str) -> [(&str, &str); 5] {
    [
        ("EMAIL_PROVIDER", "sendgrid"),
        ("EMAIL_FROM", "Contoso Orders <orders@contoso.example>"),
        ("EMAIL_REPLY_TO", "help@contoso.example"),
        ("SENDGRID_API_KEY", "SG.test-key-id.test-key-secret"),
        ("SENDGRID_BASE_URL", url),
    ]
}

fn client(url: &str) -> EmailSender {
    sender(settings(url))
}

#[tokio::test]
async fn an_email_is_sent_as_the_sdk_sends_it() {
    let sendgrid = ScriptedServer::start([Reply::text(202, "")]).await;
    client(&sendgrid.url()).send(&ada_email()).await.unwrap();

    let mut golden = Golden::parse(include_str!(
        "../golden/sendgrid-mail-send.personalization-custom-args.js-sdk-8.1.6.http"
    ));
    // Which key a message has is ours to choose.
    golden.body["personalizations"][0]["custom_args"]["message_key"] = json!(ada_email().key);
    golden.assert_sent(&sendgrid.next().await, &["content-type", "authorization"]);
}

#[tokio::test]
async fn each_answer_has_its_class_and_keeps_only_the_field() {
    for (status, body, expected, text) in [
        (
            400,
            r#"{"errors":[{"message":"ada@example.net is bad","field":"personalizations.0.to.0.email"}]}"#,
            "refused",
            "400 personalizations.0.to.0.email",
        ),
        (
            400,
            r#"{"errors":[{"message":"","field":"ada@example.net"}]}"#,
            "refused",
            "400",
        ),
        (413, "Ada Lovelace", "refused", "413"),
        (
            401,
            r#"{"errors":[{"message":"secret","field":null}]}"#,
            "unauthorized",
            "401",
        ),
        (403, "", "unauthorized", "403"),
        (
            429,
            r#"{"errors":[{"field":null,"message":"too many requests"}]}"#,
            "rate-limited",
            "429",
        ),
        (500, "", "unanswered", "500"),
        (503, "", "busy", "503"),
        (204, "", "unanswered", "204"),
    ] {
        let sendgrid = ScriptedServer::start([Reply::text(status, body)]).await;
        let error = client(&sendgrid.url())
            .send(&ada_email())
            .await
            .unwrap_err();
        assert_eq!(class(&error), expected, "{error}");
        assert!(error.to_string().ends_with(text), "{error}");
    }
}

#[tokio::test]
async fn an_outage_is_told_from_a_lost_answer() {
    let url = format!("http://127.0.0.1:{}", free_port().await);
    let error = client(&url).send(&ada_email()).await.unwrap_err();
    assert_eq!(class(&error), "unreachable");

    let sendgrid = ScriptedServer::start([Reply::Hang]).await;
    let client = impatient_sender(settings(&sendgrid.url()));
    let error = client.send(&ada_email()).await.unwrap_err();
    assert_eq!(class(&error), "unanswered");
    sendgrid.next().await;
    assert!(sendgrid.rest().is_empty());
}

#[tokio::test]
async fn a_rate_limit_says_at_which_second_it_ends() {
    let reply = Reply::Answer {
        status: 429,
        headers: vec![
            ("date", "Sun, 22 Nov 2026 19:43:43 GMT".to_owned()),
            ("x-ratelimit-reset", "1795376653".to_owned()),
        ],
        body: String::new(),
    };
    let sendgrid = ScriptedServer::start([reply]).await;
    let error = client(&sendgrid.url())
        .send(&ada_email())
        .await
        .unwrap_err();
    assert_eq!(class(&error), "rate-limited");
    assert!(error.to_string().ends_with("for 30 s"), "{error}");
}
