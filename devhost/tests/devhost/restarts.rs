//! The handler's process: how its ends are judged, and where its output goes.

use std::time::{Duration, Instant};

use devhost::worker::ErrorCount;

use crate::app::App;

#[test]
fn three_errors_close_together_are_too_many() {
    let start = Instant::now();
    let minutes = |minutes: u64| start + Duration::from_secs(60 * minutes);
    let mut errors = ErrorCount::default();
    assert!(!errors.add(start));
    assert!(!errors.add(minutes(30)));
    assert!(errors.add(minutes(60)));

    let mut errors = ErrorCount::default();
    assert!(!errors.add(start));
    assert!(!errors.add(minutes(1)));
    assert!(
        !errors.add(minutes(32)),
        "a gap of more than half an hour forgets the earlier ones"
    );
}

#[tokio::test]
async fn the_third_crash_stops_the_host() {
    let app = App::new();
    let mut devhost = app.run().await;
    for _ in 0..3 {
        devhost.work("exit 3").await;
        devhost.line("exited with code 3 (0x3)").await;
    }
    devhost
        .line("Exceeded http worker restart retry count. Shutting down Functions Host")
        .await;
    let (code, stderr) = devhost.ended().await;
    assert_eq!(code, Some(1));
    assert!(
        stderr.contains("the handler ended three times; its last lines are above"),
        "{stderr}"
    );
}

#[tokio::test]
async fn exits_with_0_and_200_restart_without_being_counted() {
    let app = App::new();
    let mut devhost = app.run().await;
    for (command, words) in [
        ("exit 0", "exited with code 0"),
        ("exit 200", "needs to be restarted"),
    ] {
        for _ in 0..3 {
            devhost.work(command).await;
            devhost.line(words).await;
        }
    }
    devhost.work("ok").await;
    devhost.line("(Succeeded").await;
}

#[tokio::test]
async fn a_request_waits_while_the_handler_starts_again() {
    let app = App::new();
    let mut devhost = app.run().await;
    devhost.work("exit 200").await;
    devhost.line("needs to be restarted").await;
    assert_eq!(devhost.get("/api/echo/x").await.status(), 418);
}

#[tokio::test]
async fn a_handler_that_fails_at_its_start_is_tried_three_times_and_its_words_are_errors() {
    let app = App::new();
    let mut devhost = app.start(&[], &[("SCRIPT", "fails at start")]);
    // Its words come before what is made of its end.
    devhost.line("exited with code 3 (0x3)").await;
    assert!(devhost.has_printed("it cannot be done"));
    assert!(devhost.line("it cannot be done").await.contains("[Error]"));
    assert!(
        devhost
            .line("a warning about it")
            .await
            .contains("[Warning]")
    );
    devhost
        .line("Exceeded http worker restart retry count")
        .await;
    let (code, stderr) = devhost.ended().await;
    assert_eq!(code, Some(1));
    assert!(
        stderr.contains("vendors.generated.json, which devhost made from"),
        "{stderr}"
    );
}

#[tokio::test]
async fn a_handler_that_never_listens_is_told_where_it_should() {
    let app = App::new();
    app.host_json(|host| host["customHandler"]["initializationTimeout"] = "00:00:00.3".into());
    let mut devhost = app.start(&[], &[("SCRIPT", "deaf")]);
    for _ in 0..3 {
        let words = devhost.line("Initializing HttpWorker timed out").await;
        assert!(words.contains("FUNCTIONS_CUSTOMHANDLER_PORT"), "{words}");
    }
    assert_eq!(devhost.ended().await.0, Some(1));
}

#[tokio::test]
async fn an_executable_that_does_not_exist_is_named() {
    let app = App::new();
    app.host_json(|host| {
        host["customHandler"]["description"]["defaultExecutablePath"] = "no-such-handler".into()
    });
    let mut devhost = app.start(&[], &[]);
    devhost.line("no-such-handler").await;
    assert_eq!(devhost.ended().await.0, Some(1));
}

#[tokio::test]
async fn a_fixed_port_that_is_taken_is_an_error_of_host_json() {
    let app = App::new();
    let taken = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    app.host_json(|host| host["customHandler"]["port"] = port.into());
    let (code, stderr) = app.start(&[], &[]).ended().await;
    assert_eq!(code, Some(1));
    assert!(
        stderr.contains(&format!(
            "Unable to bind to port {port} specified in configuration"
        )),
        "{stderr}"
    );
}
