//! Managed identity as in App Service: the token comes from `IDENTITY_ENDPOINT`, which is read from the process's
//! environment, and so the sending side is a second process of this test.

use std::process::Stdio;

use orderup::config::Settings;
use orderup::connection::TopicSettings;
use orderup::http_client;
use orderup::orders_topic::{OrdersTopic, Outgoing};

use crate::scripted_server::{Reply, ScriptedServer};

const TEST: &str =
    "identity::a_managed_identitys_token_is_kept_and_is_replaced_when_it_is_rejected";
const IS_SENDER: &str = "ORDERUP_TEST_IS_SENDER";

fn token(token: &str) -> Reply {
    Reply::text(
        200,
        &format!(
            r#"{{"access_token":"{token}","expires_on":"4102444800","resource":"https://servicebus.azure.net","token_type":"Bearer"}}"#
        ),
    )
}

async fn send_three_messages() {
    let settings = Settings::from_env();
    let topic = OrdersTopic::new(
        &TopicSettings::read(&settings).unwrap(),
        &http_client::outgoing(&settings).unwrap(),
    );
    for number in 1..=3 {
        topic
            .publish(&Outgoing {
                message_id: format!("m-{number}"),
                label: "order.placed".to_owned(),
                correlation_id: "o-1".to_owned(),
                content_type: "application/cloudevents+json".into(),
                body: "{}".to_owned(),
                scheduled_enqueue_time: None,
                properties: vec![],
            })
            .await
            .unwrap();
    }
    assert!(!format!("{topic:?}").contains("jwt"));
}

#[tokio::test]
async fn a_managed_identitys_token_is_kept_and_is_replaced_when_it_is_rejected() {
    if std::env::var_os(IS_SENDER).is_some() {
        return send_three_messages().await;
    }

    let endpoint =
        ScriptedServer::start([Reply::status(503), token("first-jwt"), token("second-jwt")]).await;
    let bus = ScriptedServer::start([
        Reply::status(201),
        Reply::status(201),
        Reply::status(401),
        Reply::status(201),
    ])
    .await;
    let sender = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args([TEST, "--exact", "--nocapture"])
        .env_clear()
        .env(IS_SENDER, "1")
        .env("IDENTITY_ENDPOINT", format!("{}/msi/token", endpoint.url()))
        .env("IDENTITY_HEADER", "header-secret")
        .env(
            "ServiceBusConnection__fullyQualifiedNamespace",
            "contoso.servicebus.windows.net",
        )
        .env("ServiceBusConnection__clientId", "client-1")
        .env("ServiceBusConnection__credential", "managedidentity")
        .env("SERVICEBUS_REST_ENDPOINT", bus.url())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let output = String::from_utf8_lossy(&sender.stdout);
    assert!(sender.status.success(), "{output}");
    assert!(output.contains("1 passed"), "{output}");

    let requests = endpoint.rest();
    assert_eq!(requests.len(), 3);
    for request in requests {
        assert_eq!(
            request.path_and_query,
            "/msi/token?api-version=2019-08-01&resource=https%3A%2F%2Fservicebus.azure.net&client_id=client-1"
        );
        assert_eq!(request.header("x-identity-header"), "header-secret");
    }
    let sent: Vec<_> = bus
        .rest()
        .iter()
        .map(|request| request.header("authorization").to_owned())
        .collect();
    assert_eq!(
        sent,
        [
            "Bearer first-jwt",
            "Bearer first-jwt",
            "Bearer first-jwt",
            "Bearer second-jwt"
        ]
    );
}
