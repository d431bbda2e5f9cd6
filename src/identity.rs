//! Entra tokens for services that take an identity instead of a key.
//!
//! Workload identity where Kubernetes provides it, managed identity otherwise, the Azure CLI's account where
//! `AZURE_TOKEN_CREDENTIALS` says so: all by `azure_identity`. A credential of it is made for each question, and dropped with
//! the answer: so the service account's token file, which the kubelet rewrites, is read each time, and the only cache is
//! `KeptToken`, which renews ahead of time. Nothing is read or asked before the first token is wanted, so that an
//! identity endpoint that is down does not keep the handler from starting.
//!
//! No token is never the message's fault: whoever gets an [`IdentityError`] tries again later.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use azure_core::credentials::{AccessToken, TokenCredential};
use azure_core::error::ErrorKind;
use azure_core::http::{
    ClientOptions, ExponentialRetryOptions, HttpClient, RetryOptions, Transport,
};
use azure_identity::{
    AzureCliCredential, ClientAssertionCredentialOptions, ManagedIdentityCredential,
    ManagedIdentityCredentialOptions, UserAssignedId, WorkloadIdentityCredential,
    WorkloadIdentityCredentialOptions,
};
use secrecy::SecretString;
use thiserror::Error;
use time::OffsetDateTime;

use crate::config::{ConfigError, Settings};
use crate::http_client::{AskedToWait, EntraTransport};
use crate::kept_token::{Denied, Granted, KeptToken};

/// Service Bus, in every Azure cloud.
pub const SERVICE_BUS_SCOPE: &str = "https://servicebus.azure.net/.default";

/// Azure Communication Services; the two slashes are Microsoft's.
pub const ACS_EMAIL_SCOPE: &str = "https://communication.azure.com//.default";

/// The same in Azure Government.
pub const ACS_EMAIL_SCOPE_US: &str = "https://communication.azure.us/.default";

/// Storage accounts, in every Azure cloud.
pub const STORAGE_SCOPE: &str = "https://storage.azure.com/.default";

/// All that one question may take, with the credential's own retries: what the instance metadata service needs while it
/// is updated (70 s).
const LONGEST_QUESTION: Duration = Duration::from_secs(75);

/// How Microsoft's libraries are told which credential to use; where it is not set, the environment tells.
const CREDENTIALS: &str = "AZURE_TOKEN_CREDENTIALS";
const TOKEN_FILE: &str = "AZURE_FEDERATED_TOKEN_FILE";
const AUTHORITY_HOST: &str = "AZURE_AUTHORITY_HOST";
const DEFAULT_CLIENT_ID: &str = "AZURE_CLIENT_ID";

/// Which identity a connection uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentitySource {
    /// The system-assigned identity, or the user-assigned one with this client id.
    Managed {
        client_id: Option<String>,
        /// The setting that has the client id, or would have it.
        setting: String,
    },
    /// A Kubernetes service account that is federated with an Entra application.
    Workload {
        client_id: String,
        tenant_id: String,
        token_file: PathBuf,
        /// The setting that has the client id.
        setting: String,
    },
    /// Whoever is logged in with `az login` on this machine.
    AzureCli,
}

impl IdentitySource {
    /// The identity for the settings that begin with `connection`, by the Functions host's names:
    /// `{connection}__clientId` and `{connection}__credential`.
    ///
    /// Without `__credential`, `AZURE_TOKEN_CREDENTIALS` decides, with the names of Microsoft's libraries. Without that it is
    /// workload identity if `AZURE_FEDERATED_TOKEN_FILE` is set, which the AKS webhook does, and managed identity if
    /// not. The client id defaults to `AZURE_CLIENT_ID`.
    ///
    /// # Errors
    /// If one of them names another credential, or workload identity lacks one of its variables.
    pub fn read(settings: &Settings, connection: &str) -> Result<Self, ConfigError> {
        let own_setting = format!("{connection}__clientId");
        let own_id = settings.optional(&own_setting);
        let variable = format!("{connection}__credential");
        let of_connection = settings.optional(&variable);
        // As for the host: with `managedidentity` and without a client id of its own it is the system-assigned one.
        let is_strict = of_connection.is_some();
        let (variable, wanted, expected) = match of_connection {
            Some(wanted) => (
                variable.as_str(),
                Some(wanted),
                "managedidentity, workloadidentity or absent",
            ),
            None => (
                CREDENTIALS,
                settings.optional(CREDENTIALS),
                "ManagedIdentityCredential, WorkloadIdentityCredential, AzureCliCredential, dev, prod or absent",
            ),
        };
        let managed = |own_id: Option<String>| {
            let shared = || settings.optional(DEFAULT_CLIENT_ID);
            match own_id {
                None if !is_strict && shared().is_some() => Self::Managed {
                    client_id: shared(),
                    setting: DEFAULT_CLIENT_ID.to_owned(),
                },
                client_id => Self::Managed {
                    client_id,
                    setting: own_setting.clone(),
                },
            }
        };
        let wanted = wanted.map(|wanted| wanted.to_ascii_lowercase());
        match (is_strict, wanted.as_deref()) {
            (false, None | Some("prod")) if settings.optional(TOKEN_FILE).is_none() => {
                Ok(managed(own_id))
            }
            (true, Some("managedidentity")) | (false, Some("managedidentitycredential")) => {
                Ok(managed(own_id))
            }
            (false, None | Some("prod" | "workloadidentitycredential"))
            | (true, Some("workloadidentity")) => {
                Self::workload(settings, own_id.map(|id| (id, own_setting)))
            }
            (false, Some("dev" | "azureclicredential")) => Ok(Self::AzureCli),
            _ => Err(ConfigError::invalid(
                variable,
                "there is no such credential",
                expected,
            )),
        }
    }

    fn workload(
        settings: &Settings,
        own_id: Option<(String, String)>,
    ) -> Result<Self, ConfigError> {
        let expected = "set by AKS workload identity";
        if let Some(host) = settings.optional(AUTHORITY_HOST)
            && !reqwest::Url::parse(&host).is_ok_and(|url| url.scheme() == "https")
        {
            return Err(ConfigError::invalid(
                AUTHORITY_HOST,
                "that is not an https:// URL",
                "absent, or the authority of a sovereign cloud, as in https://login.microsoftonline.us",
            ));
        }
        let (client_id, setting) = match own_id {
            Some(own) => own,
            None => (
                settings.required(DEFAULT_CLIENT_ID, expected)?,
                DEFAULT_CLIENT_ID.to_owned(),
            ),
        };
        Ok(Self::Workload {
            client_id,
            setting,
            tenant_id: settings.required("AZURE_TENANT_ID", expected)?,
            token_file: settings.required(TOKEN_FILE, expected)?.into(),
        })
    }
}

impl fmt::Display for IdentitySource {
    /// Which identity it is, and by which setting.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Managed {
                client_id: Some(_),
                setting,
            } => write!(f, "the managed identity of {setting}"),
            Self::Managed {
                client_id: None,
                setting,
            } => write!(f, "the system-assigned identity ({setting} is not set)"),
            Self::Workload { setting, .. } => write!(f, "the workload identity of {setting}"),
            Self::AzureCli => write!(f, "the Azure CLI's account ({CREDENTIALS})"),
        }
    }
}

/// No token: for what, as whom, and why, in the identity provider's words.
#[derive(Debug, Clone, Error)]
#[error("no token for {scope} as {who}: {reason}")]
pub struct IdentityError {
    pub scope: &'static str,
    pub who: String,
    pub reason: String,
}

/// Tokens for one service. Clones share what was fetched.
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    source: IdentitySource,
    scope: &'static str,
    transport: Arc<dyn HttpClient>,
    token: KeptToken,
}

impl Identity {
    /// Tokens for `scope`, asked for through `client`. No I/O.
    pub fn new(source: IdentitySource, scope: &'static str, client: &reqwest::Client) -> Self {
        Self::with_transport(source, scope, Arc::new(EntraTransport::new(client)))
    }

    fn with_transport(
        source: IdentitySource,
        scope: &'static str,
        transport: Arc<dyn HttpClient>,
    ) -> Self {
        Self(Arc::new(Inner {
            source,
            scope,
            transport,
            token: KeptToken::new(scope),
        }))
    }

    /// A token for an `Authorization: Bearer` header.
    ///
    /// While a new one can't be had, the last one is given out for as long as it is valid.
    ///
    /// # Errors
    /// If there is no valid token and none comes within 8 s.
    pub async fn bearer(&self) -> Result<SecretString, IdentityError> {
        let Inner {
            source,
            scope,
            transport,
            token,
        } = &*self.0;
        let ask = || ask(source.clone(), scope, Arc::clone(transport));
        token.get(ask).await.map_err(|reason| IdentityError {
            scope,
            who: source.to_string(),
            reason,
        })
    }

    /// Makes the next call fetch a new token if `rejected` is still the current one. A new token that is rejected too
    /// stays for a minute.
    pub fn forget(&self, rejected: &str) {
        self.0.token.forget(rejected);
    }
}

/// One question to the identity's provider, with its own retries.
async fn ask(
    source: IdentitySource,
    scope: &'static str,
    transport: Arc<dyn HttpClient>,
) -> Result<Granted, Denied> {
    let answer = async {
        credential(source, transport)?
            .get_token(&[scope], None)
            .await
    };
    match tokio::time::timeout(LONGEST_QUESTION, answer).await {
        Ok(Ok(AccessToken {
            token, expires_on, ..
        })) => Ok(Granted {
            secret: SecretString::from(token.secret()),
            lifetime: (expires_on - OffsetDateTime::now_utc())
                .try_into()
                .unwrap_or_default(),
        }),
        Ok(Err(error)) => Err(denied(&error)),
        Err(_) => Err(Denied {
            reason: "the identity endpoint did not answer in time".to_owned(),
            retry_after: None,
        }),
    }
}

fn credential(
    source: IdentitySource,
    transport: Arc<dyn HttpClient>,
) -> azure_core::Result<Arc<dyn TokenCredential>> {
    let client_options = ClientOptions {
        transport: Some(Transport::new(transport)),
        // Without effect on a virtual machine, where the crate has its own.
        retry: RetryOptions::exponential(ExponentialRetryOptions {
            max_retries: 3,
            ..ExponentialRetryOptions::default()
        }),
        ..ClientOptions::default()
    };
    Ok(match source {
        IdentitySource::Managed { client_id, .. } => {
            ManagedIdentityCredential::new(Some(ManagedIdentityCredentialOptions {
                user_assigned_id: client_id.map(UserAssignedId::ClientId),
                client_options,
            }))?
        }
        // It reads the service account's token file here.
        IdentitySource::Workload {
            client_id,
            tenant_id,
            token_file,
            ..
        } => WorkloadIdentityCredential::new(Some(WorkloadIdentityCredentialOptions {
            credential_options: ClientAssertionCredentialOptions { client_options },
            client_id: Some(client_id),
            tenant_id: Some(tenant_id),
            token_file_path: Some(token_file),
        }))?,
        IdentitySource::AzureCli => AzureCliCredential::new(None)?,
    })
}

fn denied(error: &azure_core::Error) -> Denied {
    // The second line of the first is a link to a troubleshooting guide.
    let first_line = |error: &dyn Error| {
        error
            .to_string()
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let mut reason = first_line(error);
    let (mut retry_after, mut status) = (None, None);
    let mut root: &(dyn Error + 'static) = error;
    loop {
        if let Some(wait) = root.downcast_ref::<AskedToWait>() {
            retry_after = Some(wait.0);
        }
        if let Some(ErrorKind::HttpResponse {
            status: answered, ..
        }) = root
            .downcast_ref::<azure_core::Error>()
            .map(azure_core::Error::kind)
        {
            status = Some(u16::from(*answered));
        }
        let Some(cause) = root.source() else { break };
        root = cause;
    }
    // The crate says where it failed, and only the cause of all says why.
    let cause = first_line(root);
    if !reason.contains(&cause) {
        reason = format!("{reason}: {cause}");
    }
    if let Some(status) = status {
        reason = format!("answered {status}: {reason}");
    }
    Denied {
        reason: reason.chars().take(400).collect(),
        retry_after,
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("source", &self.0.source)
            .field("scope", &self.0.scope)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use async_trait::async_trait;
    use azure_core::http::headers::Headers;
    use azure_core::http::{AsyncRawResponse, Body, Request, StatusCode};
    use secrecy::ExposeSecret;

    use super::*;

    /// Entra's token endpoint, which must be HTTPS and so can't be a local server.
    #[derive(Debug)]
    struct Entra {
        answers: Mutex<VecDeque<(StatusCode, String)>>,
        requests: Mutex<Vec<String>>,
    }

    impl Entra {
        fn answering<const N: usize>(answers: [(StatusCode, &str); N]) -> Arc<Self> {
            Arc::new(Self {
                answers: Mutex::new(
                    answers
                        .map(|(status, body)| (status, body.to_owned()))
                        .into(),
                ),
                requests: Mutex::default(),
            })
        }
    }

    #[async_trait]
    impl HttpClient for Entra {
        async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
            let Body::Bytes(body) = request.body() else {
                panic!("a form is not streamed");
            };
            self.requests.lock().unwrap().push(format!(
                "{} {} {}",
                request.method(),
                request.url(),
                String::from_utf8_lossy(body)
            ));
            let (status, body) = self
                .answers
                .lock()
                .unwrap()
                .pop_front()
                .expect("no more requests than answers");
            Ok(AsyncRawResponse::from_bytes(status, Headers::new(), body))
        }
    }

    const GOOD_FOR_AN_HOUR: &str =
        r#"{"token_type":"Bearer","expires_in":3600,"access_token":"first-jwt"}"#;
    const GOOD_FOR_TWO_MINUTES: &str =
        r#"{"token_type":"Bearer","expires_in":120,"access_token":"first-jwt"}"#;
    const ANOTHER: &str =
        r#"{"token_type":"Bearer","expires_in":3600,"access_token":"second-jwt"}"#;
    const REFUSED: &str = r#"{"error":"invalid_client","error_description":"AADSTS700016: no such application","error_codes":[700016]}"#;

    struct TokenFile(PathBuf);

    impl TokenFile {
        fn new() -> Self {
            let path = std::env::temp_dir().join(format!("orderup-{}", uuid::Uuid::new_v4()));
            std::fs::write(&path, "service-account-jwt").unwrap();
            Self(path)
        }

        fn workload(&self) -> IdentitySource {
            IdentitySource::Workload {
                client_id: "client-1".to_owned(),
                tenant_id: "tenant-1".to_owned(),
                token_file: self.0.clone(),
                setting: "AZURE_CLIENT_ID".to_owned(),
            }
        }
    }

    impl Drop for TokenFile {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[tokio::test]
    async fn workload_identity_exchanges_the_service_accounts_token_once() {
        let file = TokenFile::new();
        let entra = Entra::answering([(StatusCode::Ok, GOOD_FOR_AN_HOUR)]);
        let identity = Identity::with_transport(file.workload(), ACS_EMAIL_SCOPE, entra.clone());
        for _ in 0..2 {
            let bearer = identity.clone().bearer().await.unwrap();
            assert_eq!(bearer.expose_secret(), "first-jwt");
        }
        assert_eq!(
            *entra.requests.lock().unwrap(),
            [
                "POST https://login.microsoftonline.com/tenant-1/oauth2/v2.0/token \
              client_assertion=service-account-jwt\
              &client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer\
              &client_id=client-1&grant_type=client_credentials\
              &scope=https%3A%2F%2Fcommunication.azure.com%2F%2F.default"
            ]
        );
        let printed = format!("{identity:?}");
        assert!(!printed.contains("jwt"), "{printed}");
    }

    #[tokio::test]
    async fn a_rejected_token_is_replaced() {
        let file = TokenFile::new();
        let entra = Entra::answering([
            (StatusCode::Ok, GOOD_FOR_AN_HOUR),
            (StatusCode::Ok, ANOTHER),
        ]);
        let identity = Identity::with_transport(file.workload(), SERVICE_BUS_SCOPE, entra);
        identity.bearer().await.unwrap();
        identity.forget("an older one");
        assert_eq!(
            identity.bearer().await.unwrap().expose_secret(),
            "first-jwt"
        );
        identity.forget("first-jwt");
        assert_eq!(
            identity.bearer().await.unwrap().expose_secret(),
            "second-jwt"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn each_exchange_reads_the_file_that_the_kubelet_rewrites() {
        let file = TokenFile::new();
        let entra = Entra::answering([
            (StatusCode::Ok, GOOD_FOR_TWO_MINUTES),
            (StatusCode::BadRequest, REFUSED),
            (StatusCode::Ok, ANOTHER),
        ]);
        let identity = Identity::with_transport(file.workload(), SERVICE_BUS_SCOPE, entra.clone());
        let bearer = async || {
            let bearer = identity.bearer().await.unwrap();
            tokio::task::yield_now().await;
            bearer.expose_secret().to_owned()
        };
        assert_eq!(bearer().await, "first-jwt");
        std::fs::write(&file.0, "rotated-jwt").unwrap();
        tokio::time::advance(Duration::from_secs(61)).await;
        // Refused this time, and the first one is good for another minute.
        assert_eq!(bearer().await, "first-jwt");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(bearer().await, "first-jwt");
        assert_eq!(bearer().await, "second-jwt");
        let requests = entra.requests.lock().unwrap().clone();
        let [first, rest @ ..] = &requests[..] else {
            panic!("{requests:?}");
        };
        assert!(first.contains("=service-account-jwt&"), "{first}");
        assert_eq!(rest.len(), 2);
        for request in rest {
            assert!(request.contains("=rotated-jwt&"), "{request}");
        }
    }

    #[tokio::test]
    async fn an_error_tells_what_entra_said() {
        let file = TokenFile::new();
        let entra = Entra::answering([(StatusCode::BadRequest, REFUSED)]);
        let identity = Identity::with_transport(file.workload(), SERVICE_BUS_SCOPE, entra);
        let error = identity.bearer().await.unwrap_err().to_string();
        assert!(
            error.contains("AADSTS700016: no such application"),
            "{error}"
        );
        assert!(error.contains(SERVICE_BUS_SCOPE), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }

    #[tokio::test]
    async fn a_missing_token_file_is_an_error_of_the_call_and_not_of_the_start() {
        let file = TokenFile::new();
        let source = file.workload();
        drop(file);
        let identity = Identity::with_transport(source, SERVICE_BUS_SCOPE, Entra::answering([]));
        let error = identity.bearer().await.unwrap_err().to_string();
        assert!(error.contains("federated token"), "{error}");
    }

    fn read<const N: usize>(settings: [(&str, &str); N]) -> Result<IdentitySource, ConfigError> {
        IdentitySource::read(&Settings::from_pairs(settings), "ServiceBusConnection")
    }

    fn managed(client_id: Option<&str>, setting: &str) -> Result<IdentitySource, ConfigError> {
        Ok(IdentitySource::Managed {
            client_id: client_id.map(str::to_owned),
            setting: setting.to_owned(),
        })
    }

    const OWN: &str = "ServiceBusConnection__clientId";
    const AKS: [(&str, &str); 3] = [
        ("AZURE_CLIENT_ID", "default"),
        ("AZURE_TENANT_ID", "tenant"),
        ("AZURE_FEDERATED_TOKEN_FILE", "/var/run/token"),
    ];

    fn workload(client_id: &str, setting: &str) -> Result<IdentitySource, ConfigError> {
        Ok(IdentitySource::Workload {
            client_id: client_id.to_owned(),
            tenant_id: "tenant".to_owned(),
            token_file: "/var/run/token".into(),
            setting: setting.to_owned(),
        })
    }

    #[test]
    fn it_is_managed_identity_unless_a_federated_token_is_there() {
        let [client_id, tenant_id, token_file] = AKS;
        assert_eq!(read([]), managed(None, OWN));
        assert_eq!(
            read([client_id]),
            managed(Some("default"), "AZURE_CLIENT_ID")
        );
        assert_eq!(read(AKS), workload("default", "AZURE_CLIENT_ID"));
        let own = (OWN, "own");
        assert_eq!(
            read([client_id, tenant_id, token_file, own]),
            workload("own", OWN)
        );
    }

    #[test]
    fn the_credential_setting_decides_when_it_is_there() {
        let [client_id, tenant_id, token_file] = AKS;
        let credential = |value| ("ServiceBusConnection__credential", value);
        let of_libraries = |value| (CREDENTIALS, value);
        assert_eq!(
            read([client_id, token_file, credential("managedIdentity")]),
            managed(None, OWN)
        );
        let all = [client_id, tenant_id, token_file];
        let with = |setting| read([all[0], all[1], all[2], setting]);
        let shared = managed(Some("default"), "AZURE_CLIENT_ID");
        assert_eq!(
            with(of_libraries("ManagedIdentityCredential")),
            shared,
            "as in Microsoft's libraries"
        );
        for same in [
            credential("workloadidentity"),
            of_libraries("prod"),
            of_libraries("WorkloadIdentityCredential"),
        ] {
            assert_eq!(
                with(same),
                workload("default", "AZURE_CLIENT_ID"),
                "{same:?}"
            );
        }
        for cli in ["dev", "AzureCliCredential"] {
            assert_eq!(with(of_libraries(cli)), Ok(IdentitySource::AzureCli));
            // What is said of this connection wins.
            let own = credential("managedidentity");
            assert_eq!(read([of_libraries(cli), own]), managed(None, OWN));
        }
    }

    #[test]
    fn what_can_not_be_is_told_by_its_variable() {
        let [client_id, tenant_id, token_file] = AKS;
        for (settings, variable) in [
            (
                vec![("ServiceBusConnection__credential", "workloadidentity")],
                "AZURE_CLIENT_ID",
            ),
            (
                vec![("ServiceBusConnection__credential", "azurecli")],
                "ServiceBusConnection__credential",
            ),
            (vec![(CREDENTIALS, "VisualStudioCredential")], CREDENTIALS),
            (vec![client_id, token_file], "AZURE_TENANT_ID"),
            (
                vec![
                    client_id,
                    tenant_id,
                    token_file,
                    (AUTHORITY_HOST, "http://login.example"),
                ],
                AUTHORITY_HOST,
            ),
        ] {
            let mut all = [("", ""); 4];
            all[..settings.len()].copy_from_slice(&settings);
            let error = read(all).unwrap_err().to_string();
            assert!(error.contains(variable), "{error}");
        }
    }
}
