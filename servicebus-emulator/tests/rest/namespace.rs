//! A namespace on a free port, and the two ways to talk to it.
//!
//! [`Namespace::start`] serves it until the test ends. The client crate knows only `https://{ns}.servicebus.windows.net`:
//! [`Redirect`] sends its requests to the namespace instead and changes nothing else.

use std::sync::Arc;

use async_trait::async_trait;
use azure_messaging_servicebus::prelude::{QueueClient, TopicClient};
use legacy_azure_core::{
    Body, BytesStream, HttpClient, Request, Response, StatusCode, Url,
    error::{ErrorKind, ResultExt},
    headers::{HeaderName, HeaderValue, Headers},
};
use reqwest::{Client, Method, RequestBuilder};
use servicebus_emulator::{
    Limits, ServiceBus, Topology,
    rest::{self, SharedAccessPolicy},
};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::signatures::sign;

pub(crate) const TOPOLOGY: &str = r#"{ "UserConfig": { "Namespaces": [ {
    "Name": "sbemulatorns",
    "Queues": [
        { "Name": "work", "Properties": { "MaxDeliveryCount": 2, "DefaultMessageTimeToLive": "P1D" } },
        { "Name": "team/a/work" }
    ],
    "Topics": [ { "Name": "orders", "Properties": {}, "Subscriptions": [
        { "Name": "all" },
        { "Name": "red", "Rules": [ { "Name": "red", "Properties": {
            "FilterType": "Sql",
            "SqlFilter": { "SqlExpression": "colour = 'red' OR sys.Label = 'red'" },
            "Action": { "SqlExpression": "SET painted = TRUE; REMOVE draft" }
        } } ] }
    ] } ]
} ] } }"#;

pub(crate) struct Namespace {
    pub(crate) url: String,
    pub(crate) http: Client,
    pub(crate) bus: ServiceBus,
    server: JoinHandle<()>,
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Namespace {
    pub(crate) async fn start() -> Self {
        Self::with_quota(Limits::default().entity_quota).await
    }

    /// Each entity takes so many bytes of messages.
    pub(crate) async fn with_quota(quota: u64) -> Self {
        let topology = Topology::parse(TOPOLOGY, "test topology").unwrap();
        let limits = Limits {
            entity_quota: quota,
            ..Limits::default()
        };
        let bus = ServiceBus::open_with(&topology, None, limits).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = rest::router(bus.clone(), SharedAccessPolicy::default());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            url,
            http: Client::new(),
            bus,
            server,
        }
    }

    /// A signed request.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.unsigned(method, path)
            .header("authorization", sign(&self.url))
    }

    pub(crate) fn unsigned(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}/{path}", self.url))
    }

    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.request(Method::POST, path)
    }

    /// Takes the next message of the entity for good; it must be there.
    pub(crate) async fn take(&self, entity: &str) -> reqwest::Response {
        let path = format!("{entity}/messages/head?timeout=0");
        let response = self.request(Method::DELETE, &path).send().await.unwrap();
        assert_eq!(response.status(), 200, "a message in {entity}");
        response
    }

    pub(crate) async fn is_empty(&self, entity: &str) -> bool {
        let path = format!("{entity}/messages/head?timeout=0");
        let response = self.request(Method::DELETE, &path).send().await.unwrap();
        response.status() == 204
    }

    pub(crate) async fn lock(&self, entity: &str) -> reqwest::Response {
        let path = format!("{entity}/messages/head?timeout=0");
        let response = self.post(&path).send().await.unwrap();
        assert_eq!(response.status(), 201, "a message in {entity}");
        response
    }

    pub(crate) fn queue(&self, name: &str) -> QueueClient {
        let SharedAccessPolicy { name: policy, key } = SharedAccessPolicy::default();
        QueueClient::new(self.redirect(), "sbemulatorns", name, policy, key).unwrap()
    }

    pub(crate) fn topic(&self, name: &str) -> TopicClient {
        let SharedAccessPolicy { name: policy, key } = SharedAccessPolicy::default();
        TopicClient::new(self.redirect(), "sbemulatorns", name, policy, key).unwrap()
    }

    fn redirect(&self) -> Arc<Redirect> {
        Arc::new(Redirect {
            base: Url::parse(&self.url).unwrap(),
            http: self.http.clone(),
        })
    }
}

/// The JSON of the BrokerProperties header.
pub(crate) fn broker_properties(response: &reqwest::Response) -> serde_json::Value {
    serde_json::from_str(header(response, "brokerproperties").unwrap()).unwrap()
}

pub(crate) fn header<'a>(response: &'a reqwest::Response, name: &str) -> Option<&'a str> {
    Some(response.headers().get(name)?.to_str().unwrap())
}

#[derive(Debug)]
struct Redirect {
    base: Url,
    http: Client,
}

#[async_trait]
impl HttpClient for Redirect {
    async fn execute_request(&self, request: &Request) -> legacy_azure_core::Result<Response> {
        let mut url = self.base.clone();
        url.set_path(request.url().path());
        url.set_query(request.url().query());
        let method = Method::from_bytes(request.method().as_ref().as_bytes()).unwrap();
        let mut builder = self.http.request(method, url);
        for (name, value) in request.headers().iter() {
            builder = builder.header(name.as_str(), value.as_str());
        }
        let Body::Bytes(body) = request.body() else {
            panic!("the client sends bodies from memory")
        };
        let response = builder
            .body(body.clone())
            .send()
            .await
            .context(ErrorKind::Io, "the request failed")?;
        let status = StatusCode::try_from(response.status().as_u16()).unwrap();
        let mut headers = Headers::new();
        for (name, value) in response.headers() {
            let value = value.to_str().unwrap().to_owned();
            headers.insert(
                HeaderName::from(name.as_str().to_owned()),
                HeaderValue::from(value),
            );
        }
        let body = response
            .bytes()
            .await
            .context(ErrorKind::Io, "the answer was cut off")?;
        Ok(Response::new(
            status,
            headers,
            Box::pin(BytesStream::new(body)),
        ))
    }
}
