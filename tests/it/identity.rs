//! The real binary with an identity: its tokens come from stand-ins of the identity endpoints, found through the environment
//! as in Azure. What depends on time is tested with the clock of `src/kept_token.rs`.
//!
//! Two endpoints have addresses that cannot be changed: the instance metadata service is reached here through a proxy of
//! the test's own client, and Entra, which must be HTTPS with a public certificate, only as far as the proxy.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::StatusCode;
use orderup::{
    config::Settings,
    identity::{Identity, IdentitySource, SERVICE_BUS_SCOPE, STORAGE_SCOPE},
};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::handler::{Folder, Handler, command, free_port, order, order_placed};
use crate::scripted_server::{Received, Reply, ScriptedServer};

const HEADER: &str = "identity-header-secret";
const CLIENT_ID: &str = "2f0ab1f1-0000-4000-8000-000000000001";

fn token(token: &str) -> Reply {
    token_until(token, 4_102_444_800)
}

fn token_until(token: &str, expires_on: u64) -> Reply {
    let answer = json!({
        "access_token": token, "expires_on": expires_on.to_string(), "resource": "r", "token_type": "Bearer"
    });
    Reply::text(200, &answer.to_string())
}

fn in_seconds(seconds: u64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_secs() + seconds
}

/// The handler in a Function app whose identity has this endpoint, with more settings.
async fn in_a_function_app(endpoint: &str, settings: &[(&str, &str)]) -> Handler {
    let mut all = vec![
        ("IDENTITY_ENDPOINT", endpoint),
        ("IDENTITY_HEADER", HEADER),
        ("ServiceBusConnection", ""),
        (
            "ServiceBusConnection__fullyQualifiedNamespace",
            "contoso.servicebus.windows.net",
        ),
        ("ServiceBusConnection__credential", "managedidentity"),
        ("ServiceBusConnection__clientId", CLIENT_ID),
    ];
    all.extend_from_slice(settings);
    Handler::start_with(&all).await
}

fn authorizations(requests: &[Received]) -> Vec<&str> {
    requests
        .iter()
        .map(|request| request.header("authorization"))
        .collect()
}

async fn checkout(handler: &Handler) -> StatusCode {
    handler.post("/api/checkout", &order()).await.status()
}

#[tokio::test]
async fn fifty_orders_at_once_ask_for_one_token_and_later_ones_for_none() {
    let endpoint = ScriptedServer::start([Reply::status(503), token("first-jwt")]).await;
    let handler = in_a_function_app(&endpoint.url(), &[]).await;
    let orders = (0..50).map(|_| checkout(&handler));
    for status in futures_util::future::join_all(orders).await {
        assert_eq!(status, StatusCode::ACCEPTED);
    }
    assert_eq!(checkout(&handler).await, StatusCode::ACCEPTED);

    // The first was refused, and asked again by the same question.
    let requests = endpoint.rest();
    assert_eq!(requests.len(), 2);
    for request in requests {
        assert_eq!(
            request.path_and_query,
            format!(
                "/?api-version=2019-08-01&resource=https%3A%2F%2Fservicebus.azure.net&client_id={CLIENT_ID}"
            )
        );
        assert_eq!(request.header("x-identity-header"), HEADER);
    }
    let sent = handler.bus.rest();
    assert_eq!(authorizations(&sent), ["Bearer first-jwt"; 51]);
    let log = handler.stop().await.join("\n");
    assert!(!log.contains("jwt") && !log.contains(HEADER), "{log}");
}

#[tokio::test]
async fn a_rejected_token_is_replaced_once_and_the_order_is_taken() {
    let endpoint = ScriptedServer::start([token("first-jwt"), token("second-jwt")]).await;
    let handler = in_a_function_app(&endpoint.url(), &[]).await;
    assert_eq!(checkout(&handler).await, StatusCode::ACCEPTED);
    handler.bus.reply_once(Reply::status(401));
    assert_eq!(checkout(&handler).await, StatusCode::ACCEPTED);
    assert_eq!(
        authorizations(&handler.bus.rest()),
        ["Bearer first-jwt", "Bearer first-jwt", "Bearer second-jwt"]
    );
    assert_eq!(endpoint.rest().len(), 2);
}

/// As long as the role is missing, Service Bus answers 401 to every token.
#[tokio::test]
async fn a_missing_role_is_no_storm_of_token_requests() {
    let endpoint = ScriptedServer::start([token("first-jwt")]).await;
    let handler = in_a_function_app(&endpoint.url(), &[]).await;
    for _ in 0..40 {
        handler.bus.reply_once(Reply::status(401));
    }
    for _ in 0..20 {
        assert_eq!(checkout(&handler).await, StatusCode::SERVICE_UNAVAILABLE);
    }
    assert_eq!(endpoint.rest().len(), 2);
    // Once it is there, nothing has to be restarted.
    assert_eq!(checkout(&handler).await, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn an_endpoint_that_throttles_is_left_alone_for_as_long_as_it_asks() {
    let endpoint =
        ScriptedServer::start([Reply::with_header(429, "retry-after", "60"), token("jwt")]).await;
    let handler = in_a_function_app(&endpoint.url(), &[]).await;
    for _ in 0..20 {
        let response = handler.post("/api/checkout", &order()).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(response.headers().contains_key("retry-after"));
    }
    assert_eq!(endpoint.rest().len(), 1);
    assert!(handler.bus.rest().is_empty());
    let log = handler.stop().await.join("\n");
    let line = line_with(&log, "no token");
    assert!(line.contains("asks to wait 60 s"), "{line}");
}

#[tokio::test]
async fn it_goes_on_by_itself_once_the_endpoint_is_back() {
    let endpoint =
        ScriptedServer::start([Reply::with_header(429, "retry-after", "0"), token("jwt")]).await;
    let handler = in_a_function_app(&endpoint.url(), &[]).await;
    assert_eq!(checkout(&handler).await, StatusCode::SERVICE_UNAVAILABLE);
    // Within a second.
    while checkout(&handler).await != StatusCode::ACCEPTED {}
    assert_eq!(endpoint.rest().len(), 2);
}

fn line_with<'a>(log: &'a str, text: &str) -> &'a str {
    let line = log.lines().find(|line| line.contains(text));
    line.unwrap_or_else(|| panic!("{text}: {log}"))
}

/// Nothing of it is the message's fault: the email waits, and its copy says why.
async fn an_email_waits(reply: Option<Reply>, words: &str) {
    let endpoint = match reply {
        Some(reply) => Some(ScriptedServer::start([reply]).await),
        None => None,
    };
    let refusing = format!("http://127.0.0.1:{}/", free_port());
    let url = endpoint.as_ref().map_or(refusing, ScriptedServer::url);
    let provider = ScriptedServer::start([Reply::status(202)]).await;
    let handler = Handler::start_with(&[
        ("IDENTITY_ENDPOINT", &url),
        ("IDENTITY_HEADER", HEADER),
        ("ACS_CONNECTION_STRING", ""),
        ("ACS_ENDPOINT", &provider.url()),
        ("ACS__clientId", CLIENT_ID),
    ])
    .await;
    let message = order_placed().to_string();
    let response = handler.trigger("notify", message.as_bytes()).await;
    assert_eq!(response.status(), StatusCode::OK, "{words}");
    let copies = handler.bus.rest();
    let [copy] = &copies[..] else {
        panic!("{words}: {copies:?}");
    };
    let broker: Value = serde_json::from_str(copy.header("brokerproperties")).unwrap();
    assert!(broker["ScheduledEnqueueTimeUtc"].is_string(), "{broker}");
    assert!(!copy.headers.contains_key("dead-letter-reason"));
    let last_error = copy.header("last-error");
    assert!(last_error.contains("no token"), "{last_error}");
    assert!(provider.rest().is_empty());

    let log = handler.stop().await.join("\n");
    let line = line_with(&log, "ACS__clientId");
    assert!(line.contains(words), "{words}: {line}");
    for secret in [HEADER, CLIENT_ID, "Welcome"] {
        assert!(
            !log.contains(secret) && !last_error.contains(secret),
            "{log}"
        );
    }
}

#[tokio::test]
async fn whatever_is_wrong_with_the_endpoint_is_told_with_the_setting_and_delays_the_email() {
    let echo = format!("no identity for {HEADER}");
    let not_found = r#"{"error":"invalid_request","error_description":"Identity not found"}"#;
    let no_date = r#"{"access_token":"t","expires_on":"soon","token_type":"","resource":""}"#;
    tokio::join!(
        an_email_waits(None, "no connection"),
        an_email_waits(Some(Reply::text(500, &echo)), "answered 500"),
        an_email_waits(Some(Reply::text(400, not_found)), "has not been assigned"),
        an_email_waits(
            Some(Reply::text(200, "<html>Welcome</html>")),
            "expected value"
        ),
        an_email_waits(Some(Reply::text(200, no_date)), "invalid digit"),
    );
}

#[tokio::test]
async fn an_endpoint_that_hangs_refuses_no_order() {
    let endpoint = ScriptedServer::start([Reply::Hang]).await;
    let folder = Folder::new();
    let book = format!("{}/", folder.0.display());
    let handler = in_a_function_app(&endpoint.url(), &[("ORDER_BOOK", &book)]).await;
    // The outbox has it.
    assert_eq!(checkout(&handler).await, StatusCode::ACCEPTED);
    assert_eq!(endpoint.rest().len(), 1);
    assert!(handler.bus.rest().is_empty());
    assert!(folder.0.join("outbox").is_dir());
}

/// A machine whose clock is a day ahead takes every token for an old one.
#[tokio::test]
async fn a_token_that_looks_expired_is_used_and_not_asked_for_with_every_order() {
    for expires_on in [0, in_seconds(2)] {
        let endpoint = ScriptedServer::start([token_until("jwt", expires_on)]).await;
        let handler = in_a_function_app(&endpoint.url(), &[]).await;
        for _ in 0..20 {
            assert_eq!(checkout(&handler).await, StatusCode::ACCEPTED);
        }
        assert_eq!(endpoint.rest().len(), 1);
        let log = handler.stop().await.join("\n");
        line_with(&log, "expires at once by this machine's clock");
    }
}

#[tokio::test]
async fn the_order_book_asks_for_a_token_of_its_own() {
    let endpoint = ScriptedServer::start([token("blob-jwt")]).await;
    let account =
        ScriptedServer::start([Reply::with_header(404, "x-ms-error-code", "BlobNotFound")]).await;
    let uri = account.url();
    let settings = [
        ("AzureWebJobsStorage__blobServiceUri", uri.as_str()),
        ("AzureWebJobsStorage__credential", "managedidentity"),
        ("AzureWebJobsStorage__clientId", CLIENT_ID),
    ];
    let handler = in_a_function_app(&endpoint.url(), &settings).await;
    let url = handler.url("/api/orders/01935a1e-9c00-7000-8000-000000000001");
    let status = async || handler.http.get(&url).send().await.unwrap().status();
    account.reply_once(Reply::status(401));
    for _ in 0..3 {
        status().await;
    }
    let requests = endpoint.rest();
    assert_eq!(
        requests.len(),
        2,
        "one, and one for the token that was rejected"
    );
    for request in requests {
        assert!(
            request
                .path_and_query
                .contains("resource=https%3A%2F%2Fstorage.azure.com&"),
            "{}",
            request.path_and_query
        );
    }
    let asked = account.rest();
    assert!(asked.len() >= 4);
    assert!(
        authorizations(&asked)
            .iter()
            .all(|value| *value == "Bearer blob-jwt")
    );
}

fn workload(folder: &Folder) -> Vec<(&'static str, String)> {
    let file = folder.0.join("token");
    std::fs::write(&file, "service-account-jwt").unwrap();
    vec![
        ("AZURE_CLIENT_ID", CLIENT_ID.to_owned()),
        ("AZURE_TENANT_ID", "tenant-1".to_owned()),
        ("AZURE_FEDERATED_TOKEN_FILE", file.display().to_string()),
    ]
}

#[tokio::test]
async fn workload_identity_asks_the_authority_of_its_cloud_through_the_proxy() {
    for (host, wanted) in [
        (None, "login.microsoftonline.com:443"),
        (
            Some("https://login.microsoftonline.us/"),
            "login.microsoftonline.us:443",
        ),
    ] {
        let folder = Folder::new();
        let proxy = ScriptedServer::start([Reply::status(502)]).await;
        let mut settings = workload(&folder);
        settings.extend([
            ("ServiceBusConnection", String::new()),
            (
                "ServiceBusConnection__fullyQualifiedNamespace",
                "contoso.servicebus.windows.net".to_owned(),
            ),
            ("HTTPS_PROXY", proxy.url()),
        ]);
        settings.extend(host.map(|host| ("AZURE_AUTHORITY_HOST", host.to_owned())));
        let settings: Vec<(&str, &str)> = settings
            .iter()
            .map(|(variable, value)| (*variable, value.as_str()))
            .collect();
        let handler = Handler::start_with(&settings).await;
        assert_eq!(checkout(&handler).await, StatusCode::SERVICE_UNAVAILABLE);
        let asked = proxy.next().await;
        assert_eq!(
            (asked.method.as_str(), asked.path_and_query.as_str()),
            ("CONNECT", wanted)
        );
        let log = handler.stop().await.join("\n");
        let line = line_with(&log, "the workload identity of AZURE_CLIENT_ID");
        assert!(!line.contains("service-account-jwt"), "{line}");
    }
}

fn virtual_machine(service: &ScriptedServer, client_id: &[(&str, &str)]) -> Identity {
    let http = reqwest::Client::builder()
        .proxy(reqwest::Proxy::http(service.url()).unwrap())
        .build()
        .unwrap();
    let settings = match client_id {
        [own] => Settings::from_pairs([*own]),
        _ => Settings::from_pairs([]),
    };
    let source = IdentitySource::read(&settings, "AzureWebJobsStorage").unwrap();
    Identity::new(source, STORAGE_SCOPE, &http)
}

#[tokio::test]
async fn on_a_virtual_machine_the_instance_metadata_service_is_asked() {
    let service = ScriptedServer::start([Reply::status(410), token("vm-jwt")]).await;
    let identity = virtual_machine(&service, &[("AZURE_CLIENT_ID", CLIENT_ID)]);
    let bearer = identity.bearer().await.unwrap();
    assert_eq!(bearer.expose_secret(), "vm-jwt");
    let requests = service.rest();
    assert_eq!(
        requests.len(),
        2,
        "it is updated now and then, and says 410"
    );
    for request in requests {
        assert_eq!(
            request.path_and_query,
            format!(
                "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2019-08-01\
                 &resource=https%3A%2F%2Fstorage.azure.com&client_id={CLIENT_ID}"
            )
        );
        assert_eq!(request.header("metadata"), "true");
    }
}

#[tokio::test]
async fn a_virtual_machine_without_that_identity_says_so_once_and_for_all_callers() {
    let service = ScriptedServer::start([Reply::text(
        400,
        r#"{"error":"invalid_request","error_description":"Identity not found"}"#,
    )])
    .await;
    let identity = virtual_machine(&service, &[]);
    for _ in 0..20 {
        let error = identity.bearer().await.unwrap_err().to_string();
        for words in [
            STORAGE_SCOPE,
            "system-assigned identity (AzureWebJobsStorage__clientId is not set)",
            "has not been assigned",
            "400",
        ] {
            assert!(error.contains(words), "{error}");
        }
    }
    assert_eq!(service.rest().len(), 1);
}

/// The command with an identity and nothing else.
fn orderup(arguments: &str, bus: &ScriptedServer) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_orderup"));
    command
        .args(arguments.split_whitespace())
        .env_clear()
        .env(
            "ServiceBusConnection__fullyQualifiedNamespace",
            "contoso.servicebus.windows.net",
        )
        .env("SERVICEBUS_REST_ENDPOINT", bus.url())
        .kill_on_drop(true);
    command
}

#[tokio::test]
async fn dead_letters_are_listed_with_the_managed_identity() {
    let endpoint = ScriptedServer::start([token("jwt")]).await;
    let bus = ScriptedServer::start([Reply::status(204)]).await;
    let output = orderup("dead-letters list", &bus)
        .env("IDENTITY_ENDPOINT", endpoint.url())
        .env("IDENTITY_HEADER", HEADER)
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let asked = bus.rest();
    assert!(!asked.is_empty());
    assert!(
        authorizations(&asked)
            .iter()
            .all(|value| *value == "Bearer jwt")
    );
}

#[tokio::test]
async fn an_audit_reads_the_container_with_the_managed_identity() {
    let endpoint = ScriptedServer::start([token("jwt")]).await;
    let account = ScriptedServer::start([Reply::text(
        200,
        r#"<?xml version="1.0"?><EnumerationResults><Blobs/><NextMarker/></EnumerationResults>"#,
    )])
    .await;
    let audit = |endpoint: String| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_orderup"));
        command
            .args(["audit", "--json"])
            .env_clear()
            .env("IDENTITY_ENDPOINT", endpoint)
            .env("IDENTITY_HEADER", HEADER)
            .env("AzureWebJobsStorage__blobServiceUri", account.url())
            .kill_on_drop(true);
        command
    };
    let output = audit(endpoint.url()).output().await.unwrap();
    let asked = account.rest();
    assert!(!asked.is_empty(), "{output:?}");
    assert!(
        authorizations(&asked)
            .iter()
            .all(|value| *value == "Bearer jwt")
    );

    let denying = ScriptedServer::start([Reply::text(400, "{}")]).await;
    let output = audit(denying.url()).output().await.unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("AzureWebJobsStorage__clientId"), "{stderr}");
    assert!(account.rest().is_empty());
}

/// A machine of an operator, who has logged in with `az login`.
#[tokio::test]
async fn an_operator_uses_the_azure_clis_account() {
    let folder = Folder::new();
    let az = folder.0.join("az");
    let path = format!("{}:/usr/bin:/bin", folder.0.display());
    let script = |body: &str| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(&az, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&az, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    let bus = ScriptedServer::start([Reply::status(204)]).await;
    let list = || {
        let mut command = orderup("dead-letters list", &bus);
        command
            .env("AZURE_TOKEN_CREDENTIALS", "AzureCliCredential")
            .env("PATH", &path);
        command
    };
    let log = folder.0.join("asked");
    script(&format!(
        r#"echo "$@" >> {}; echo '{{"accessToken":"cli-jwt","expires_on":4102444800,"tokenType":"Bearer"}}'"#,
        log.display()
    ));
    let output = list().output().await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let asked = bus.rest();
    assert!(!asked.is_empty());
    assert!(
        authorizations(&asked)
            .iter()
            .all(|value| *value == "Bearer cli-jwt")
    );
    let arguments = std::fs::read_to_string(log).unwrap();
    assert!(
        arguments.starts_with(&format!(
            "account get-access-token -o json --scope {SERVICE_BUS_SCOPE}\n"
        )),
        "{arguments}"
    );

    script("echo 'ERROR: Please run az login to setup account.' >&2; exit 1");
    let output = list().output().await.unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    for words in ["AZURE_TOKEN_CREDENTIALS", "az login"] {
        assert!(stderr.contains(words), "{stderr}");
    }
    assert!(bus.rest().is_empty());
}

#[tokio::test]
async fn settings_that_name_no_identity_end_the_process_at_start() {
    let folder = Folder::new();
    for (variable, value) in [
        ("AZURE_TOKEN_CREDENTIALS", "VisualStudioCredential"),
        ("AZURE_AUTHORITY_HOST", "http://hunter2.example"),
        ("AZURE_TENANT_ID", ""),
    ] {
        let mut command = command(free_port());
        command.env("ServiceBusConnection", "").env(
            "ServiceBusConnection__fullyQualifiedNamespace",
            "contoso.servicebus.windows.net",
        );
        command.envs(workload(&folder)).env(variable, value);
        let output = command.output().await.unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(variable), "{stderr}");
        assert!(!stderr.contains("hunter2"), "{stderr}");
    }
}
