//! The settings that say where the bus, the storage account and ACS are, and that hold their keys.
//!
//! Neither what is read nor why it is not read ever shows a key, and no key goes anywhere in clear.

use orderup::{
    config::Settings,
    connection::TopicSettings,
    fuzzing,
    storage_account::{BookPlace, StorageCredential},
};

/// Every key begins with it, and nothing else does.
const CANARY: &str = "Q0FOQVJZ";

/// The lines: a connection string, the namespace, the REST endpoint, the topic, the order book.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if text
        .to_ascii_uppercase()
        .contains(&CANARY.to_ascii_uppercase())
    {
        return;
    }
    let mut lines = text.lines();
    let mut line = || lines.next().unwrap_or_default();
    let connection = with_canary(line());
    let (namespace, endpoint, topic, book) = (line(), line(), line(), line());
    let settings = Settings::from_pairs([
        ("ServiceBusConnection", &connection),
        ("ServiceBusConnection__fullyQualifiedNamespace", namespace),
        ("SERVICEBUS_REST_ENDPOINT", endpoint),
        ("ORDERS_TOPIC", topic),
        ("AzureWebJobsStorage", &connection),
        ("AzureWebJobsStorage__accountName", namespace),
        ("AzureWebJobsStorage__blobServiceUri", endpoint),
        ("ORDER_BOOK", book),
    ]);
    let printed = match TopicSettings::read(&settings) {
        Ok(read) => {
            let url = &read.base_url;
            assert!(url.scheme() == "https" || url.scheme() == "http");
            assert!(
                url.scheme() == "https" || is_local(url.host_str()) || is_emulator(&connection)
            );
            assert!(url.path() == "/" && url.username().is_empty());
            assert!(!read.topic.is_empty() && !read.topic.contains(['?', '#', '%', ' ']));
            format!("{read:?}")
        }
        Err(error) => error.to_string(),
    };
    assert!(!printed.contains(CANARY), "{printed}");
    let printed = match BookPlace::read(&settings) {
        Ok(Some(BookPlace::Container(container))) => {
            assert!(container.url.scheme() == "https" || is_local(container.url.host_str()));
            assert!(container.url.query().is_none());
            if let StorageCredential::SharedAccessSignature(_) = &container.credential {
                assert!(connection.to_ascii_lowercase().contains("sig="));
            }
            format!("{container:?} {:?}", container.credential)
        }
        Ok(place) => format!("{place:?}"),
        Err(error) => error.to_string(),
    };
    assert!(!printed.contains(CANARY), "{printed}");
    match fuzzing::acs_connection_string(&connection) {
        Ok((endpoint, _)) => assert!(!endpoint.is_empty() && !endpoint.contains(';')),
        Err(error) => assert!(!error.contains(CANARY)),
    }
}

/// The text with the canary in front of each key.
fn with_canary(text: &str) -> String {
    let parts = text.split(';').map(|part| {
        let Some((name, value)) = part.split_once('=') else {
            return part.to_owned();
        };
        match name.trim().to_ascii_lowercase().as_str() {
            "sharedaccesskey" | "accountkey" | "accesskey" => {
                format!("{name}={CANARY}{}", value.trim_start())
            }
            "sharedaccesssignature" => part.replace("sig=", &format!("sig={CANARY}")),
            _ => part.to_owned(),
        }
    });
    parts.collect::<Vec<_>>().join(";")
}

fn is_local(host: Option<&str>) -> bool {
    let host = host.unwrap_or_default();
    host == "localhost" || host.starts_with("127.") || host == "[::1]"
}

fn is_emulator(connection: &str) -> bool {
    connection
        .to_ascii_lowercase()
        .contains("usedevelopmentemulator")
}
