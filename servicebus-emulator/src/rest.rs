//! The REST data plane: send, receive and settle over HTTP, as strict as Azure's.
//!
//! A request is checked in the service's order: the size of its head (http.sys), its signature, its path, its content.
//! What it asks for is then one command to the [`ServiceBus`]; success means that the command is durable. Refusals are XML
//! with the documented status. Differences from Azure are listed in the crate's README.
//! Facts: <https://learn.microsoft.com/rest/api/servicebus/service-bus-runtime-rest>.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri,
        header::{AUTHORIZATION, CONTENT_TYPE, HOST, LOCATION},
        request::Parts,
    },
    response::{IntoResponse, Response},
    routing::get,
};
use jiff::Timestamp;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use uuid::Uuid;

use crate::{
    EntityPath, Message, ReceiveMode, ReceivedMessage, ServiceBus, atom, batch, body,
    broker_properties, custom_properties, rest_error::RestError, sas,
};

const BROKER_PROPERTIES: HeaderName = HeaderName::from_static("brokerproperties");

/// What http.sys, in front of the service, takes as request line and headers together, token included.
const LARGEST_HEAD: usize = 16 * 1024;

/// How long a receive waits that does not say so.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a receive waits at most, whatever it says: a client that went away is not always noticed.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(300);

/// What cannot stand in the path of an address as it is.
const NOT_IN_PATHS: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'`')
    .add(b'{')
    .add(b'}');

/// The shared access policy that signs the tokens the data plane accepts.
#[derive(Clone)]
pub struct SharedAccessPolicy {
    pub name: String,
    pub key: String,
}

impl Default for SharedAccessPolicy {
    /// The official emulator's: `RootManageSharedAccessKey`, `SAS_KEY_VALUE`.
    fn default() -> Self {
        Self {
            name: "RootManageSharedAccessKey".to_owned(),
            key: "SAS_KEY_VALUE".to_owned(),
        }
    }
}

impl std::fmt::Debug for SharedAccessPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedAccessPolicy")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

#[derive(Clone)]
struct DataPlane {
    bus: ServiceBus,
    policy: Arc<SharedAccessPolicy>,
    since: Timestamp,
}

/// The routes of the REST data plane and of the management API over the namespace.
pub fn router(bus: ServiceBus, policy: SharedAccessPolicy) -> Router {
    let policy = Arc::new(policy);
    let since = Timestamp::now();
    Router::new()
        .route("/health", get(health))
        // The names of entities may hold slashes: routes cannot describe the paths.
        .fallback(answer)
        .with_state(DataPlane { bus, policy, since })
}

/// As the official emulator answers, as long as the namespace runs.
async fn health(State(data_plane): State<DataPlane>) -> Response {
    let (status, body) = if data_plane.bus.is_closed() {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            r#"{"status":"unhealthy","message":"The namespace has ended."}"#,
        )
    } else {
        (
            StatusCode::OK,
            r#"{"status":"healthy","message":"Service is healthy."}"#,
        )
    };
    let content_type = [(CONTENT_TYPE, "application/json; charset=utf-8")];
    (status, content_type, body).into_response()
}

async fn answer(State(data_plane): State<DataPlane>, request: Request) -> Response {
    let now = Timestamp::now();
    let (head, body) = request.into_parts();
    if head_size(&head) > LARGEST_HEAD {
        let content_type = [(CONTENT_TYPE, "text/html; charset=us-ascii")];
        return (StatusCode::BAD_REQUEST, content_type, HEAD_TOO_LONG).into_response();
    }
    let host = head
        .headers
        .get(HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or("localhost")
        .to_owned();
    let system_tracker = format!("{host}:{}", head.uri.path().trim_matches('/'));
    match data_plane.carry_out(&head, body, &host, now).await {
        Ok(response) => response,
        Err(error) => error.into_response(&system_tracker, now),
    }
}

fn head_size(head: &Parts) -> usize {
    let request_line = head.method.as_str().len() + head.uri.to_string().len() + 12;
    let header = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 4;
    request_line + head.headers.iter().map(header).sum::<usize>()
}

const HEAD_TOO_LONG: &str = "<!DOCTYPE HTML PUBLIC \"-//W3C//DTD HTML 4.01//EN\"\"http://www.w3.org/TR/html4/strict.dtd\">\r\n\
    <HTML><HEAD><TITLE>Bad Request</TITLE>\r\n\
    <META HTTP-EQUIV=\"Content-Type\" Content=\"text/html; charset=us-ascii\"></HEAD>\r\n\
    <BODY><h2>Bad Request - Request Too Long</h2>\r\n\
    <hr><p>HTTP Error 400. The size of the request headers is too long.</p>\r\n\
    </BODY></HTML>\r\n";

/// What a request asks of the data plane. In the path of a locked message stands its id or sequence number as well, but the
/// token alone says which one it is.
#[derive(Debug, PartialEq)]
enum Target {
    /// `POST {entity}/messages`
    Messages,
    /// `POST {entity}/messages/head`
    Head,
    /// `DELETE {entity}/messages/head`
    Taken,
    /// `DELETE {entity}/messages/{id}/{lock token}`
    Completed(String),
    /// `PUT {entity}/messages/{id}/{lock token}`
    Abandoned(String),
    /// `POST {entity}/messages/{id}/{lock token}`
    Renewed(String),
}

impl DataPlane {
    async fn carry_out(
        &self,
        head: &Parts,
        body: Body,
        host: &str,
        now: Timestamp,
    ) -> Result<Response, RestError> {
        let authorization = head
            .headers
            .get(AUTHORIZATION)
            .map(|value| value.to_str().unwrap_or_default());
        sas::verify(
            authorization,
            &sas::segments(head.uri.path()),
            &self.policy,
            now,
        )?;
        let Some((entity, target)) = target(&head.method, &head.uri)? else {
            let answer = atom::answer(&self.bus, head, body, host, self.since).await;
            return answer.map_err(RestError::with_sub_code);
        };
        match target {
            Target::Messages => self.send(&entity, &head.headers, body).await,
            Target::Head if peek_only(&head.uri)? => {
                let peeked = self.bus.peek(&entity).await?;
                Ok(peeked.map_or_else(no_message, |peeked| {
                    message(StatusCode::CREATED, &peeked, None)
                }))
            }
            Target::Head => {
                let wait = timeout(&head.uri)?;
                let received = self
                    .bus
                    .receive(&entity, ReceiveMode::PeekLock, wait)
                    .await?;
                Ok(received.map_or_else(no_message, |received| {
                    let location = received.lock_token.map(|lock_token| {
                        let number = received.sequence_number;
                        let entity = entity.to_string();
                        let entity = utf8_percent_encode(&entity, NOT_IN_PATHS);
                        format!("http://{host}/{entity}/messages/{number}/{lock_token}")
                    });
                    message(StatusCode::CREATED, &received, location)
                }))
            }
            Target::Taken => {
                let wait = timeout(&head.uri)?;
                let mode = ReceiveMode::ReceiveAndDelete;
                let received = self.bus.receive(&entity, mode, wait).await?;
                Ok(received.map_or_else(no_message, |received| {
                    message(StatusCode::OK, &received, None)
                }))
            }
            Target::Completed(lock_token) => {
                self.bus.complete(&entity, lock(&lock_token)?).await?;
                Ok(StatusCode::OK.into_response())
            }
            Target::Abandoned(lock_token) => {
                self.bus.abandon(&entity, lock(&lock_token)?).await?;
                Ok(StatusCode::OK.into_response())
            }
            Target::Renewed(lock_token) => {
                self.bus.renew_lock(&entity, lock(&lock_token)?).await?;
                Ok(StatusCode::OK.into_response())
            }
        }
    }

    async fn send(
        &self,
        entity: &EntityPath,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Response, RestError> {
        let content_type = match headers.get(CONTENT_TYPE) {
            Some(value) => Some(
                value
                    .to_str()
                    .map_err(|_| {
                        RestError::bad_request(
                            "The value of the HTTP header Content-Type is invalid.",
                        )
                    })?
                    .to_owned(),
            ),
            None => None,
        };
        let largest = self.bus.max_message_size();
        let body = body::read(body, largest)
            .await?
            .ok_or_else(|| message_too_large(largest))?;
        let messages = if content_type.as_deref().is_some_and(is_batch) {
            batch::read(&body)?
        } else {
            let mut message = Message {
                body: body.into(),
                content_type,
                properties: custom_properties::read(headers)?,
                ..Message::default()
            };
            if let Some(properties) = headers.get(BROKER_PROPERTIES) {
                let text = String::from_utf8_lossy(properties.as_bytes());
                broker_properties::read_header(&text, &mut message)?;
            }
            vec![message]
        };
        self.bus.send(entity, messages).await?;
        Ok(StatusCode::CREATED.into_response())
    }
}

fn is_batch(content_type: &str) -> bool {
    content_type
        .split(';')
        .next()
        .is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case(batch::MEDIA_TYPE))
}

fn message_too_large(largest: usize) -> RestError {
    RestError::new(
        StatusCode::FORBIDDEN,
        format!("The message is larger than the {largest} bytes that can be sent."),
    )
}

/// What is asked of the data plane. Everything else is asked of the management API, since `messages` may be (part of) the name
/// of an entity or a rule too.
fn target(method: &Method, uri: &Uri) -> Result<Option<(EntityPath, Target)>, RestError> {
    // Split before it is decoded: the id of a message may hold slashes.
    let segments: Vec<String> = uri
        .path()
        .trim_matches('/')
        .split('/')
        .map(|segment| percent_decode_str(segment).decode_utf8_lossy().into_owned())
        .collect();
    let is = |segment: &str, word: &str| segment.eq_ignore_ascii_case(word);
    let (entity, target) = match (method, &segments[..]) {
        (&Method::POST, [entity @ .., messages]) if is(messages, "messages") => {
            (entity, Target::Messages)
        }
        (method, [entity @ .., messages, head]) if is(messages, "messages") && is(head, "head") => {
            let target = match *method {
                Method::POST => Target::Head,
                Method::DELETE => Target::Taken,
                _ => return Ok(None),
            };
            (entity, target)
        }
        (method, [entity @ .., messages, id, token]) if is(messages, "messages") => {
            // A subscription of a topic whose name ends like that; locks have other tokens than it has a name.
            if is(id, "Subscriptions") && lock(token).is_err() {
                return Ok(None);
            }
            let target = match *method {
                Method::DELETE => Target::Completed,
                Method::PUT => Target::Abandoned,
                Method::POST => Target::Renewed,
                _ => return Ok(None),
            };
            (entity, target(token.clone()))
        }
        _ => return Ok(None),
    };
    match entity.join("/").parse() {
        Ok(entity) => Ok(Some((entity, target))),
        // The management API has no `POST`.
        Err(_) if method == Method::POST => {
            Err(RestError::entity_not_found(uri.path().trim_matches('/')))
        }
        Err(_) => Ok(None),
    }
}

fn lock(token: &str) -> Result<Uuid, RestError> {
    token
        .parse()
        .map_err(|_| RestError::from(crate::Error::MessageLockLost))
}

/// That parameter of the query, whatever the case of its name.
fn parameter<'a>(uri: &'a Uri, wanted: &str) -> Option<&'a str> {
    let pairs = uri.query().unwrap_or_default().split('&');
    pairs
        .filter_map(|pair| pair.split_once('='))
        .find(|(name, _)| name.eq_ignore_ascii_case(wanted))
        .map(|(_, value)| value)
}

/// Whether the message is only to be looked at: neither locked nor counted as delivered.
fn peek_only(uri: &Uri) -> Result<bool, RestError> {
    match parameter(uri, "PeekOnly") {
        None => Ok(false),
        Some(value) if value.eq_ignore_ascii_case("false") => Ok(false),
        Some(value) if value.eq_ignore_ascii_case("true") => Ok(true),
        Some(_) => Err(RestError::bad_request(
            "The value of the query parameter PeekOnly is neither true nor false.",
        )),
    }
}

/// The `timeout` of the query, in seconds.
fn timeout(uri: &Uri) -> Result<Duration, RestError> {
    let Some(seconds) = parameter(uri, "timeout") else {
        return Ok(DEFAULT_TIMEOUT);
    };
    match seconds.parse::<u32>() {
        Ok(seconds) => Ok(Duration::from_secs(u64::from(seconds)).min(LONGEST_TIMEOUT)),
        Err(_) => Err(RestError::bad_request(
            "The value of the query parameter timeout is not a number of seconds.",
        )),
    }
}

fn no_message() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

fn message(status: StatusCode, received: &ReceivedMessage, location: Option<String>) -> Response {
    let message = &received.message;
    let mut response = Response::new(Body::from(message.body.data()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    custom_properties::write(&message.properties, headers);
    let known = [
        (CONTENT_TYPE, message.content_type.clone()),
        (BROKER_PROPERTIES, Some(broker_properties::write(received))),
        (LOCATION, location),
    ];
    for (name, value) in known {
        if let Some(Ok(value)) = value.map(HeaderValue::try_from) {
            headers.insert(name, value);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_plane_answers_only_what_it_has() {
        const TOKEN: &str = "0e5a3d4e-6a3c-4f5c-9d2b-3f2f3f0f7c11";
        let asked = |method: &Method, path: &str| {
            let uri: Uri = format!("/{path}").parse().unwrap();
            let asked = target(method, &uri).unwrap_or_else(|_| panic!("{method} {path}"));
            asked.map(|(entity, target)| (entity.to_string(), target))
        };
        let locked = |of: &str| format!("{of}/messages/1/{TOKEN}");
        let token = || TOKEN.to_owned();
        for (method, path, entity, target) in [
            (Method::POST, "q/Messages", "q", Target::Messages),
            (Method::POST, "a/b/messages/", "a/b", Target::Messages),
            (
                Method::POST,
                "q/messages/messages",
                "q/messages",
                Target::Messages,
            ),
            (Method::POST, "q/messages/head", "q", Target::Head),
            (
                Method::DELETE,
                "q/messages/head?timeout=1",
                "q",
                Target::Taken,
            ),
            (
                Method::POST,
                "t/subscriptions/messages/messages/head",
                "t/Subscriptions/messages",
                Target::Head,
            ),
            (
                Method::DELETE,
                &locked("q"),
                "q",
                Target::Completed(token()),
            ),
            (Method::PUT, &locked("q"), "q", Target::Abandoned(token())),
            (
                Method::POST,
                &locked("a/b"),
                "a/b",
                Target::Renewed(token()),
            ),
            (
                Method::PUT,
                "q/messages/1%2F2/none",
                "q",
                Target::Abandoned("none".to_owned()),
            ),
            (
                Method::DELETE,
                &format!("q/messages/Subscriptions/{TOKEN}"),
                "q",
                Target::Completed(token()),
            ),
        ] {
            let wanted = Some((entity.to_owned(), target));
            assert_eq!(asked(&method, path), wanted, "{method} {path}");
        }
        for path in ["q/messages", "q/messages/head", &locked("q")] {
            for method in [Method::GET, Method::PATCH] {
                assert_eq!(asked(&method, path), None, "{method} {path}");
            }
        }
        for path in ["q/messages", "q/messages/head"] {
            assert_eq!(asked(&Method::PUT, path), None, "{path}");
        }
        assert_eq!(asked(&Method::DELETE, "q/messages"), None);
        for path in [
            "messages",
            "messages/head",
            "messages/Subscriptions/s",
            "a/messages/Subscriptions/s",
            "t/Subscriptions/messages",
            "t/Subscriptions/messages/Rules/r",
            "t/Subscriptions/s/Rules/messages",
            "q",
        ] {
            for method in [Method::GET, Method::PUT, Method::DELETE] {
                assert_eq!(asked(&method, path), None, "{method} {path}");
            }
        }
    }

    #[test]
    fn what_is_posted_to_no_entity_is_not_found() {
        for path in [
            "messages",
            "messages/head",
            "t/Subscriptions/messages",
            "$x/messages",
        ] {
            let uri: Uri = format!("/{path}").parse().unwrap();
            let refused = target(&Method::POST, &uri).err();
            let text = format!("{refused:?}");
            assert!(
                text.contains(&format!("'{path}' could not be found")),
                "{text}"
            );
        }
    }

    #[test]
    fn a_receive_waits_as_long_as_it_says_up_to_a_limit() {
        for (query, seconds) in [
            ("", 60),
            ("?timeout=0", 0),
            ("?api-version=2014-01&Timeout=7", 7),
            ("?timeout=300", 300),
            ("?timeout=4294967295", 300),
        ] {
            let uri: Uri = format!("/q/messages/head{query}").parse().unwrap();
            let wait = timeout(&uri).ok();
            assert_eq!(wait, Some(Duration::from_secs(seconds)), "{query}");
        }
    }
}
