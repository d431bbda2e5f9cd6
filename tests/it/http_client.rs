//! Which way a request leaves.

use orderup::config::Settings;
use orderup::http_client::outgoing;

use crate::scripted_server::{Reply, ScriptedServer};

#[tokio::test]
async fn https_goes_through_the_proxy_and_plain_http_does_not() {
    let proxy = ScriptedServer::start([Reply::status(502)]).await;
    let local = ScriptedServer::start([Reply::status(200)]).await;
    let client = outgoing(&Settings::from_pairs([
        ("HTTPS_PROXY", &proxy.url()),
        ("NO_PROXY", "inside.invalid"),
    ]))
    .unwrap();

    client.get(local.url()).send().await.unwrap();
    assert_eq!(local.next().await.method, "GET");

    client
        .get("https://inside.invalid/")
        .send()
        .await
        .unwrap_err();
    client
        .get("https://outside.invalid/")
        .send()
        .await
        .unwrap_err();
    let seen: Vec<_> = proxy
        .rest()
        .into_iter()
        .map(|request| (request.method, request.path_and_query))
        .collect();
    assert_eq!(
        seen,
        [("CONNECT".to_owned(), "outside.invalid:443".to_owned())]
    );
}
