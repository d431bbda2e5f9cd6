//! Entra tokens for services that take an identity instead of a key.
//!
//! Workload identity where Kubernetes provides it, managed identity otherwise, both by `azure_identity`, which keeps a
//! token until five minutes before it expires. Nothing is read or asked before the first token is wanted, so
//! that an identity endpoint that is down does not keep the handler from starting.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use azure_core::credentials::{AccessToken, TokenCredential};
use azure_core::http::{
    ClientOptions, ExponentialRetryOptions, HttpClient, RetryOptions, Transport,
};
use azure_identity::{
    ClientAssertionCredentialOptions, ManagedIdentityCredential, ManagedIdentityCredentialOptions,
    UserAssignedId, WorkloadIdentityCredential, WorkloadIdentityCredentialOptions,
};
use secrecy::SecretString;
use thiserror::Error;
use time::OffsetDateTime;

use crate::config::{ConfigError, Settings};
use crate::http_client::EntraTransport;

/// Service Bus, in every Azure cloud.
pub const SERVICE_BUS_SCOPE: &str = "https://servicebus.azure.net/.default";

/// Azure Communication Services; the two slashes are Microsoft's.
pub const ACS_EMAIL_SCOPE: &str = "https://communication.azure.com//.default";

/// Storage accounts, in every Azure cloud.
pub const STORAGE_SCOPE: &str = "https://storage.azure.com/.default";

/// How long a caller waits for a token, the credential's own retries included. The instance metadata service would
/// otherwise be asked for more than a minute.
const LONGEST_WAIT: Duration = Duration::from_secs(8);

/// A token that is used for a request must outlive it.
const LEAST_VALIDITY: Duration = Duration::from_secs(30);

/// Which identity a connection uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentitySource {
    /// The system-assigned identity, or the user-assigned one with this client id.
    Managed { client_id: Option<String> },
    /// A Kubernetes service account that is federated with an Entra application.
    Workload {
        client_id: String,
        tenant_id: String,
        token_file: PathBuf,
    },
}

impl IdentitySource {
    /// The identity for the settings that begin with `connection`, by the Functions host's names:
    /// `{connection}__clientId` and `{connection}__credential`.
    ///
    /// Without `__credential` it is workload identity if `AZURE_FEDERATED_TOKEN_FILE` is set, which the AKS webhook
    /// does, and managed identity if not; the client id defaults to `AZURE_CLIENT_ID`.
    ///
    /// # Errors
    /// If `__credential` is neither, or workload identity lacks one of its variables.
    pub fn read(settings: &Settings, connection: &str) -> Result<Self, ConfigError> {
        let client_id = settings.optional(&format!("{connection}__clientId"));
        let default_client_id = || settings.optional("AZURE_CLIENT_ID");
        let variable = format!("{connection}__credential");
        let token_file = settings.optional("AZURE_FEDERATED_TOKEN_FILE");
        let workload = match settings
            .optional(&variable)
            .map(|credential| credential.to_ascii_lowercase())
            .as_deref()
        {
            None if token_file.is_none() => {
                return Ok(Self::Managed {
                    client_id: client_id.or_else(default_client_id),
                });
            }
            // As for the host: without a client id it is the system-assigned one.
            Some("managedidentity") => return Ok(Self::Managed { client_id }),
            None | Some("workloadidentity") => "set by AKS workload identity",
            Some(_) => {
                return Err(ConfigError::invalid(
                    &variable,
                    "there is no such credential",
                    "managedidentity, workloadidentity or absent",
                ));
            }
        };
        Ok(Self::Workload {
            client_id: match client_id {
                Some(client_id) => client_id,
                None => settings.required("AZURE_CLIENT_ID", workload)?,
            },
            tenant_id: settings.required("AZURE_TENANT_ID", workload)?,
            token_file: settings
                .required("AZURE_FEDERATED_TOKEN_FILE", workload)?
                .into(),
        })
    }
}

/// No token: why, in the identity provider's words.
#[derive(Debug, Clone, Error)]
#[error("no token for {scope}: {reason}")]
pub struct IdentityError {
    pub scope: &'static str,
    pub reason: String,
}

/// Tokens for one service. Clones share what was fetched.
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    source: IdentitySource,
    scope: &'static str,
    transport: Arc<dyn HttpClient>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    credential: Option<Arc<dyn TokenCredential>>,
    last: Option<AccessToken>,
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
            state: Mutex::new(State::default()),
        }))
    }

    /// A token for an `Authorization: Bearer` header, valid for half a minute at least.
    ///
    /// While a new one can't be had, the last one is given out for as long as it is valid.
    ///
    /// # Errors
    /// If there is no valid token and none comes within 8 s.
    pub async fn bearer(&self) -> Result<SecretString, IdentityError> {
        let credential = self.credential()?;
        let fetched =
            tokio::time::timeout(LONGEST_WAIT, credential.get_token(&[self.0.scope], None))
                .await
                .map_err(|_| self.error("the identity provider did not answer in time"))
                .and_then(|answer| answer.map_err(|error| self.error(&error.to_string())));

        let mut state = self.state();
        match fetched {
            Ok(token) => {
                let bearer = SecretString::from(token.token.secret());
                state.last = Some(token);
                Ok(bearer)
            }
            Err(error) => match &state.last {
                Some(last) if last.expires_on > OffsetDateTime::now_utc() + LEAST_VALIDITY => {
                    tracing::warn!(%error, "the last token is used again");
                    Ok(SecretString::from(last.token.secret()))
                }
                Some(_) | None => Err(error),
            },
        }
    }

    /// Makes the next call fetch a new token if `rejected` is still the current one.
    pub fn forget(&self, rejected: &str) {
        let mut state = self.state();
        if state
            .last
            .as_ref()
            .is_some_and(|last| last.token.secret() == rejected)
        {
            // The credential's cache can't be emptied, so it goes with the credential.
            *state = State::default();
        }
    }

    /// Made at the first use, because workload identity reads the service account's token file, which the kubelet
    /// keeps in memory.
    fn credential(&self) -> Result<Arc<dyn TokenCredential>, IdentityError> {
        let mut state = self.state();
        if let Some(credential) = &state.credential {
            return Ok(Arc::clone(credential));
        }
        let client_options = ClientOptions {
            transport: Some(Transport::new(Arc::clone(&self.0.transport))),
            retry: RetryOptions::exponential(ExponentialRetryOptions {
                max_retries: 3,
                ..ExponentialRetryOptions::default()
            }),
            ..ClientOptions::default()
        };
        let made: azure_core::Result<Arc<dyn TokenCredential>> = match self.0.source.clone() {
            IdentitySource::Managed { client_id } => {
                ManagedIdentityCredential::new(Some(ManagedIdentityCredentialOptions {
                    user_assigned_id: client_id.map(UserAssignedId::ClientId),
                    client_options,
                }))
                .map(|credential| credential as Arc<dyn TokenCredential>)
            }
            IdentitySource::Workload {
                client_id,
                tenant_id,
                token_file,
            } => WorkloadIdentityCredential::new(Some(WorkloadIdentityCredentialOptions {
                credential_options: ClientAssertionCredentialOptions { client_options },
                client_id: Some(client_id),
                tenant_id: Some(tenant_id),
                token_file_path: Some(token_file),
            }))
            .map(|credential| credential as Arc<dyn TokenCredential>),
        };
        let credential = made.map_err(|error| self.error(&error.to_string()))?;
        state.credential = Some(Arc::clone(&credential));
        Ok(credential)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, reason: &str) -> IdentityError {
        IdentityError {
            scope: self.0.scope,
            // The second line is a link to a troubleshooting guide.
            reason: reason
                .lines()
                .next()
                .unwrap_or_default()
                .chars()
                .take(400)
                .collect(),
        }
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

    #[tokio::test]
    async fn the_last_token_is_used_while_it_is_valid_and_no_new_one_can_be_had() {
        let file = TokenFile::new();
        let entra = Entra::answering([
            (StatusCode::Ok, GOOD_FOR_TWO_MINUTES),
            (StatusCode::BadRequest, REFUSED),
        ]);
        let identity = Identity::with_transport(file.workload(), SERVICE_BUS_SCOPE, entra.clone());
        for _ in 0..2 {
            assert_eq!(
                identity.bearer().await.unwrap().expose_secret(),
                "first-jwt"
            );
        }
        assert_eq!(entra.requests.lock().unwrap().len(), 2);
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

    #[test]
    fn it_is_managed_identity_unless_a_federated_token_is_there() {
        let read = |settings: Settings| IdentitySource::read(&settings, "ServiceBusConnection");
        assert_eq!(
            read(Settings::from_pairs([])),
            Ok(IdentitySource::Managed { client_id: None })
        );
        assert_eq!(
            read(Settings::from_pairs([("AZURE_CLIENT_ID", "default")])),
            Ok(IdentitySource::Managed {
                client_id: Some("default".to_owned())
            })
        );
        assert_eq!(
            read(Settings::from_pairs([
                ("AZURE_CLIENT_ID", "default"),
                ("AZURE_TENANT_ID", "tenant"),
                ("AZURE_FEDERATED_TOKEN_FILE", "/var/run/token"),
                ("ServiceBusConnection__clientId", "own"),
            ])),
            Ok(IdentitySource::Workload {
                client_id: "own".to_owned(),
                tenant_id: "tenant".to_owned(),
                token_file: "/var/run/token".into(),
            })
        );
    }

    #[test]
    fn the_credential_setting_decides_when_it_is_there() {
        let read = |settings: Settings| IdentitySource::read(&settings, "ServiceBusConnection");
        assert_eq!(
            read(Settings::from_pairs([
                ("ServiceBusConnection__credential", "managedIdentity"),
                ("AZURE_CLIENT_ID", "default"),
                ("AZURE_FEDERATED_TOKEN_FILE", "/var/run/token"),
            ])),
            Ok(IdentitySource::Managed { client_id: None })
        );
        let error = read(Settings::from_pairs([(
            "ServiceBusConnection__credential",
            "workloadidentity",
        )]))
        .unwrap_err()
        .to_string();
        assert!(error.contains("AZURE_CLIENT_ID"), "{error}");
        let error = read(Settings::from_pairs([(
            "ServiceBusConnection__credential",
            "clientsecret",
        )]))
        .unwrap_err()
        .to_string();
        assert!(
            error.contains("ServiceBusConnection__credential"),
            "{error}"
        );
    }
}
