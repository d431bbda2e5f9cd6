//! The HTTP functions: finds the function of a request and passes the request to the handler.
//!
//! As in the host, a path or method that no function has is 404, and a request waits while the handler starts
//! again. Requests are read whole (up to 100 MB) before they are passed on; answers are streamed.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use jiff::Timestamp;
use uuid::Uuid;

use crate::{
    console,
    function_json::{Function, HttpTrigger, Trigger},
    handler_client::{Chunked, InFlightBody},
    host_json::HttpMode,
    http_envelope::{IncomingRequest, http_envelope, http_output},
    invocation::{Failure, HOST_VERSION, Invoker},
    route::Parameters,
};

/// The host's limit for request bodies.
const MOST_BYTES: usize = 100 * 1024 * 1024;

/// How often a proxied request is tried again when no connection can be made.
const PROXY_RETRIES: u32 = 10;

/// The reason that the host gives for HTTP and for runs by hand.
pub const REASON: &str = "This function was programmatically called via the host APIs.";

/// The HTTP functions under their routes.
#[derive(Debug)]
pub struct FrontDoor {
    functions: Vec<(String, HttpTrigger)>,
    prefix: String,
    mode: HttpMode,
    invoker: Arc<Invoker>,
}

impl FrontDoor {
    /// Takes the HTTP functions that are not disabled, in the order in which their routes are tried.
    pub fn new(
        functions: &[Function],
        prefix: &str,
        mode: HttpMode,
        invoker: Arc<Invoker>,
    ) -> Self {
        let mut http: Vec<_> = functions
            .iter()
            .filter(|function| !function.disabled)
            .filter_map(|function| match &function.trigger {
                Trigger::Http(trigger) => Some((function.name.clone(), trigger.clone())),
                Trigger::ServiceBus(_) | Trigger::Timer(_) => None,
            })
            .collect();
        http.sort_by(|(_, a), (_, b)| a.route.precedence(&b.route));
        Self {
            functions: http,
            prefix: prefix.to_owned(),
            mode,
            invoker,
        }
    }

    /// Answers a request to any path that is not devhost's own.
    ///
    /// When the caller goes away, a proxied request is given up; otherwise the handler finishes, as in the host.
    pub async fn answer(self: Arc<Self>, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let Some((index, parameters)) = self.find(&parts) else {
            if parts.method == Method::GET && parts.uri.path() == "/" {
                return "The app is up and running.\n".into_response();
            }
            return StatusCode::NOT_FOUND.into_response();
        };
        let Ok(body) = axum::body::to_bytes(body, MOST_BYTES).await else {
            return (
                StatusCode::PAYLOAD_TOO_LARGE,
                "The request could not be read whole, or is larger than 100 MB.\n",
            )
                .into_response();
        };
        let request = IncomingRequest {
            method: parts.method,
            uri: parts.uri,
            headers: parts.headers,
            parameters,
            body,
        };
        let mode = self.mode;
        let answered = match mode {
            HttpMode::Proxying => self.invoke(index, &request).await,
            HttpMode::Forwarding | HttpMode::Envelope => {
                tokio::spawn(async move { self.invoke(index, &request).await })
                    .await
                    .unwrap_or_else(|error| Err(Failure::Failed(error.to_string())))
            }
        };
        answered.unwrap_or_else(|failure| failed(mode, &failure))
    }

    async fn invoke(&self, index: usize, request: &IncomingRequest) -> Result<Response, Failure> {
        let (function, trigger) = &self.functions[index];
        match self.mode {
            HttpMode::Proxying => {
                let pass = |id| self.pass(request, id, proxied_headers(&request.headers, id));
                self.invoker.run(function, REASON, "", pass).await
            }
            HttpMode::Forwarding => {
                let pass = |id| async move { self.forward(request, id).await };
                self.invoker.run(function, REASON, "", pass).await
            }
            HttpMode::Envelope => {
                let exchange = |id| self.exchange(function, trigger, request, id);
                self.invoker.run(function, REASON, "", exchange).await
            }
        }
    }

    /// The index of the function, and what its route found in the path.
    fn find(&self, parts: &Parts) -> Option<(usize, Parameters)> {
        let path = below_prefix(parts.uri.path(), &self.prefix)?;
        self.functions
            .iter()
            .enumerate()
            .find_map(|(index, (_, trigger))| {
                let takes = trigger
                    .methods
                    .as_ref()
                    .is_none_or(|methods| methods.contains(&parts.method));
                let parameters = trigger.route.matches(path)?;
                takes.then_some((index, parameters))
            })
    }

    /// Proxying (YARP): streams the answer, and tries again when no connection can be made.
    async fn pass(
        &self,
        request: &IncomingRequest,
        id: Uuid,
        headers: HeaderMap,
    ) -> Result<Response, Failure> {
        let mut pause = Duration::from_millis(50);
        let mut tries = 0;
        loop {
            let response = self
                .invoker
                .client
                .send(outgoing(request, headers.clone(), id))
                .await;
            match response {
                Ok(mut response) => {
                    remove_hop_by_hop(response.headers_mut());
                    let in_flight = self.invoker.client.enter();
                    return Ok(response.map(|body| InFlightBody::body(body, in_flight)));
                }
                Err(error) if error.is_connect() && tries < PROXY_RETRIES => {
                    tries += 1;
                    tokio::time::sleep(pause).await;
                    pause = (2 * pause).min(Duration::from_millis(250));
                }
                Err(error) => {
                    return Err(Failure::Failed(format!(
                        "Microsoft.Azure.WebJobs.Script.Exceptions.HttpForwardingException: \
                         Failed to proxy request with ForwarderError: Request. {error}"
                    )));
                }
            }
        }
    }

    /// Forwarding: copies the request with its headers and relays the whole answer.
    async fn forward(&self, request: &IncomingRequest, id: Uuid) -> Result<Response, Failure> {
        if request.headers.contains_key(header::TRANSFER_ENCODING) {
            return Err(Failure::Failed(
                "System.Net.Http.HttpRequestException: 'Transfer-Encoding: chunked' header can not be used when \
                 content object is not specified. (Forwarding takes no chunked requests; proxying does.)"
                    .to_owned(),
            ));
        }
        let broken = |error: &dyn std::error::Error| {
            Failure::Failed(format!("System.Net.Http.HttpRequestException: {error}"))
        };
        let outgoing = outgoing(request, forwarded_headers(&request.headers), id);
        let response = self
            .invoker
            .client
            .send(outgoing)
            .await
            .map_err(|error| broken(&error))?;
        let (mut parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX)
            .await
            .map_err(|error| broken(&error))?;
        remove_hop_by_hop(&mut parts.headers);
        Ok(Response::from_parts(parts, Body::from(body)))
    }

    async fn exchange(
        &self,
        function: &str,
        trigger: &HttpTrigger,
        request: &IncomingRequest,
        id: Uuid,
    ) -> Result<Response, Failure> {
        let envelope = http_envelope(function, &trigger.name, request, Timestamp::now());
        let result = self.invoker.exchange(function, id, &envelope).await?;
        let output = http_output(&result, &trigger.output).map_err(Failure::Failed)?;
        let mut response = Response::new(Body::from(output.body));
        *response.status_mut() = StatusCode::from_u16(output.status).unwrap_or_default();
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        for (name, value) in output.headers {
            match (name.parse::<HeaderName>(), value.parse()) {
                (Ok(name), Ok(value)) => {
                    response.headers_mut().insert(name, value);
                }
                _ => return Err(Failure::Failed(format!("the header `{name}` is not valid"))),
            }
        }
        Ok(response)
    }
}

/// What follows the prefix, which is compared without case.
fn below_prefix<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    if prefix.is_empty() {
        return Some(path);
    }
    let path = path.strip_prefix('/')?;
    let (start, rest) = (path.get(..prefix.len())?, path.get(prefix.len()..)?);
    (start.eq_ignore_ascii_case(prefix) && (rest.is_empty() || rest.starts_with('/')))
        .then_some(rest)
}

fn outgoing(request: &IncomingRequest, mut headers: HeaderMap, id: Uuid) -> Request {
    headers.insert(
        "x-azure-functions-hostversion",
        HeaderValue::from_static(HOST_VERSION),
    );
    if let Ok(id) = HeaderValue::try_from(id.to_string()) {
        headers.insert("x-azure-functions-invocationid", id);
    }
    let body = if request.has_length() {
        Body::from(request.body.clone())
    } else if request.body.is_empty() {
        Body::empty()
    } else {
        Chunked::body(request.body.clone())
    };
    let mut outgoing = Request::new(body);
    *outgoing.method_mut() = request.method.clone();
    *outgoing.uri_mut() = request.uri.clone();
    *outgoing.headers_mut() = headers;
    outgoing
}

/// As YARP's default transformer leaves them: another Host, `X-Forwarded-*`, nothing hop by hop.
fn proxied_headers(incoming: &HeaderMap, id: Uuid) -> HeaderMap {
    let mut headers = incoming.clone();
    remove_hop_by_hop(&mut headers);
    if let Some(host) = headers.remove(header::HOST) {
        headers.insert("x-forwarded-host", host);
    }
    let client = SocketAddr::from(([127, 0, 0, 1], 0)).ip().to_string();
    if let (Ok(client), Ok(id)) = (
        HeaderValue::try_from(client),
        HeaderValue::try_from(id.to_string()),
    ) {
        headers.insert("x-forwarded-for", client);
        headers.insert("x-ms-invocation-id", id);
    }
    headers.insert("x-forwarded-proto", HeaderValue::from_static("http"));
    headers
}

/// All of them, Host included, but of those that describe the body only two; the host adds itself to User-Agent.
fn forwarded_headers(incoming: &HeaderMap) -> HeaderMap {
    let mut headers = incoming.clone();
    for name in [
        header::CONTENT_ENCODING,
        header::CONTENT_LANGUAGE,
        header::CONTENT_DISPOSITION,
        header::CONTENT_LOCATION,
        header::CONTENT_RANGE,
        header::EXPECT,
        header::CONNECTION,
    ] {
        headers.remove(name);
    }
    let host = format!("Azure-Functions-Host/{HOST_VERSION}");
    let agent = match headers
        .get(header::USER_AGENT)
        .and_then(|agent| agent.to_str().ok())
    {
        Some(agent) => format!("{agent} {host}"),
        None => host,
    };
    if let Ok(agent) = HeaderValue::try_from(agent) {
        headers.insert(header::USER_AGENT, agent);
    }
    headers
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    for name in [
        header::CONNECTION,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ] {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers.remove(header::EXPECT);
}

/// The real host answers an empty 500 (502 when proxying); the words are for the person at the terminal.
fn failed(mode: HttpMode, failure: &Failure) -> Response {
    console::error("The caller gets no answer of the handler.");
    let status = match mode {
        HttpMode::Proxying => StatusCode::BAD_GATEWAY,
        HttpMode::Forwarding | HttpMode::Envelope => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, Bytes::from(format!("{}\n", failure.words()))).into_response()
}
