//! One container of an Azure storage account: the six requests of the Blob service that the order book needs.
//!
//! Our own, because the crate `object_store` makes the program a seventh larger. A request has 1.4 s, and is made once more after a
//! failure that may be over at once. The container is created when the first write finds none; without one, there is
//! nothing to read. The formats are those of Microsoft's "Blob service REST API".

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};

use crate::blob_list::{self, Page};
use crate::http_client::{self, read_at_most};
use crate::identity::{Identity, STORAGE_SCOPE};
use crate::shared_key::AccountKey;
use crate::storage_account::{ContainerSettings, StorageCredential};
use crate::store_error::StoreError;

/// The version of the service whose words these are; Azurite knows it as well.
const VERSION: HeaderValue = HeaderValue::from_static("2023-11-03");
const VERSION_HEADER: HeaderName = HeaderName::from_static("x-ms-version");
const DATE_HEADER: HeaderName = HeaderName::from_static("x-ms-date");
const BLOB_TYPE_HEADER: HeaderName = HeaderName::from_static("x-ms-blob-type");

const REQUEST_TIMEOUT: Duration = Duration::from_millis(1_400);

/// Five thousand entries take some megabytes.
const LIST_TIMEOUT: Duration = Duration::from_secs(10);

/// Between a request that failed and its only repetition.
const QUICK_RETRY: Duration = Duration::from_millis(150);

/// The longest object that is read. What is written comes from messages of 1 MB at most.
const LONGEST_OBJECT: usize = 8 * 1024 * 1024;

const LONGEST_PAGE: usize = 32 * 1024 * 1024;

pub struct BlobContainer {
    http: reqwest::Client,
    url: Url,
    authorization: Authorization,
}

enum Authorization {
    Key(AccountKey),
    Signature(SecretString),
    Identity(Identity),
}

/// One request, which may be sent twice.
struct Request<'a> {
    method: Method,
    /// Of a blob; of the container itself without.
    path: Option<&'a str>,
    query: &'a [(&'a str, &'a str)],
    /// What is written as a new blob.
    blob: Option<Bytes>,
    timeout: Duration,
    limit: usize,
}

struct Answer {
    status: StatusCode,
    /// Azure's word for an error, as in `BlobNotFound`; empty if there is none.
    code: String,
    body: Vec<u8>,
}

impl BlobContainer {
    /// No I/O.
    pub fn new(settings: ContainerSettings, http: &reqwest::Client) -> Self {
        let authorization = match settings.credential {
            StorageCredential::AccountKey(key) => Authorization::Key(key),
            StorageCredential::SharedAccessSignature(query) => Authorization::Signature(query),
            StorageCredential::Identity(source) => {
                Authorization::Identity(Identity::new(source, STORAGE_SCOPE, http))
            }
        };
        Self {
            http: http.clone(),
            url: settings.url,
            authorization,
        }
    }

    pub fn url(&self) -> &Url {
        &self.url
    }

    /// True if it was not there and is now.
    pub async fn put_once(&self, path: &str, body: Bytes) -> Result<bool, StoreError> {
        let request = Request {
            blob: Some(body),
            ..Request::new(Method::PUT, Some(path))
        };
        let mut answer = self.send(&request).await?;
        if answer.code == "ContainerNotFound" {
            self.create().await?;
            answer = self.send(&request).await?;
        }
        match (answer.status, answer.code.as_str()) {
            (StatusCode::CREATED, _) => Ok(true),
            // The last one is for a signature that permits no overwriting.
            (StatusCode::PRECONDITION_FAILED, _)
            | (_, "BlobAlreadyExists" | "UnauthorizedBlobOverwrite") => Ok(false),
            _ => Err(answer.error()),
        }
    }

    pub async fn get(&self, path: &str) -> Result<Option<Bytes>, StoreError> {
        let request = Request {
            limit: LONGEST_OBJECT + 1,
            ..Request::new(Method::GET, Some(path))
        };
        let answer = self.send(&request).await?;
        match answer.status {
            StatusCode::OK if answer.body.len() > LONGEST_OBJECT => {
                Err(StoreError::refused("it is longer than 8 MiB"))
            }
            StatusCode::OK => Ok(Some(answer.body.into())),
            _ if answer.is_absent() => Ok(None),
            _ => Err(answer.error()),
        }
    }

    pub async fn delete(&self, path: &str) -> Result<(), StoreError> {
        let answer = self.send(&Request::new(Method::DELETE, Some(path))).await?;
        if answer.status == StatusCode::ACCEPTED || answer.is_absent() {
            return Ok(());
        }
        Err(answer.error())
    }

    /// At most `size` of what begins with `prefix`, in Azure's order, from where `marker` says; nothing without a container.
    pub async fn list(
        &self,
        prefix: &str,
        size: usize,
        marker: Option<&str>,
    ) -> Result<Option<Page>, StoreError> {
        let size = size.to_string();
        // In the order in which they are signed.
        let mut query = vec![("comp", "list")];
        query.extend(marker.map(|marker| ("marker", marker)));
        query.push(("maxresults", &size));
        query.extend(Some(("prefix", prefix)).filter(|_| !prefix.is_empty()));
        query.push(("restype", "container"));
        let request = Request {
            query: &query,
            timeout: LIST_TIMEOUT,
            limit: LONGEST_PAGE,
            ..Request::new(Method::GET, None)
        };
        let answer = self.send(&request).await?;
        if answer.is_absent() {
            return Ok(None);
        }
        if answer.status != StatusCode::OK {
            return Err(answer.error());
        }
        std::str::from_utf8(&answer.body)
            .ok()
            .and_then(blob_list::parse)
            .map(Some)
            .ok_or_else(|| StoreError::unavailable("its answer is not a list of blobs"))
    }

    /// Private, which is the default. Somebody else may be quicker.
    async fn create(&self) -> Result<(), StoreError> {
        let request = Request {
            query: &[("restype", "container")],
            ..Request::new(Method::PUT, None)
        };
        let answer = self.send(&request).await?;
        if answer.status == StatusCode::CREATED {
            tracing::info!(container = %self.url, "the order book's container was created");
            return Ok(());
        }
        if answer.code == "ContainerAlreadyExists" {
            return Ok(());
        }
        Err(answer.error())
    }

    async fn send(&self, request: &Request<'_>) -> Result<Answer, StoreError> {
        match self.send_once(request).await {
            Ok(answer) if answer.is_transient() => {}
            // An identity's token was replaced meanwhile.
            Ok(answer)
                if answer.status == StatusCode::UNAUTHORIZED
                    && matches!(self.authorization, Authorization::Identity(_)) => {}
            Err(StoreError::Unavailable { .. }) => {}
            result => return result,
        }
        tokio::time::sleep(QUICK_RETRY).await;
        self.send_once(request).await
    }

    async fn send_once(&self, request: &Request<'_>) -> Result<Answer, StoreError> {
        let mut url = self.url.clone();
        if let Some(path) = request.path {
            url.set_path(&format!("{}/{path}", self.url.path()));
        }
        if !request.query.is_empty() {
            url.query_pairs_mut().extend_pairs(request.query);
        }
        let body = request.blob.clone().unwrap_or_default();
        let mut headers = HeaderMap::new();
        headers.insert(VERSION_HEADER, VERSION);
        let now = httpdate::fmt_http_date(SystemTime::now());
        let now = HeaderValue::from_str(&now).expect("a date is plain ASCII");
        headers.insert(DATE_HEADER, now);
        if request.blob.is_some() {
            headers.insert(BLOB_TYPE_HEADER, HeaderValue::from_static("BlockBlob"));
            headers.insert(header::IF_NONE_MATCH, HeaderValue::from_static("*"));
            let is_json = request.path.is_some_and(|path| path.ends_with(".json"));
            let media_type = if is_json {
                "application/json"
            } else {
                "application/octet-stream"
            };
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        }
        let mut token = None;
        match &self.authorization {
            Authorization::Key(key) => {
                let value = key.authorization(&request.method, &url, &headers, body.len());
                headers.insert(header::AUTHORIZATION, value);
            }
            Authorization::Signature(signature) => {
                let signature = signature.expose_secret();
                let query = match url.query() {
                    Some(query) => format!("{query}&{signature}"),
                    None => signature.to_owned(),
                };
                url.set_query(Some(&query));
            }
            Authorization::Identity(identity) => {
                let bearer = identity
                    .bearer()
                    .await
                    .map_err(|error| StoreError::unauthorized(error.to_string()))?;
                let value = http_client::bearer(&bearer)
                    .ok_or_else(|| StoreError::unauthorized("its token fits no header"))?;
                headers.insert(header::AUTHORIZATION, value);
                token = Some((identity, bearer));
            }
        }
        if request.method == Method::PUT {
            headers.insert(header::CONTENT_LENGTH, body.len().into());
        }

        let failed = |error: reqwest::Error| StoreError::unavailable(http_client::reason(&error));
        let outgoing = self
            .http
            .request(request.method.clone(), url)
            .headers(headers)
            .timeout(request.timeout)
            .body(body);
        let mut response = outgoing.send().await.map_err(failed)?;
        let status = response.status();
        if let Some((identity, token)) = token
            && status == StatusCode::UNAUTHORIZED
        {
            identity.forget(token.expose_secret());
        }
        let code = response
            .headers()
            .get("x-ms-error-code")
            .and_then(|code| code.to_str().ok())
            .filter(|code| code.len() <= 64 && code.bytes().all(|b| b.is_ascii_alphanumeric()))
            .unwrap_or_default()
            .to_owned();
        let body = read_at_most(&mut response, request.limit)
            .await
            .map_err(failed)?;
        Ok(Answer { status, code, body })
    }
}

impl<'a> Request<'a> {
    fn new(method: Method, path: Option<&'a str>) -> Self {
        Self {
            method,
            path,
            query: &[],
            blob: None,
            timeout: REQUEST_TIMEOUT,
            // What an error says beside its code is not read.
            limit: 16 * 1024,
        }
    }
}

impl Answer {
    /// There is no such blob, and perhaps no container yet. Another 404 is another service.
    fn is_absent(&self) -> bool {
        self.status == StatusCode::NOT_FOUND
            && matches!(self.code.as_str(), "BlobNotFound" | "ContainerNotFound")
    }

    fn is_transient(&self) -> bool {
        self.status.is_server_error()
            || matches!(
                self.status,
                StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
            )
    }

    fn error(&self) -> StoreError {
        let reason = match self.code.as_str() {
            "" => self.status.as_u16().to_string(),
            code => format!("{} {code}", self.status.as_u16()),
        };
        match self.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => StoreError::Unauthorized { reason },
            // The name of a deleted container is free again after half a minute, and a new one is found a moment later.
            _ if self.is_transient()
                || matches!(
                    self.code.as_str(),
                    "ContainerBeingDeleted" | "ContainerNotFound"
                ) =>
            {
                StoreError::Unavailable { reason }
            }
            _ => StoreError::Refused { reason },
        }
    }
}
