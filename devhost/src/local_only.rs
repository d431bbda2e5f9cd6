//! Keeps web pages away from the admin API and from `/_dev/`.
//!
//! Any page that a browser shows can send requests to 127.0.0.1, under a name of its own as well (DNS rebinding). So
//! only a Host that means this machine is answered, and no page that comes from elsewhere; the rest gets a 403.

use axum::{
    extract::Request,
    http::{HeaderMap, StatusCode, header, uri::Authority},
    middleware::Next,
    response::Response,
};

use crate::json_response::problem;

/// Middleware of what is for people at this machine only.
pub(crate) async fn local_only(request: Request, next: Next) -> Response {
    match refusal(request.headers()) {
        Some(why) => problem(StatusCode::FORBIDDEN, why),
        None => next.run(request).await,
    }
}

fn refusal(headers: &HeaderMap) -> Option<&'static str> {
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let Some(host) = host.filter(|host| is_local(host)) else {
        return Some("the Host must be localhost, 127.0.0.1 or [::1]");
    };
    let is_foreign = |origin: &str| {
        !origin
            .strip_prefix("http://")
            .is_some_and(|origin| origin.eq_ignore_ascii_case(host))
    };
    headers
        .get_all(header::ORIGIN)
        .iter()
        .any(|origin| origin.to_str().map_or(true, is_foreign))
        .then_some("web pages of another origin have no access here")
}

fn is_local(host: &str) -> bool {
    host.parse::<Authority>().is_ok_and(|authority| {
        ["localhost", "127.0.0.1", "[::1]"]
            .iter()
            .any(|name| authority.host().eq_ignore_ascii_case(name))
    })
}
