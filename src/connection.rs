//! Where the topic is and who we are there: `ServiceBusConnection`, as the Functions host reads it too.
//!
//! Read once, at start. A connection string wins over `ServiceBusConnection__fullyQualifiedNamespace`, as in the
//! host, where an exact match of the name wins over a prefix. An error names the variable, never its value.

use reqwest::Url;
use secrecy::SecretString;

use crate::config::{ConfigError, Settings};
use crate::identity::IdentitySource;
use crate::sas::SharedAccessKey;

const CONNECTION: &str = "ServiceBusConnection";
const NAMESPACE: &str = "ServiceBusConnection__fullyQualifiedNamespace";
const REST_ENDPOINT: &str = "SERVICEBUS_REST_ENDPOINT";
const TOPIC: &str = "ORDERS_TOPIC";

const CONNECTION_STRING: &str = "a Service Bus connection string, as in \
     Endpoint=sb://<namespace>.servicebus.windows.net/;SharedAccessKeyName=<name>;SharedAccessKey=<key>";

/// Where the local emulator's REST data plane listens, whatever port the connection string names for AMQP.
const EMULATOR_REST_PORT: u16 = 5300;

/// Everything that is needed to send to the topic.
#[derive(Debug, Clone)]
pub struct TopicSettings {
    /// Scheme, host and port of the REST data plane, with the path `/`.
    pub base_url: Url,
    pub topic: String,
    pub credential: Credential,
}

/// What proves who we are.
#[derive(Debug, Clone)]
pub enum Credential {
    SharedAccessKey(SharedAccessKey),
    Identity(IdentitySource),
}

impl TopicSettings {
    /// Reads `ServiceBusConnection` or `ServiceBusConnection__…`, `SERVICEBUS_REST_ENDPOINT` and `ORDERS_TOPIC`.
    ///
    /// # Errors
    /// The first setting that is missing or not usable.
    pub fn read(settings: &Settings) -> Result<Self, ConfigError> {
        let topic = settings
            .optional(TOPIC)
            .unwrap_or_else(|| "orders".to_owned());
        if !is_entity_path(&topic) {
            return Err(ConfigError::invalid(
                TOPIC,
                "that can't be the name of a topic",
                "at most 260 letters, digits, '.', '-', '_' and '/', beginning and ending with a letter or digit",
            ));
        }
        let (namespace_url, credential) = match settings.optional(CONNECTION) {
            Some(text) => connection_string(&text, &topic)?,
            None => namespace(settings)?,
        };
        let base_url = match settings.optional(REST_ENDPOINT) {
            Some(text) => rest_endpoint(&text)?,
            None => namespace_url.clone(),
        };
        // Only the emulator's own connection string stands for a namespace without TLS.
        let is_emulator = namespace_url.scheme() == "http";
        if base_url.scheme() != "https" && !is_loopback(&base_url) && !is_emulator {
            return Err(ConfigError::invalid(
                REST_ENDPOINT,
                "our token for the namespace must not be sent in clear",
                "an https:// URL",
            ));
        }
        Ok(Self {
            base_url,
            topic,
            credential,
        })
    }
}

fn connection_string(text: &str, topic: &str) -> Result<(Url, Credential), ConfigError> {
    let invalid = |problem: &str| ConfigError::invalid(CONNECTION, problem, CONNECTION_STRING);
    let (mut endpoint, mut name, mut key, mut entity, mut emulator) =
        (None, None, None, None, None);
    for part in text
        .split(';')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let (property, value) = part
            .split_once('=')
            .ok_or_else(|| invalid("a part of it has no '='"))?;
        // As in Microsoft's libraries, a property's name is found in any case and an unknown one is ignored.
        let slot = match property.trim().to_ascii_lowercase().as_str() {
            "endpoint" => &mut endpoint,
            "sharedaccesskeyname" => &mut name,
            "sharedaccesskey" => &mut key,
            "entitypath" => &mut entity,
            "usedevelopmentemulator" => &mut emulator,
            _ => continue,
        };
        let value = value.trim();
        if value.is_empty() {
            return Err(invalid("a part of it is empty"));
        }
        if slot.replace(value).is_some() {
            return Err(invalid("a part of it is there twice"));
        }
    }

    let endpoint = endpoint.ok_or_else(|| invalid("Endpoint is missing"))?;
    let name = name.ok_or_else(|| invalid("SharedAccessKeyName is missing"))?;
    let key = key.ok_or_else(|| invalid("SharedAccessKey is missing"))?;
    if entity.is_some_and(|entity| !entity.eq_ignore_ascii_case(topic)) {
        return Err(invalid(
            "its EntityPath is not the topic that ORDERS_TOPIC names",
        ));
    }
    let emulator = match emulator {
        None => false,
        Some(value) if value.eq_ignore_ascii_case("true") => true,
        Some(value) if value.eq_ignore_ascii_case("false") => false,
        Some(_) => return Err(invalid("UseDevelopmentEmulator is neither true nor false")),
    };

    let host = Url::parse(endpoint)
        .ok()
        .and_then(|url| url.host_str().map(str::to_owned))
        .ok_or_else(|| invalid("its Endpoint is not a URL with a host"))?;
    let base_url = if emulator {
        Url::parse(&format!("http://{host}:{EMULATOR_REST_PORT}/"))
    } else {
        Url::parse(&format!("https://{host}/"))
    }
    .map_err(|_| invalid("its Endpoint has no usable host"))?;
    let key = SharedAccessKey {
        name: name.to_owned(),
        key: SecretString::from(key),
    };
    Ok((base_url, Credential::SharedAccessKey(key)))
}

fn namespace(settings: &Settings) -> Result<(Url, Credential), ConfigError> {
    let Some(namespace) = settings.optional(NAMESPACE) else {
        return Err(ConfigError::Missing {
            variable: CONNECTION.to_owned(),
            expected: format!(
                "{CONNECTION_STRING}, or else {NAMESPACE} should name the namespace for an identity"
            ),
        });
    };
    let is_host = namespace.contains('.')
        && namespace.split('.').all(|label| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        });
    let url = is_host
        .then(|| Url::parse(&format!("https://{namespace}/")).ok())
        .flatten()
        .ok_or_else(|| {
            ConfigError::invalid(
                NAMESPACE,
                "that is not a host name",
                "<namespace>.servicebus.windows.net, without a scheme",
            )
        })?;
    let source = IdentitySource::read(settings, CONNECTION)?;
    Ok((url, Credential::Identity(source)))
}

fn rest_endpoint(text: &str) -> Result<Url, ConfigError> {
    Url::parse(text)
        .ok()
        .filter(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.path() == "/"
                && url.query().is_none()
                && url.fragment().is_none()
                && url.username().is_empty()
                && url.password().is_none()
        })
        .ok_or_else(|| {
            ConfigError::invalid(
                REST_ENDPOINT,
                "that is not the base URL of a REST data plane",
                "a scheme, a host and perhaps a port, as in http://127.0.0.1:5300",
            )
        })
}

/// The rules are Azure's for the names of entities. They leave out everything that a URL would read as
/// something else than a path, which the Service Bus crate does not escape.
fn is_entity_path(path: &str) -> bool {
    path.len() <= 260
        && path.split('/').all(|segment| {
            let bytes = segment.as_bytes();
            bytes.first().is_some_and(u8::is_ascii_alphanumeric)
                && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
                && bytes
                    .iter()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        })
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    host == "localhost"
        || host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    const AZURE: &str = "Endpoint=sb://contoso.servicebus.windows.net/;SharedAccessKeyName=send;SharedAccessKey=a2V5PQ==";
    const EMULATOR: &str = "Endpoint=sb://localhost:5672;SharedAccessKeyName=RootManageSharedAccessKey;SharedAccessKey=SAS_KEY_VALUE;UseDevelopmentEmulator=true;";

    fn read<const N: usize>(pairs: [(&str, &str); N]) -> Result<TopicSettings, ConfigError> {
        TopicSettings::read(&Settings::from_pairs(pairs))
    }

    fn error<const N: usize>(pairs: [(&str, &str); N]) -> String {
        read(pairs).unwrap_err().to_string()
    }

    #[test]
    fn a_connection_string_gives_the_base_url_and_the_key_with_its_padding() {
        let settings = read([(CONNECTION, AZURE)]).unwrap();
        assert_eq!(
            settings.base_url.as_str(),
            "https://contoso.servicebus.windows.net/"
        );
        assert_eq!(settings.topic, "orders");
        let Credential::SharedAccessKey(key) = settings.credential else {
            panic!("there is a key");
        };
        assert_eq!(key.name, "send");
        assert_eq!(key.key.expose_secret(), "a2V5PQ==");
    }

    #[test]
    fn the_emulators_rest_data_plane_is_on_port_5300() {
        let settings = read([(CONNECTION, EMULATOR)]).unwrap();
        assert_eq!(settings.base_url.as_str(), "http://localhost:5300/");
    }

    #[test]
    fn the_rest_endpoint_overrides_the_base_url_and_nothing_else() {
        let settings = read([
            (CONNECTION, EMULATOR),
            (REST_ENDPOINT, "http://127.0.0.1:6300"),
        ])
        .unwrap();
        assert_eq!(settings.base_url.as_str(), "http://127.0.0.1:6300/");
        assert!(matches!(
            settings.credential,
            Credential::SharedAccessKey(_)
        ));
    }

    #[test]
    fn a_connection_string_wins_over_the_namespace() {
        let settings = read([
            (CONNECTION, AZURE),
            (NAMESPACE, "fabrikam.servicebus.windows.net"),
        ])
        .unwrap();
        assert_eq!(
            settings.base_url.host_str(),
            Some("contoso.servicebus.windows.net")
        );
    }

    #[test]
    fn a_namespace_is_reached_with_an_identity() {
        let settings = read([
            (NAMESPACE, "contoso.servicebus.windows.net"),
            ("ServiceBusConnection__clientId", "client-1"),
            ("ServiceBusConnection__credential", "managedidentity"),
        ])
        .unwrap();
        assert_eq!(
            settings.base_url.as_str(),
            "https://contoso.servicebus.windows.net/"
        );
        let Credential::Identity(source) = settings.credential else {
            panic!("there is an identity");
        };
        assert_eq!(
            source,
            IdentitySource::Managed {
                client_id: Some("client-1".to_owned()),
                setting: "ServiceBusConnection__clientId".to_owned(),
            }
        );
    }

    #[test]
    fn an_identitys_token_goes_over_https_or_stays_on_the_machine() {
        let namespace = (NAMESPACE, "contoso.servicebus.windows.net");
        assert!(read([namespace, (REST_ENDPOINT, "http://127.0.0.1:5300")]).is_ok());
        assert!(read([namespace, (REST_ENDPOINT, "http://[::1]:5300")]).is_ok());
        assert!(
            error([namespace, (REST_ENDPOINT, "http://bus.example:5300")]).contains(REST_ENDPOINT)
        );
    }

    #[test]
    fn without_a_connection_both_ways_are_named() {
        let error = error([]);
        assert!(
            error.contains(CONNECTION) && error.contains(NAMESPACE),
            "{error}"
        );
    }

    #[test]
    fn a_connection_string_that_is_not_usable_is_told_without_its_value() {
        for (text, problem) in [
            (
                "SharedAccessKeyName=hidden;SharedAccessKey=hidden",
                "Endpoint is missing",
            ),
            (
                "Endpoint=sb://hidden/;SharedAccessKey=hidden",
                "SharedAccessKeyName is missing",
            ),
            (
                "Endpoint=sb://hidden/;SharedAccessKeyName=hidden",
                "SharedAccessKey is missing",
            ),
            (
                "Endpoint=hidden;SharedAccessKeyName=hidden;SharedAccessKey=hidden",
                "not a URL",
            ),
            (
                "Endpoint=sb://hidden/;SharedAccessKeyName=;SharedAccessKey=hidden",
                "is empty",
            ),
            ("Endpoint=sb://hidden/;Endpoint=sb://hidden/", "twice"),
            ("hidden", "no '='"),
            (
                "Endpoint=sb://hidden/;SharedAccessKeyName=hidden;SharedAccessKey=hidden;EntityPath=hidden",
                "EntityPath is not the topic",
            ),
            (
                "Endpoint=sb://hidden/;SharedAccessKeyName=hidden;SharedAccessKey=hidden;UseDevelopmentEmulator=hidden",
                "neither true nor false",
            ),
        ] {
            let error = error([(CONNECTION, text)]);
            assert!(error.contains(CONNECTION), "{error}");
            assert!(error.contains(problem), "{error}");
            assert!(!error.contains("hidden"), "{error}");
        }
    }

    #[test]
    fn an_entity_path_may_name_the_topic() {
        let text = format!("{AZURE};EntityPath=Orders");
        assert!(read([(CONNECTION, &text)]).is_ok());
    }

    #[test]
    fn a_topic_can_not_change_the_path_of_the_request() {
        for topic in ["orders", "shop/orders", "Orders_2.eu-1"] {
            assert_eq!(
                read([(CONNECTION, AZURE), (TOPIC, topic)]).unwrap().topic,
                topic
            );
        }
        for topic in [
            "orders?x=1",
            "orders#f",
            "../orders",
            "a/../b",
            "/orders",
            "orders/",
            "a//b",
            "ord ers",
            "bestellung-ö",
        ] {
            let error = error([(CONNECTION, AZURE), (TOPIC, topic)]);
            assert!(error.contains(TOPIC), "{topic}: {error}");
        }
    }

    #[test]
    fn a_namespace_is_a_host_name_and_nothing_more() {
        for namespace in [
            "sb://contoso.servicebus.windows.net",
            "contoso",
            "contoso.servicebus.windows.net/orders",
            "contoso.net:5671",
            "a@b.net",
        ] {
            let error = error([(NAMESPACE, namespace)]);
            assert!(error.contains(NAMESPACE), "{error}");
        }
    }

    #[test]
    fn a_rest_endpoint_is_a_base_url_and_nothing_more() {
        for endpoint in [
            "127.0.0.1:5300",
            "sb://localhost",
            "http://localhost/path",
            "http://localhost?x=1",
            "http://user:pw@localhost",
        ] {
            let error = error([(CONNECTION, EMULATOR), (REST_ENDPOINT, endpoint)]);
            assert!(error.contains(REST_ENDPOINT), "{error}");
            assert!(!error.contains("pw"), "{error}");
        }
    }

    #[test]
    fn no_key_is_printed() {
        let printed = format!("{:?}", read([(CONNECTION, AZURE)]).unwrap());
        assert!(!printed.contains("a2V5"), "{printed}");
    }
}
