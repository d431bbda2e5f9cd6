//! An HTTP server on a free port of this machine that answers by a script and hands over what it received.
//!
//! The last reply of the script repeats; [`ScriptedServer::reply_once`] comes before it. The server ends with its value.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

#[derive(Clone)]
pub(crate) enum Reply {
    Answer {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: String,
    },
    Echo(u16),
    /// Repeats the whole request wherever a service's error has words: the errors of everybody we talk to, in one.
    Mirror(u16),
    Hang,
    /// Waits until somebody says so, then answers.
    Held(Arc<Notify>, u16, String),
}

impl Reply {
    pub(crate) fn status(status: u16) -> Self {
        Self::text(status, "")
    }

    pub(crate) fn text(status: u16, body: &str) -> Self {
        Self::Answer {
            status,
            headers: vec![],
            body: body.to_owned(),
        }
    }

    pub(crate) fn with_header(status: u16, name: &'static str, value: impl Into<String>) -> Self {
        Self::Answer {
            status,
            headers: vec![(name, value.into())],
            body: String::new(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) method: String,
    pub(crate) path_and_query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    /// Tells connections apart.
    pub(crate) peer: SocketAddr,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("a JSON body")
    }
}

pub(crate) struct ScriptedServer {
    pub(crate) address: SocketAddr,
    received: tokio::sync::Mutex<mpsc::UnboundedReceiver<Received>>,
    once: Arc<Mutex<VecDeque<Reply>>>,
    task: JoinHandle<()>,
}

#[derive(Clone)]
struct Script {
    once: Arc<Mutex<VecDeque<Reply>>>,
    replies: Arc<Mutex<VecDeque<Reply>>>,
    received: mpsc::UnboundedSender<Received>,
}

impl ScriptedServer {
    pub(crate) async fn start(replies: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, received) = mpsc::unbounded_channel();
        let once = Arc::new(Mutex::new(VecDeque::new()));
        let script = Script {
            once: once.clone(),
            replies: Arc::new(Mutex::new(replies.into_iter().collect())),
            received: sender,
        };
        let router = Router::new().fallback(answer).with_state(script);
        let task = tokio::spawn(async move {
            axum::serve(
                listener,
                router.into_make_service_with_connect_info::<SocketAddr>(),
            )
            .await
            .unwrap();
        });
        Self {
            address,
            received: tokio::sync::Mutex::new(received),
            once,
            task,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next request is answered with this, before the script goes on.
    pub(crate) fn reply_once(&self, reply: Reply) {
        self.once.lock().unwrap().push_back(reply);
    }

    /// The next request that came in, waiting for it.
    pub(crate) async fn next(&self) -> Received {
        let mut received = self.received.lock().await;
        received.recv().await.expect("the server runs")
    }

    /// What was received and not yet taken.
    pub(crate) fn rest(&self) -> Vec<Received> {
        let mut received = self.received.try_lock().expect("nobody waits");
        std::iter::from_fn(|| received.try_recv().ok()).collect()
    }
}

impl Drop for ScriptedServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    State(script): State<Script>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let echo = format!("<Error><Detail>{:?}</Detail></Error>", head.headers);
    let mirror = mirror(&head.headers, &body);
    let once = script.once.lock().unwrap().pop_front();
    let reply = once.unwrap_or_else(|| {
        let mut replies = script.replies.lock().unwrap();
        if replies.len() > 1 {
            replies.pop_front().unwrap()
        } else {
            replies.front().expect("a script has a reply").clone()
        }
    });
    // Fails only when the test no longer wants to know.
    let _ = script.received.send(Received {
        method: head.method.to_string(),
        path_and_query: head.uri.to_string(),
        headers: head.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
        peer,
    });
    match reply {
        Reply::Answer {
            status,
            headers,
            body,
        } => {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            response.body(Body::from(body)).unwrap()
        }
        Reply::Echo(status) => Response::builder()
            .status(status)
            .body(Body::from(echo))
            .unwrap(),
        Reply::Mirror(status) => Response::builder()
            .status(status)
            .header("content-type", "application/problem+json")
            .body(Body::from(mirror))
            .unwrap(),
        Reply::Hang => std::future::pending().await,
        Reply::Held(release, status, body) => {
            release.notified().await;
            Response::builder()
                .status(status)
                .body(Body::from(body))
                .unwrap()
        }
    }
}

fn mirror(headers: &HeaderMap, body: &[u8]) -> String {
    let said = format!("{headers:?} {}", String::from_utf8_lossy(body));
    let error =
        json!({ "category": said, "code": said, "detail": said, "field": said, "message": said });
    json!({
        "error": error, "errors": [error], "error_description": said, "name": said, "message": said,
        "type": said, "title": said, "code": said, "detail": said, "status": said, "id": said,
    })
    .to_string()
}
