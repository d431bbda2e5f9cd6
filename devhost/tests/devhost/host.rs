//! The running devhost from outside: its start, its HTTP functions, its end.

use std::net::{Ipv4Addr, TcpListener};

use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::app::{App, Devhost, GIVE_UP};

#[tokio::test]
async fn it_prints_what_there_is_and_says_when_it_is_ready() {
    let app = App::new();
    let mut devhost = app.run().await;
    for text in [
        "stands in for the Azure Functions host",
        "settings from local.settings.json",
        "echo: [GET,POST] http://localhost:",
        "/api/echo/{*rest}",
        "work: serviceBusTrigger on work",
        "/_dev/emails",
        "/_dev/webhooks",
        "/_dev/entities",
    ] {
        assert!(devhost.has_printed(text), "{text}");
    }
    let status = devhost.get_json("/admin/host/status").await;
    assert_eq!(
        (&status["state"], &status["handlerReady"]),
        (&"Running".into(), &true.into())
    );
    let functions = devhost.get_json("/admin/functions").await;
    assert_eq!(functions[2]["name"], "work");
    assert_eq!(
        functions[2]["config"]["bindings"][0]["queueName"],
        "%WORK_QUEUE%"
    );
    devhost.child.kill().await.unwrap();
}

/// A package that is unpacked has no topology.
#[tokio::test]
async fn the_topology_may_be_outside_of_the_app() {
    let (app, other) = (App::new(), App::new());
    let topology = app.path().join("servicebus.json");
    std::fs::remove_file(&topology).unwrap();
    let (code, stderr) = app.start(&[], &[]).ended().await;
    assert_eq!(code, Some(1));
    assert!(
        stderr.contains("`work` could not be found") && stderr.contains("--topology"),
        "{stderr}"
    );
    let missing = topology.to_str().unwrap();
    let (code, stderr) = app.start(&["--topology", missing], &[]).ended().await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains(missing), "{stderr}");

    let topology = other.path().join("servicebus.json");
    let mut devhost = app.start(&["--topology", topology.to_str().unwrap()], &[]);
    devhost.wait_until_ready().await;
    assert_eq!(devhost.work("ok").await, 202);
}

#[tokio::test]
async fn a_sample_order_is_printed_for_a_checkout() {
    let app = App::new();
    app.write(
        "checkout/function.json",
        r#"{"bindings":[{"type":"httpTrigger","direction":"in","name":"req","methods":["post"]},
            {"type":"http","direction":"out","name":"res"}]}"#,
    );
    let mut devhost = app.start(&[], &[]);
    let line = devhost.line("curl -i").await;
    assert!(
        line.contains("/api/checkout -H 'Content-Type: application/json'"),
        "{line}"
    );
    let (start, end) = (line.find('{').unwrap(), line.rfind('}').unwrap());
    let order: serde_json::Value = serde_json::from_str(&line[start..=end]).unwrap();
    assert_eq!(order["lineItems"][0]["vendorId"], "bakery");
    assert_eq!(order["lineItems"][1]["vendorId"], "tea");
}

#[tokio::test]
async fn a_request_is_proxied_with_the_hosts_headers() {
    let app = App::new();
    let devhost = app.run().await;
    let url = format!("{}/api/echo/a%20b?x=1&x=2", devhost.url);
    let response = devhost
        .client
        .post(url)
        .header("te", "trailers")
        .body("hello")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 418);
    let seen: serde_json::Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    assert_eq!(
        (&seen["method"], &seen["body"]),
        (&"POST".into(), &"hello".into())
    );
    assert_eq!(seen["uri"], "/api/echo/a%20b?x=1&x=2");
    let headers = &seen["headers"];
    assert_eq!(
        headers["x-forwarded-host"],
        devhost.url.trim_start_matches("http://")
    );
    assert_eq!(headers["x-forwarded-proto"], "http");
    assert_eq!(
        headers["x-ms-invocation-id"],
        headers["x-azure-functions-invocationid"]
    );
    assert_ne!(headers["host"], headers["x-forwarded-host"]);
    assert_eq!(headers.get("te"), None);
}

#[tokio::test]
async fn a_request_is_forwarded_where_only_that_is_on() {
    let app = App::new();
    app.host_json(|host| host["customHandler"]["enableProxyingHttpRequest"] = false.into());
    let devhost = app.run().await;
    let seen = devhost.get_json("/api/echo/x").await;
    let headers = &seen["headers"];
    assert_eq!(headers["host"], devhost.url.trim_start_matches("http://"));
    assert!(
        headers["user-agent"]
            .as_str()
            .unwrap()
            .contains("Azure-Functions-Host/")
    );
    assert_eq!(headers.get("x-forwarded-for"), None);
}

#[tokio::test]
async fn what_no_function_takes_is_not_found() {
    let app = App::new();
    let devhost = app.run().await;
    for path in [
        "/api/nothing",
        "/echo/x",
        "/admin/functions/nothing",
        "/_dev/nothing",
    ] {
        assert_eq!(devhost.get(path).await.status(), 404, "{path}");
    }
    let url = format!("{}/api/echo/x", devhost.url);
    assert_eq!(
        devhost.client.delete(url).send().await.unwrap().status(),
        404
    );
    assert_eq!(
        devhost.get("/API/Echo/x").await.status(),
        404,
        "the handler compares with case"
    );
}

#[tokio::test]
async fn the_handler_finds_the_hosts_variables_and_the_settings() {
    let app = App::new();
    let devhost = app.run().await;
    let port = devhost
        .handler_variable("FUNCTIONS_CUSTOMHANDLER_PORT")
        .await;
    assert_eq!(
        port,
        devhost.handler_variable("FUNCTIONS_HTTPWORKER_PORT").await
    );
    assert_eq!(
        devhost
            .handler_variable("FUNCTIONS_CUSTOMHANDLER_WORKER_ID")
            .await,
        devhost.handler_variable("FUNCTIONS_HTTPWORKER_ID").await
    );
    assert_eq!(
        devhost.handler_variable("FUNCTIONS_APP_ROOT_PATH").await,
        app.path().canonicalize().unwrap().to_str().unwrap()
    );
    assert_eq!(devhost.handler_variable("WORK_QUEUE").await, "work");
    assert!(
        devhost
            .handler_variable("ServiceBusConnection")
            .await
            .contains("UseDevelopmentEmulator")
    );
}

#[tokio::test]
async fn a_port_in_use_is_named_with_its_flag() {
    let app = App::new();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for flag in ["--port", "--bus-port", "--amqp-port"] {
        let mut devhost = app.start(&[flag, &port], &[]);
        let (code, stderr) = devhost.ended().await;
        assert_eq!(code, Some(1));
        assert!(stderr.contains(&port) && stderr.contains(flag), "{stderr}");
    }
}

#[tokio::test]
async fn what_is_wrong_in_the_app_is_said_at_once() {
    let app = App::new();
    app.write("work/function.json", r#"{"bindings":[{"type":"serviceBusTrigger","direction":"in","name":"m","queueName":"no-such-queue","connection":"ServiceBusConnection"}]}"#);
    let (code, stderr) = app.start(&[], &[]).ended().await;
    assert_eq!(code, Some(1));
    assert!(
        stderr.contains("work/function.json") && stderr.contains("`no-such-queue`"),
        "{stderr}"
    );
}

/// A connection to the handler itself ends when its process does.
#[cfg(target_os = "linux")]
async fn connection_to_handler(devhost: &crate::app::Devhost) -> tokio::net::TcpStream {
    let port: u16 = devhost
        .handler_variable("FUNCTIONS_CUSTOMHANDLER_PORT")
        .await
        .parse()
        .unwrap();
    tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port))
        .await
        .unwrap()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_handler_does_not_outlive_a_killed_devhost() {
    use tokio::io::AsyncReadExt;

    let app = App::new();
    let mut devhost = app.run().await;
    let mut handler = connection_to_handler(&devhost).await;
    devhost.child.kill().await.unwrap();
    // The end of the connection, clean or not, is the end of the process that held it.
    let _ = tokio::time::timeout(GIVE_UP, handler.read(&mut [0]))
        .await
        .unwrap();
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn sigterm_ends_devhost_and_handler_well() {
    use tokio::io::AsyncReadExt;

    let app = App::new();
    let mut devhost = app.run().await;
    let mut handler = connection_to_handler(&devhost).await;
    let pid =
        rustix::process::Pid::from_raw(devhost.child.id().unwrap().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(devhost.ended().await, (Some(0), String::new()));
    let _ = tokio::time::timeout(GIVE_UP, handler.read(&mut [0]))
        .await
        .unwrap();
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_second_signal_ends_devhost_and_handler_at_once() {
    use tokio::io::AsyncReadExt;

    let app = App::new();
    let mut devhost = app.run().await;
    let mut handler = connection_to_handler(&devhost).await;
    devhost.work("never").await;
    devhost.line("got 'never'").await;
    let pid =
        rustix::process::Pid::from_raw(devhost.child.id().unwrap().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    devhost.line("Invocations in flight may finish").await;
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(devhost.ended().await.0, Some(130));
    let _ = tokio::time::timeout(GIVE_UP, handler.read(&mut [0]))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_second_devhost_leaves_the_data_of_the_first_alone() {
    let app = App::new();
    let devhost = app.run().await;
    for arguments in [&[][..], &["--fresh"]] {
        let (code, stderr) = app.start(arguments, &[]).ended().await;
        assert_eq!(code, Some(1));
        assert!(stderr.contains("another devhost uses"), "{stderr}");
    }
    assert_eq!(devhost.get("/_dev/entities").await.status(), 200);
    assert!(app.path().join(".orderup/emails.jsonl").exists());
}

#[tokio::test]
async fn a_folder_without_an_app_is_told_with_the_flag() {
    let app = App::new();
    std::fs::remove_file(app.path().join("host.json")).unwrap();
    let (code, stderr) = app.start(&[], &[]).ended().await;
    assert_eq!(code, Some(1));
    assert!(
        stderr.contains("has no host.json; name the app's folder with --app"),
        "{stderr}"
    );
}

#[tokio::test]
async fn a_working_directory_that_does_not_exist_is_made() {
    let app = App::new();
    app.host_json(|host| {
        host["customHandler"]["description"]["workingDirectory"] = "not/there".into()
    });
    app.run().await;
    assert!(app.path().join("not/there").is_dir());
}

#[tokio::test]
async fn the_own_pages_have_an_index_and_are_not_for_foreign_web_pages() {
    let app = App::new();
    let devhost = app.run().await;
    let index = devhost.get("/_dev").await;
    assert_eq!(index.status(), 200);
    assert!(index.text().await.unwrap().contains("/_dev/emails"));
    let port = devhost.url.rsplit(':').next().unwrap();
    let own = format!("http://127.0.0.1:{port}");
    for (path, header, value, status) in [
        ("/_dev/emails", "host", "evil.example", 403),
        ("/admin/host/status", "host", "evil.example", 403),
        ("/_dev/emails", "host", "localhost:1234", 200),
        ("/_dev/emails", "host", "[::1]:1234", 200),
        ("/_dev/emails", "origin", "https://evil.example", 403),
        ("/_dev/emails", "origin", "null", 403),
        ("/_dev/emails", "origin", own.as_str(), 200),
        ("/api/echo/x", "origin", "https://shop.example", 418),
    ] {
        let url = format!("{}{path}", devhost.url);
        let request = devhost.client.get(url).header(header, value);
        let answer = request.send().await.unwrap().status();
        assert_eq!(answer, status, "{path} {header} {value}");
    }
}

/// Sends a request that waits in the handler, over a connection of its own.
async fn request_that_waits(devhost: &mut Devhost) -> TcpStream {
    let host = devhost.url.trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(&host).await.unwrap();
    let request = format!("GET /api/echo/wait HTTP/1.1\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    devhost.line("a request waits").await;
    stream
}

#[tokio::test]
async fn a_proxied_request_is_given_up_when_its_caller_goes_away() {
    let app = App::new();
    let mut devhost = app.run().await;
    drop(request_that_waits(&mut devhost).await);
    devhost
        .line("Executed 'Functions.echo' (Failed, the caller went away")
        .await;
}

#[tokio::test]
async fn a_forwarded_request_goes_on_when_its_caller_goes_away() {
    let app = App::new();
    app.host_json(|host| host["customHandler"]["enableProxyingHttpRequest"] = false.into());
    let mut devhost = app.run().await;
    let port = devhost
        .handler_variable("FUNCTIONS_CUSTOMHANDLER_PORT")
        .await;
    devhost.line("Executed 'Functions.env' (Succeeded").await;
    drop(request_that_waits(&mut devhost).await);
    let release = devhost
        .client
        .post(format!("http://127.0.0.1:{port}/release"));
    assert_eq!(release.send().await.unwrap().status(), 200);
    devhost.line("Executed 'Functions.echo' (Succeeded").await;
}
