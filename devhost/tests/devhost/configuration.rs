//! `host.json` and its overrides.

use std::time::Duration;

use devhost::{
    host_json::{HostJson, HttpMode},
    settings::Settings,
    time_span,
};
use serde_json::{Value, json};

fn settings(values: &[(&str, &str)]) -> Settings {
    let mut settings = Settings::default();
    for (name, value) in values {
        settings.set(name, *value);
    }
    settings
}

fn parse(host: &Value, overrides: &[(&str, &str)]) -> Result<HostJson, String> {
    HostJson::parse(&host.to_string(), &settings(overrides)).map_err(|error| error.to_string())
}

fn smallest() -> Value {
    json!({"version": "2.0", "customHandler": {"description": {"defaultExecutablePath": "testExe"}}})
}

#[test]
fn the_smallest_file_has_the_hosts_defaults() {
    let host = parse(&smallest(), &[]).unwrap();
    assert_eq!(host.custom_handler.default_executable_path, "testExe");
    assert!(!host.custom_handler.executable_is_overridden);
    assert_eq!(host.custom_handler.http_mode, HttpMode::Envelope);
    assert_eq!(
        host.custom_handler.initialization_timeout,
        Duration::from_secs(30)
    );
    assert_eq!(host.route_prefix, "api");
    assert_eq!(host.function_timeout, Some(Duration::from_secs(1800)));
    assert_eq!(
        host.service_bus.max_auto_lock_renewal_duration,
        Duration::from_secs(300)
    );
    assert!(host.service_bus.max_concurrent_calls >= 16);
}

#[test]
fn everything_that_is_used_is_read_without_regard_to_case() {
    let host = parse(
        &json!({
            "version": "2.0",
            "functionTimeout": "-1",
            "customHandler": {
                "Description": {"defaultExecutablePath": "node", "arguments": ["a.js", "-x"], "workingDirectory": "w",
                    "workerDirectory": "d", "useStdErrorStreamForErrorsOnly": false},
                "enableForwardingHttpRequest": true,
                "port": "5678",
                "initializationTimeout": "00:00:45",
            },
            "extensions": {
                "http": {"routePrefix": ""},
                "serviceBus": {"maxConcurrentCalls": 4, "maxAutoLockRenewalDuration": "00:10:00", "prefetchCount": 2},
            },
        }),
        &[],
    )
    .unwrap();
    assert_eq!(host.custom_handler.arguments, ["a.js", "-x"]);
    assert_eq!(host.custom_handler.http_mode, HttpMode::Forwarding);
    assert_eq!(
        (host.custom_handler.port, host.function_timeout),
        (Some(5678), None)
    );
    assert_eq!(
        host.custom_handler.initialization_timeout,
        Duration::from_secs(45)
    );
    assert_eq!(
        (
            host.route_prefix.as_str(),
            host.service_bus.max_concurrent_calls
        ),
        ("", 4)
    );
}

#[test]
fn proxying_wins_over_forwarding() {
    let mut host = smallest();
    host["customHandler"]["enableForwardingHttpRequest"] = true.into();
    host["customHandler"]["enableProxyingHttpRequest"] = true.into();
    assert_eq!(
        parse(&host, &[]).unwrap().custom_handler.http_mode,
        HttpMode::Proxying
    );
}

#[test]
fn settings_override_the_file() {
    let host = parse(
        &smallest(),
        &[
            (
                "AzureFunctionsJobHost__customHandler__description__defaultExecutablePath",
                "other",
            ),
            (
                "azurefunctionsjobhost__CUSTOMHANDLER__description__arguments",
                r#"["--a","--b"]"#,
            ),
            (
                "AzureFunctionsJobHost__extensions__serviceBus__maxConcurrentCalls",
                "3",
            ),
        ],
    )
    .unwrap();
    assert_eq!(host.custom_handler.default_executable_path, "other");
    assert!(host.custom_handler.executable_is_overridden);
    assert_eq!(host.custom_handler.arguments, ["--a", "--b"]);
    assert_eq!(host.service_bus.max_concurrent_calls, 3);
}

#[test]
fn what_cannot_be_used_is_named() {
    let with = |path: &str, value: Value| {
        let mut host = smallest();
        *host.pointer_mut("").unwrap() = {
            let mut root = smallest();
            root.as_object_mut().unwrap().insert(path.to_owned(), value);
            root
        };
        parse(&host, &[]).unwrap_err()
    };
    assert!(with("version", json!("1.0")).contains("`version`"));
    assert!(with("functionTimeout", json!("soon")).contains("`functionTimeout`"));
    assert!(with("httpWorker", json!({"description": {}, "x": 1})).contains("`httpWorker`"));
    assert!(with("retry", json!({"strategy": "fixedDelay"})).contains("`retry`"));
    assert!(with("customHandler", json!({})).contains("Missing worker Description"));
    assert!(
        with(
            "customHandler",
            json!({"description": {"defaultExecutablePath": ""}})
        )
        .contains("cannot be empty")
    );
    assert!(
        with(
            "extensions",
            json!({"serviceBus": {"maxConcurrentCalls": 0}})
        )
        .contains("`extensions.serviceBus.maxConcurrentCalls`")
    );
}

#[test]
fn time_spans_are_dot_nets() {
    let seconds = |text: &str| time_span::parse(text).map(|span| span.as_secs());
    assert_eq!(seconds("00:05:00"), Some(300));
    assert_eq!(seconds("1.02:03:04"), Some(93_784));
    assert_eq!(seconds("10:00"), Some(36_000));
    assert_eq!(seconds("7"), Some(604_800));
    assert_eq!(
        time_span::parse("00:00:00.25"),
        Some(Duration::from_millis(250))
    );
    for wrong in [
        "",
        "5m",
        "-00:01:00",
        "24:00:00",
        "00:60:00",
        "00:00:60",
        "1:2:3:4",
    ] {
        assert_eq!(seconds(wrong), None, "{wrong}");
    }
    assert_eq!(time_span::format(Duration::from_secs(93_784)), "1.02:03:04");
}
