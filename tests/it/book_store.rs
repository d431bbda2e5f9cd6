//! The order book in a container: what goes over the wire to Azure, and what its answers come to.

use std::process::Stdio;
use std::time::{Duration, Instant};

use orderup::book_store::{BookStore, Put, StoreError, with_page_size};
use orderup::config::Settings;
use orderup::http_client;

use crate::scripted_server::{Received, Reply, ScriptedServer};

const PATH: &str = "orders/1/placed.json";

fn with_error(status: u16, code: &str) -> Reply {
    Reply::with_header(status, "x-ms-error-code", code)
}

fn connected(connection: &str) -> BookStore {
    let settings = Settings::from_pairs([("AzureWebJobsStorage", connection)]);
    let http = http_client::outgoing(&settings).unwrap();
    BookStore::from_settings(&settings, &http).unwrap().unwrap()
}

/// With a key, and the account in the path, as in Azurite.
fn store(server: &ScriptedServer) -> BookStore {
    connected(&format!(
        "AccountName=contoso;AccountKey=aGlkZGVu;BlobEndpoint={}/contoso",
        server.url()
    ))
}

async fn put_after(
    replies: impl IntoIterator<Item = Reply>,
) -> (Result<Put, StoreError>, Vec<Received>) {
    let server = ScriptedServer::start(replies).await;
    let result = store(&server).put_once(PATH, "{}").await;
    (result, server.rest())
}

fn is_unavailable<T>(result: &Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::Unavailable { .. }))
}

/// Lets time pass without waiting.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

fn page(names: &[&str], marker: &str) -> Reply {
    let blobs: String = names
        .iter()
        .map(|name| {
            format!(
                "<Blob><Name>{name}</Name><Properties><Last-Modified>Wed, 25 Nov 2026 12:00:00 GMT</Last-Modified>\
                 <Content-Length>7</Content-Length></Properties></Blob>"
            )
        })
        .collect();
    Reply::text(
        200,
        &format!(
            "<EnumerationResults><Blobs>{blobs}</Blobs><NextMarker>{marker}</NextMarker></EnumerationResults>"
        ),
    )
}

#[tokio::test]
async fn a_write_is_a_block_blob_that_must_not_exist_yet() {
    let (result, requests) = put_after([Reply::status(201)]).await;
    assert_eq!(result, Ok(Put::Created));
    let [request] = &requests[..] else {
        panic!("{requests:?}");
    };
    assert_eq!(request.method, "PUT");
    assert_eq!(
        request.path_and_query,
        "/contoso/order-book/orders/1/placed.json"
    );
    assert_eq!(request.body, "{}");
    for (name, value) in [
        ("if-none-match", "*"),
        ("x-ms-blob-type", "BlockBlob"),
        ("x-ms-version", "2023-11-03"),
        ("content-type", "application/json"),
        ("content-length", "2"),
    ] {
        assert_eq!(request.header(name), value, "{name}");
    }
    assert!(httpdate::parse_http_date(request.header("x-ms-date")).is_ok());
    let authorization = request.header("authorization");
    assert!(
        authorization.starts_with("SharedKey contoso:"),
        "{authorization}"
    );
}

#[tokio::test]
async fn an_object_that_is_there_is_left_alone() {
    for reply in [
        with_error(409, "BlobAlreadyExists"),
        with_error(412, "ConditionNotMet"),
        with_error(403, "UnauthorizedBlobOverwrite"),
    ] {
        let (result, requests) = put_after([reply]).await;
        assert_eq!(result, Ok(Put::Existed));
        assert_eq!(requests.len(), 1);
    }
}

#[tokio::test]
async fn another_conflict_is_no_object() {
    let (result, _) = put_after([with_error(409, "BlobImmutableDueToPolicy")]).await;
    let reason = "409 BlobImmutableDueToPolicy".to_owned();
    assert_eq!(result, Err(StoreError::Refused { reason }));
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_finds_its_own_object() {
    let (result, requests) =
        put_after([Reply::status(500), with_error(409, "BlobAlreadyExists")]).await;
    assert_eq!(result, Ok(Put::Existed));
    assert_eq!(requests.len(), 2);
}

#[tokio::test]
async fn the_container_is_created_by_the_first_write() {
    for created in [
        Reply::status(201),
        // Another instance was quicker.
        with_error(409, "ContainerAlreadyExists"),
    ] {
        let (result, requests) = put_after([
            with_error(404, "ContainerNotFound"),
            created,
            Reply::status(201),
        ])
        .await;
        assert_eq!(result, Ok(Put::Created));
        let creation = &requests[1];
        assert_eq!(creation.method, "PUT");
        assert_eq!(
            creation.path_and_query,
            "/contoso/order-book?restype=container"
        );
        assert_eq!(creation.header("content-length"), "0");
        // Private.
        assert!(!creation.headers.contains_key("x-ms-blob-public-access"));
        assert_eq!(requests[2].path_and_query, requests[0].path_and_query);
        assert_eq!(requests.len(), 3);
    }
}

#[tokio::test]
async fn a_container_that_is_being_deleted_is_an_outage_and_one_that_may_not_be_created_is_not() {
    let absent = || with_error(404, "ContainerNotFound");
    let (result, _) = put_after([absent(), with_error(409, "ContainerBeingDeleted")]).await;
    assert!(is_unavailable(&result), "{result:?}");
    let (result, _) =
        put_after([absent(), with_error(403, "AuthorizationPermissionMismatch")]).await;
    let reason = "403 AuthorizationPermissionMismatch".to_owned();
    assert_eq!(result, Err(StoreError::Unauthorized { reason }));
    let (result, requests) = put_after([absent(), Reply::status(201), absent()]).await;
    assert!(is_unavailable(&result), "{result:?}");
    assert_eq!(requests.len(), 3);
}

#[tokio::test]
async fn what_may_be_over_at_once_is_tried_once_more() {
    for status in [500, 503, 429, 408] {
        let (result, requests) = put_after([Reply::status(status), Reply::status(201)]).await;
        assert_eq!(result, Ok(Put::Created), "{status}");
        assert_eq!(requests.len(), 2, "{status}");
    }
    let (result, requests) = put_after([with_error(503, "ServerBusy")]).await;
    let reason = "503 ServerBusy".to_owned();
    assert_eq!(result, Err(StoreError::Unavailable { reason }));
    assert_eq!(requests.len(), 2);
}

#[tokio::test]
async fn a_no_is_not_asked_again() {
    for (status, code) in [
        (403, "AuthenticationFailed"),
        (401, "NoAuthenticationInformation"),
    ] {
        let (result, requests) = put_after([with_error(status, code)]).await;
        let reason = format!("{status} {code}");
        assert_eq!(result, Err(StoreError::Unauthorized { reason }));
        assert_eq!(requests.len(), 1);
    }
    let (result, requests) = put_after([with_error(400, "InvalidHeaderValue")]).await;
    let reason = "400 InvalidHeaderValue".to_owned();
    assert_eq!(result, Err(StoreError::Refused { reason }));
    assert_eq!(requests.len(), 1);
}

#[tokio::test]
async fn silence_is_waited_for_less_than_four_seconds_and_a_closed_port_not_at_all() {
    let started = Instant::now();
    let (result, requests) = put_after([Reply::Hang]).await;
    assert!(is_unavailable(&result), "{result:?}");
    assert_eq!(requests.len(), 2);
    let waited = started.elapsed();
    assert!((2..4).contains(&waited.as_secs()), "{waited:?}");

    let server = ScriptedServer::start([Reply::Hang]).await;
    let store = store(&server);
    drop(server);
    tokio::task::yield_now().await;
    let started = Instant::now();
    let result = store.get(PATH).await;
    let error = result.unwrap_err().to_string();
    assert!(error.contains("no connection"), "{error}");
    assert!(
        !error.contains("order-book") && !error.contains("contoso"),
        "{error}"
    );
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn an_object_is_read_or_is_absent() {
    let server = ScriptedServer::start([
        Reply::text(200, r#"{"order":1}"#),
        with_error(404, "BlobNotFound"),
        with_error(404, "ContainerNotFound"),
        // Not a storage account.
        Reply::status(404),
        Reply::text(200, &"x".repeat(8 * 1024 * 1024 + 1)),
    ])
    .await;
    let store = store(&server);
    assert_eq!(store.get(PATH).await, Ok(Some(r#"{"order":1}"#.into())));
    assert_eq!(store.get(PATH).await, Ok(None));
    assert_eq!(store.get(PATH).await, Ok(None));
    for _ in 0..2 {
        let error = store.get(PATH).await.unwrap_err();
        assert!(matches!(error, StoreError::Refused { .. }), "{error}");
    }
    let request = server.next().await;
    assert_eq!(request.method, "GET");
    assert_eq!(
        request.path_and_query,
        "/contoso/order-book/orders/1/placed.json"
    );
    assert!(!request.headers.contains_key("if-none-match"));
}

#[tokio::test]
async fn what_is_not_there_is_taken_away_as_well() {
    let server = ScriptedServer::start([
        Reply::status(202),
        with_error(404, "BlobNotFound"),
        with_error(404, "ContainerNotFound"),
        with_error(409, "SnapshotsPresent"),
    ])
    .await;
    let store = store(&server);
    for _ in 0..3 {
        assert_eq!(store.delete(PATH).await, Ok(()));
    }
    assert!(store.delete(PATH).await.is_err());
    let request = server.next().await;
    assert_eq!(request.method, "DELETE");
    assert_eq!(
        request.path_and_query,
        "/contoso/order-book/orders/1/placed.json"
    );
}

#[tokio::test]
async fn a_list_is_read_page_by_page() {
    let server = ScriptedServer::start([
        page(&["outbox/1", "outbox/2"], "to&amp;fro=="),
        // A page may be empty and not be the last one.
        page(&[], "3"),
        page(&["outbox/4"], ""),
    ])
    .await;
    let store = with_page_size(store(&server), 2);
    let listed = store.list("outbox").await.unwrap();
    let paths: Vec<_> = listed.iter().map(|object| object.path.as_str()).collect();
    assert_eq!(paths, ["outbox/1", "outbox/2", "outbox/4"]);
    assert_eq!(listed[0].size, 7);
    let asked: Vec<_> = server
        .rest()
        .into_iter()
        .map(|request| request.path_and_query)
        .collect();
    assert_eq!(
        asked,
        [
            "/contoso/order-book?comp=list&maxresults=2&prefix=outbox%2F&restype=container",
            "/contoso/order-book?comp=list&marker=to%26fro%3D%3D&maxresults=2&prefix=outbox%2F&restype=container",
            "/contoso/order-book?comp=list&marker=3&maxresults=2&prefix=outbox%2F&restype=container",
        ]
    );
}

#[tokio::test]
async fn no_more_is_listed_than_was_wanted() {
    let server = ScriptedServer::start([page(&["a/1", "a/2"], "2"), page(&["a/3"], "3")]).await;
    let store = with_page_size(store(&server), 2);
    assert_eq!(store.list_first("a", 3).await.unwrap().len(), 3);
    let sizes: Vec<_> = server
        .rest()
        .into_iter()
        .map(|request| request.path_and_query.contains("&maxresults=2&"))
        .collect();
    assert_eq!(sizes, [true, false]);
}

#[tokio::test]
async fn a_list_that_is_none_is_an_outage() {
    for reply in [
        Reply::text(200, "<html>Welcome to the hotel's network</html>"),
        // The same page for ever.
        page(&["a"], "1"),
    ] {
        let server = ScriptedServer::start([reply]).await;
        let result = store(&server).list("").await;
        assert!(is_unavailable(&result), "{result:?}");
    }
    let server = ScriptedServer::start([with_error(404, "ContainerNotFound")]).await;
    assert_eq!(store(&server).list("").await, Ok(vec![]));
}

#[tokio::test]
async fn a_signature_goes_into_the_query_and_nowhere_else() {
    let server =
        ScriptedServer::start([Reply::status(201), page(&[], ""), Reply::status(403)]).await;
    let store = connected(&format!(
        "BlobEndpoint={};SharedAccessSignature=?sv=2024-11-04&sp=rwdl&sig=hid%2Fden%3D",
        server.url()
    ));
    store.put_once(PATH, "{}").await.unwrap();
    store.list("").await.unwrap();
    let error = store.get(PATH).await.unwrap_err();
    let printed = format!("{store:?} {error:?} {error}");
    assert!(
        !printed.contains("sig") && !printed.contains("hid"),
        "{printed}"
    );
    let requests = server.rest();
    assert_eq!(
        requests[0].path_and_query,
        "/order-book/orders/1/placed.json?sv=2024-11-04&sp=rwdl&sig=hid%2Fden%3D"
    );
    assert_eq!(
        requests[1].path_and_query,
        "/order-book?comp=list&maxresults=5000&restype=container&sv=2024-11-04&sp=rwdl&sig=hid%2Fden%3D"
    );
    assert!(!requests[0].headers.contains_key("authorization"));
}

#[tokio::test]
async fn a_book_that_is_down_is_asked_once_in_ten_seconds() {
    let server = ScriptedServer::start([with_error(403, "AuthorizationFailure")]).await;
    let store = store(&server);
    for _ in 0..3 {
        let error = store.put_once(PATH, "{}").await.unwrap_err();
        assert!(matches!(error, StoreError::Unauthorized { .. }), "{error}");
    }
    for _ in 0..20 {
        assert_eq!(store.put_once(PATH, "{}").await, Err(StoreError::Paused));
        assert_eq!(store.delete(PATH).await, Err(StoreError::Paused));
    }
    assert_eq!(server.rest().len(), 3);
    // It may be read all the same.
    server.reply_once(Reply::text(200, "{}"));
    assert!(store.get(PATH).await.unwrap().is_some());
    assert_eq!(store.put_once(PATH, "{}").await, Err(StoreError::Paused));
    assert_eq!(server.rest().len(), 1);

    pass(Duration::from_secs(10)).await;
    assert!(store.put_once(PATH, "{}").await.is_err());
    assert_eq!(store.put_once(PATH, "{}").await, Err(StoreError::Paused));
    assert_eq!(server.rest().len(), 1);

    pass(Duration::from_secs(10)).await;
    server.reply_once(Reply::status(201));
    server.reply_once(with_error(404, "BlobNotFound"));
    assert_eq!(store.put_once(PATH, "{}").await, Ok(Put::Created));
    assert_eq!(store.get(PATH).await, Ok(None));
}

#[tokio::test]
async fn a_book_that_does_not_answer_is_neither_written_nor_read() {
    let server = ScriptedServer::start([with_error(503, "ServerBusy")]).await;
    let store = store(&server);
    for _ in 0..3 {
        assert!(is_unavailable(&store.put_once(PATH, "{}").await));
        assert!(is_unavailable(&store.get(PATH).await));
    }
    server.rest();
    assert_eq!(store.put_once(PATH, "{}").await, Err(StoreError::Paused));
    assert_eq!(store.get(PATH).await, Err(StoreError::Paused));
    assert_eq!(store.list("").await, Err(StoreError::Paused));
    // An order has no other place.
    server.reply_once(Reply::status(201));
    assert_eq!(store.insist(PATH, "{}").await, Ok(Put::Created));
    assert_eq!(server.rest().len(), 1);
}

const TEST: &str = "book_store::a_managed_identitys_token_is_replaced_when_it_is_rejected";
const IS_WRITER: &str = "ORDERUP_TEST_IS_WRITER";

/// The endpoint of the identity is read from the process's environment, hence the second process.
#[tokio::test]
async fn a_managed_identitys_token_is_replaced_when_it_is_rejected() {
    if std::env::var_os(IS_WRITER).is_some() {
        let settings = Settings::from_env();
        let http = http_client::outgoing(&settings).unwrap();
        let store = BookStore::from_settings(&settings, &http).unwrap().unwrap();
        for object in ["a", "b"] {
            assert_eq!(store.put_once(object, "").await, Ok(Put::Created));
        }
        assert!(!format!("{store:?}").contains("jwt"));
        return;
    }

    let token = |token: &str| {
        let body = serde_json::json!({
            "access_token": token,
            "expires_on": "4102444800",
            "resource": "https://storage.azure.com",
            "token_type": "Bearer",
        });
        Reply::text(200, &body.to_string())
    };
    let endpoint = ScriptedServer::start([token("first-jwt"), token("second-jwt")]).await;
    let account = ScriptedServer::start([
        Reply::status(201),
        with_error(401, "InvalidAuthenticationInfo"),
        Reply::status(201),
    ])
    .await;
    let writer = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args([TEST, "--exact", "--nocapture"])
        .env_clear()
        .env(IS_WRITER, "1")
        .env("IDENTITY_ENDPOINT", format!("{}/msi/token", endpoint.url()))
        .env("IDENTITY_HEADER", "header-secret")
        .env("AzureWebJobsStorage__blobServiceUri", account.url())
        .env("AzureWebJobsStorage__clientId", "client-1")
        .env("AzureWebJobsStorage__credential", "managedidentity")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let output = String::from_utf8_lossy(&writer.stdout);
    assert!(writer.status.success(), "{output}");
    assert!(output.contains("1 passed"), "{output}");

    let asked = endpoint.next().await;
    assert_eq!(
        asked.path_and_query,
        "/msi/token?api-version=2019-08-01&resource=https%3A%2F%2Fstorage.azure.com&client_id=client-1"
    );
    let sent: Vec<_> = account
        .rest()
        .iter()
        .map(|request| request.header("authorization").to_owned())
        .collect();
    assert_eq!(
        sent,
        ["Bearer first-jwt", "Bearer first-jwt", "Bearer second-jwt"]
    );
}
