//! Where the order book is: `ORDER_BOOK`, and the storage account that the Functions host uses too.
//!
//! Read once, at start. A folder, a container of the account in `AzureWebJobsStorage`, or none at all. As in the host, a
//! connection string wins over the identity-based settings `AzureWebJobsStorage__…`. An error names the
//! variable, never its value.

use std::fmt;
use std::path::PathBuf;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use reqwest::Url;
use secrecy::SecretString;

use crate::config::{ConfigError, Settings};
use crate::identity::IdentitySource;
use crate::shared_key::AccountKey;

pub(crate) const ORDER_BOOK: &str = "ORDER_BOOK";
const CONNECTION: &str = "AzureWebJobsStorage";
const ACCOUNT_NAME: &str = "AzureWebJobsStorage__accountName";
const SERVICE_URI: &str = "AzureWebJobsStorage__blobServiceUri";

const DEFAULT_CONTAINER: &str = "order-book";

const CONNECTION_STRING: &str = "a storage connection string, as in \
     DefaultEndpointsProtocol=https;AccountName=<name>;AccountKey=<key>;EndpointSuffix=core.windows.net";

/// Azurite's account, which is the same on every machine and protects nothing.
const AZURITE_ACCOUNT: &str = "devstoreaccount1";
const AZURITE_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
const AZURITE_BLOB_PORT: u16 = 10000;

/// Where the orders are written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BookPlace {
    Folder(PathBuf),
    Container(ContainerSettings),
}

/// A container and what opens it. It need not exist yet.
#[derive(Clone)]
pub struct ContainerSettings {
    /// The container's own URL, without a slash at its end.
    pub url: Url,
    pub credential: StorageCredential,
}

/// What proves who we are.
#[derive(Debug, Clone)]
pub enum StorageCredential {
    AccountKey(AccountKey),
    /// The query string of a shared access signature.
    SharedAccessSignature(SecretString),
    Identity(IdentitySource),
}

impl BookPlace {
    /// Reads `ORDER_BOOK`, and the storage account if the book is in one. `None` if there is no order book.
    ///
    /// # Errors
    /// The first setting that is missing or not usable.
    pub fn read(settings: &Settings) -> Result<Option<Self>, ConfigError> {
        let container = match settings.optional(ORDER_BOOK) {
            Some(book) if book.eq_ignore_ascii_case("none") => return Ok(None),
            // A container's URL would become a folder of that name, which is gone with the instance.
            Some(book) if book.contains('/') && !book.contains("://") => {
                return Ok(Some(Self::Folder(book.into())));
            }
            Some(book) if is_container_name(&book) => book,
            Some(_) => {
                return Err(ConfigError::invalid(
                    ORDER_BOOK,
                    "that is neither a folder nor the name of a container",
                    "a folder with a '/' in it, or 3 to 63 lower-case letters, digits and single hyphens, or none",
                ));
            }
            None if [CONNECTION, ACCOUNT_NAME, SERVICE_URI]
                .iter()
                .all(|variable| settings.optional(variable).is_none()) =>
            {
                return Ok(None);
            }
            None => DEFAULT_CONTAINER.to_owned(),
        };
        let (mut url, credential) = account(settings)?;
        url.path_segments_mut()
            .expect("an http URL has a path")
            .pop_if_empty()
            .push(&container);
        Ok(Some(Self::Container(ContainerSettings { url, credential })))
    }
}

/// The base URL of the account's Blob service, and the credential.
fn account(settings: &Settings) -> Result<(Url, StorageCredential), ConfigError> {
    if let Some(text) = settings.optional(CONNECTION) {
        return connection_string(&text);
    }
    let url = if let Some(uri) = settings.optional(SERVICE_URI) {
        let expected =
            "the https:// URL of a Blob service, as in https://<name>.blob.core.windows.net";
        service_url(&uri).map_err(|problem| ConfigError::invalid(SERVICE_URI, problem, expected))?
    } else if let Some(name) = settings.optional(ACCOUNT_NAME) {
        host_url("https", &name, "core.windows.net").ok_or_else(|| {
            ConfigError::invalid(
                ACCOUNT_NAME,
                "that is not the name of a storage account",
                "3 to 24 lower-case letters and digits",
            )
        })?
    } else {
        return Err(ConfigError::Missing {
            variable: CONNECTION.to_owned(),
            expected: format!(
                "{CONNECTION_STRING}, or else {ACCOUNT_NAME} should name the account for an identity, because \
                 {ORDER_BOOK} names a container"
            ),
        });
    };
    let source = IdentitySource::read(settings, CONNECTION)?;
    Ok((url, StorageCredential::Identity(source)))
}

fn connection_string(text: &str) -> Result<(Url, StorageCredential), ConfigError> {
    let invalid = |problem: &str| ConfigError::invalid(CONNECTION, problem, CONNECTION_STRING);
    let (mut protocol, mut name, mut key, mut suffix) = (None, None, None, None);
    let (mut endpoint, mut signature, mut development, mut proxy) = (None, None, None, None);
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
            "defaultendpointsprotocol" => &mut protocol,
            "accountname" => &mut name,
            "accountkey" => &mut key,
            "endpointsuffix" => &mut suffix,
            "blobendpoint" => &mut endpoint,
            "sharedaccesssignature" => &mut signature,
            "usedevelopmentstorage" => &mut development,
            "developmentstorageproxyuri" => &mut proxy,
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

    let credential = match (development, key, signature) {
        (Some(value), ..) if !value.eq_ignore_ascii_case("true") => {
            return Err(invalid("UseDevelopmentStorage is not true"));
        }
        (Some(_), ..) => {
            let url = azurite_url(proxy).map_err(invalid)?;
            let key = account_key(AZURITE_ACCOUNT, AZURITE_KEY).map_err(invalid)?;
            return Ok((url, key));
        }
        (None, Some(_), Some(_)) => {
            return Err(invalid("it has an AccountKey and a SharedAccessSignature"));
        }
        (None, Some(key), None) => {
            let name = name.ok_or_else(|| invalid("AccountName is missing"))?;
            account_key(name, key).map_err(invalid)?
        }
        (None, None, Some(signature)) => {
            let query = signature.trim_start_matches('?');
            let is_signature = query.split('&').any(|pair| pair.starts_with("sig="));
            if !is_signature || query.contains(['#', ' ']) {
                return Err(invalid("its SharedAccessSignature has no sig"));
            }
            StorageCredential::SharedAccessSignature(SecretString::from(query))
        }
        (None, None, None) => {
            return Err(invalid("AccountKey and SharedAccessSignature are missing"));
        }
    };
    let url = match endpoint {
        Some(endpoint) => service_url(endpoint).map_err(invalid)?,
        None => {
            if protocol.is_some_and(|protocol| !protocol.eq_ignore_ascii_case("https")) {
                return Err(invalid("its DefaultEndpointsProtocol is not https"));
            }
            let name = name.ok_or_else(|| invalid("AccountName and BlobEndpoint are missing"))?;
            host_url("https", name, suffix.unwrap_or("core.windows.net")).ok_or_else(|| {
                invalid("its AccountName or EndpointSuffix is no part of a host name")
            })?
        }
    };
    Ok((url, credential))
}

fn account_key(name: &str, key: &str) -> Result<StorageCredential, &'static str> {
    // The name becomes part of a header.
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Err("its AccountName is not the name of a storage account");
    }
    let key = BASE64_STANDARD
        .decode(key)
        .map_err(|_| "its AccountKey is not base64")?;
    Ok(StorageCredential::AccountKey(AccountKey::new(name, key)))
}

/// Azurite on this machine; its port is fixed, whatever the proxy's URL says, as in Microsoft's libraries.
fn azurite_url(proxy: Option<&str>) -> Result<Url, &'static str> {
    let problem = "its DevelopmentStorageProxyUri is not http:// and a host of this machine";
    let mut url = Url::parse(proxy.unwrap_or("http://127.0.0.1")).map_err(|_| problem)?;
    url.set_port(Some(AZURITE_BLOB_PORT))
        .map_err(|()| problem)?;
    url.set_path(AZURITE_ACCOUNT);
    service_url(url.as_str()).map_err(|_| problem)
}

fn host_url(protocol: &str, account: &str, suffix: &str) -> Option<Url> {
    let is_label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let is_account = (3..=24).contains(&account.len())
        && account
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if !is_account || !suffix.split('.').all(is_label) {
        return None;
    }
    Url::parse(&format!("{protocol}://{account}.blob.{suffix}/")).ok()
}

/// A URL of a Blob service; the account may be its path, as Azurite has it.
fn service_url(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text)
        .ok()
        .filter(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.query().is_none()
                && url.fragment().is_none()
                && url.username().is_empty()
                && url.password().is_none()
        })
        .ok_or("its Blob endpoint is not a URL of a Blob service")?;
    if url.scheme() != "https" && !is_loopback(&url) {
        return Err("orders must not be sent in clear to another machine");
    }
    Ok(url)
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    host == "localhost"
        || host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// Azure's rules for the names of containers.
fn is_container_name(name: &str) -> bool {
    (3..=63).contains(&name.len())
        && name.split('-').all(|word| {
            !word.is_empty()
                && word
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        })
}

impl fmt::Debug for ContainerSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContainerSettings")
            .field("url", &self.url.as_str())
            .finish_non_exhaustive()
    }
}

impl PartialEq for ContainerSettings {
    fn eq(&self, other: &Self) -> bool {
        self.url == other.url
    }
}

impl Eq for ContainerSettings {}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    const AZURE: &str = "DefaultEndpointsProtocol=https;AccountName=contoso;AccountKey=aGlkZGVu;EndpointSuffix=core.windows.net";
    const HIDDEN_SIGNATURE: &str = "sv=2024-11-04&ss=b&sig=hid%2Fden%3D";

    fn read<const N: usize>(pairs: [(&str, &str); N]) -> Result<Option<BookPlace>, ConfigError> {
        BookPlace::read(&Settings::from_pairs(pairs))
    }

    fn container<const N: usize>(pairs: [(&str, &str); N]) -> ContainerSettings {
        match read(pairs).unwrap() {
            Some(BookPlace::Container(container)) => container,
            place => panic!("not a container: {place:?}"),
        }
    }

    fn error<const N: usize>(pairs: [(&str, &str); N]) -> String {
        read(pairs).unwrap_err().to_string()
    }

    #[test]
    fn without_any_setting_there_is_no_book_and_with_an_account_it_has_a_container() {
        assert_eq!(read([]), Ok(None));
        assert_eq!(
            read([(ORDER_BOOK, "none"), (CONNECTION, "nonsense")]),
            Ok(None)
        );
        assert_eq!(
            container([(CONNECTION, AZURE)]).url.as_str(),
            "https://contoso.blob.core.windows.net/order-book"
        );
        assert_eq!(
            container([(CONNECTION, AZURE), (ORDER_BOOK, "book-2")])
                .url
                .as_str(),
            "https://contoso.blob.core.windows.net/book-2"
        );
    }

    #[test]
    fn what_has_a_slash_is_a_folder() {
        for folder in ["/var/orders", "./book", "book/"] {
            assert_eq!(
                read([(ORDER_BOOK, folder), (CONNECTION, "nonsense")]),
                Ok(Some(BookPlace::Folder(folder.into())))
            );
        }
    }

    #[test]
    fn the_name_of_a_container_keeps_to_azures_rules() {
        let long = "a".repeat(64);
        for name in [
            "ab",
            "Orders",
            "order_book",
            "-book",
            "book-",
            "order--book",
            "https://contoso.blob.core.windows.net/order-book",
            &long,
        ] {
            let error = error([(ORDER_BOOK, name), (CONNECTION, AZURE)]);
            assert!(error.contains(ORDER_BOOK), "{error}");
            // Two letters are somewhere in any text.
            assert!(name.len() == 2 || !error.contains(name), "{error}");
        }
    }

    #[test]
    fn a_container_needs_an_account() {
        let error = error([(ORDER_BOOK, "order-book")]);
        for variable in [CONNECTION, ACCOUNT_NAME, ORDER_BOOK] {
            assert!(error.contains(variable), "{error}");
        }
    }

    #[test]
    fn a_connection_string_says_where_the_account_is() {
        for (text, url) in [
            (AZURE, "https://contoso.blob.core.windows.net/order-book"),
            (
                "accountname=contoso; ACCOUNTKEY = aGlkZGVu ;QueueEndpoint=https://elsewhere/;",
                "https://contoso.blob.core.windows.net/order-book",
            ),
            (
                "AccountName=contoso;AccountKey=aGlkZGVu;EndpointSuffix=core.chinacloudapi.cn",
                "https://contoso.blob.core.chinacloudapi.cn/order-book",
            ),
            (
                "AccountName=contoso;AccountKey=aGlkZGVu;BlobEndpoint=https://blobs.contoso.example/",
                "https://blobs.contoso.example/order-book",
            ),
            (
                "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey=aGlkZGVu;\
                 BlobEndpoint=http://127.0.0.1:10000/devstoreaccount1;",
                "http://127.0.0.1:10000/devstoreaccount1/order-book",
            ),
            (
                "UseDevelopmentStorage=true",
                "http://127.0.0.1:10000/devstoreaccount1/order-book",
            ),
            (
                "UseDevelopmentStorage=True;DevelopmentStorageProxyUri=http://localhost",
                "http://localhost:10000/devstoreaccount1/order-book",
            ),
        ] {
            let container = container([(CONNECTION, text)]);
            assert_eq!(container.url.as_str(), url, "{text}");
            assert!(matches!(
                container.credential,
                StorageCredential::AccountKey(_)
            ));
        }
    }

    #[test]
    fn a_shared_access_signature_stands_for_a_key() {
        let text = format!(
            "BlobEndpoint=https://contoso.blob.core.windows.net/;SharedAccessSignature=?{HIDDEN_SIGNATURE}"
        );
        let container = container([(CONNECTION, &text)]);
        let StorageCredential::SharedAccessSignature(query) = &container.credential else {
            panic!("there is a signature");
        };
        assert_eq!(query.expose_secret(), HIDDEN_SIGNATURE);
        let printed = format!("{container:?} {:?}", container.credential);
        assert!(!printed.contains("sig="), "{printed}");
    }

    #[test]
    fn a_connection_string_that_is_not_usable_is_told_without_its_value() {
        let key = "AccountName=hidden;AccountKey=aGlkZGVu;";
        for (text, problem) in [
            ("hidden".to_owned(), "no '='"),
            ("AccountName=hidden".to_owned(), "AccountKey"),
            ("AccountKey=aGlkZGVu".to_owned(), "AccountName"),
            (
                "AccountName=hidden;AccountKey=hidden!".to_owned(),
                "not base64",
            ),
            (
                "AccountName=hid/den;AccountKey=aGlkZGVu".to_owned(),
                "AccountName",
            ),
            (
                "AccountName=HIDDEN;AccountKey=aGlkZGVu".to_owned(),
                "AccountName",
            ),
            ("AccountName=;AccountKey=aGlkZGVu".to_owned(), "empty"),
            (format!("{key}AccountKey=aGlkZGVu"), "twice"),
            (
                format!("{key}SharedAccessSignature={HIDDEN_SIGNATURE}"),
                "and a Shared",
            ),
            (format!("{key}DefaultEndpointsProtocol=http"), "not https"),
            (format!("{key}EndpointSuffix=hidden/path"), "EndpointSuffix"),
            (
                format!("{key}BlobEndpoint=http://hidden.example"),
                "in clear",
            ),
            (
                format!("{key}BlobEndpoint=https://hidden.example?sig=hidden"),
                "Blob endpoint",
            ),
            (
                "SharedAccessSignature=hidden;AccountName=hidden".to_owned(),
                "no sig",
            ),
            (
                format!("SharedAccessSignature={HIDDEN_SIGNATURE}"),
                "BlobEndpoint",
            ),
            ("UseDevelopmentStorage=hidden".to_owned(), "not true"),
            (
                "UseDevelopmentStorage=true;DevelopmentStorageProxyUri=http://hidden.example"
                    .to_owned(),
                "DevelopmentStorageProxyUri",
            ),
        ] {
            let error = error([(CONNECTION, &text)]);
            assert!(
                error.contains(CONNECTION) && error.contains(problem),
                "{error}"
            );
            assert!(!error.to_ascii_lowercase().contains("hid"), "{error}");
            assert!(!error.contains("aGlkZGVu"), "{error}");
        }
    }

    #[test]
    fn an_identity_names_the_account_or_its_service() {
        let client = ("AzureWebJobsStorage__clientId", "client-1");
        let credential = ("AzureWebJobsStorage__credential", "managedidentity");
        let by_name = container([(ACCOUNT_NAME, "contoso"), client, credential]);
        let by_uri = container([
            (ACCOUNT_NAME, "ignored"),
            (SERVICE_URI, "https://contoso.blob.core.usgovcloudapi.net"),
            client,
            credential,
        ]);
        assert_eq!(
            by_name.url.as_str(),
            "https://contoso.blob.core.windows.net/order-book"
        );
        assert_eq!(
            by_uri.url.as_str(),
            "https://contoso.blob.core.usgovcloudapi.net/order-book"
        );
        for container in [by_name, by_uri] {
            let StorageCredential::Identity(source) = container.credential else {
                panic!("there is an identity");
            };
            let client_id = Some("client-1".to_owned());
            let setting = "AzureWebJobsStorage__clientId".to_owned();
            assert_eq!(source, IdentitySource::Managed { client_id, setting });
        }
        // As in the host.
        let both = container([(CONNECTION, AZURE), (ACCOUNT_NAME, "ignored")]);
        assert!(matches!(both.credential, StorageCredential::AccountKey(_)));
    }

    #[test]
    fn an_identity_that_is_not_usable_is_told_by_its_variable() {
        for (variable, value) in [
            (ACCOUNT_NAME, "Not-A-Name"),
            (SERVICE_URI, "contoso.blob.core.windows.net"),
            (SERVICE_URI, "http://contoso.blob.core.windows.net"),
        ] {
            let error = error([(variable, value)]);
            assert!(
                error.contains(variable) && !error.contains(value),
                "{error}"
            );
        }
        let error = error([
            (ACCOUNT_NAME, "contoso"),
            ("AzureWebJobsStorage__credential", "clientsecret"),
        ]);
        assert!(error.contains("AzureWebJobsStorage__credential"), "{error}");
    }
}
