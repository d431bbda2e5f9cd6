//! Requests to the REST data plane of the same namespace.

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use reqwest::{Client, Method, Response};
use sha2::Sha256;

use crate::{
    emulator::{KEY, KEY_NAME},
    stage::Stage,
};

/// Far enough in the future.
const EXPIRY: &str = "4102444800";

/// Sends the request, authorised; `headers` are added.
pub async fn request(
    stage: &Stage,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Response {
    let base = format!("http://127.0.0.1:{}", stage.emulator.http_port);
    let token = shared_access_signature(&base);
    let client = Client::builder().no_proxy().build().expect("a client");
    let mut request = client
        .request(method, format!("{base}/{path}"))
        .header("authorization", token)
        .body(body.to_owned());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.expect("an answer")
}

/// The token that opens a resource and what is below it.
pub fn shared_access_signature(resource: &str) -> String {
    let resource = urlencoding::encode(resource);
    let signature = Hmac::<Sha256>::new_from_slice(KEY.as_bytes())
        .expect("a key of any length will do")
        .chain_update(format!("{resource}\n{EXPIRY}"))
        .finalize()
        .into_bytes();
    let signature = STANDARD.encode(signature);
    format!(
        "SharedAccessSignature sr={resource}&sig={}&se={EXPIRY}&skn={KEY_NAME}",
        urlencoding::encode(&signature)
    )
}
