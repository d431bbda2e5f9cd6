//! App settings, and what stands in for what.

use std::path::Path;

use devhost::{
    data_folder,
    settings::Settings,
    stand_ins::{Ports, install},
};

use crate::app::{App, TEA_SECRET};

const PORTS: Ports = Ports {
    functions: 7071,
    bus: 5300,
    amqp: 5672,
    outside: 9999,
};

fn load(app: &App, environment: &[(&str, &str)]) -> Settings {
    let environment = environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Settings::load(app.path(), environment).unwrap()
}

fn write_values(app: &App, file: &str, values: &[(&str, &str)]) {
    let values: serde_json::Map<_, _> = values
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).into()))
        .collect();
    app.write(
        file,
        &serde_json::json!({ "IsEncrypted": false, "Values": values }).to_string(),
    );
}

/// An app whose example names a provider and a vendor list, and the settings of a user.
fn installed(own: &[(&str, &str)], environment: &[(&str, &str)]) -> (Settings, String, App) {
    let app = App::new();
    write_values(
        &app,
        "local.settings.json.example",
        &[
            ("EMAIL_PROVIDER", "acs"),
            (
                "ACS_CONNECTION_STRING",
                "endpoint=https://example/;accesskey=AA==",
            ),
            ("VENDORS_FILE", "vendors.json"),
            ("TILL", "none"),
            ("ORDER_BOOK", "order-book"),
            ("TEA_SECRET", TEA_SECRET),
        ],
    );
    write_values(&app, "local.settings.json", own);
    let environment: Vec<_> = [("TEA_SECRET", TEA_SECRET)]
        .iter()
        .chain(environment)
        .copied()
        .collect();
    let mut settings = load(&app, &environment);
    let data = data_folder::prepare(&app.path().join(".orderup"), false).unwrap();
    let lines = install(&mut settings, app.path(), data.path(), PORTS)
        .unwrap()
        .lines
        .join("\n");
    (settings, lines, app)
}

#[test]
fn the_environment_wins_over_the_file() {
    let app = App::new();
    write_values(&app, "local.settings.json", &[("A", "file"), ("B", "file")]);
    let settings = load(&app, &[("A", "environment")]);
    assert_eq!(
        (settings.get("A"), settings.get("B")),
        (Some("environment"), Some("file"))
    );
    assert_eq!(settings.source(), "local.settings.json");
}

#[test]
fn the_example_counts_only_where_there_is_no_file() {
    let app = App::new();
    write_values(&app, "local.settings.json.example", &[("A", "example")]);
    assert_eq!(load(&app, &[]).get("A"), None);
    std::fs::remove_file(app.path().join("local.settings.json")).unwrap();
    let settings = load(&app, &[]);
    assert_eq!(settings.get("A"), Some("example"));
    assert_eq!(settings.source(), "local.settings.json.example");
}

#[test]
fn a_broken_file_is_named() {
    let app = App::new();
    for broken in [
        "{",
        r#"{"Values":[]}"#,
        r#"{"Values":{"A":{}}}"#,
        r#"{"IsEncrypted":true}"#,
    ] {
        app.write("local.settings.json", broken);
        let error = Settings::load(app.path(), []).unwrap_err().to_string();
        assert!(error.starts_with("local.settings.json: "), "{error}");
    }
}

#[test]
fn what_is_as_in_the_example_is_replaced_by_the_stand_ins() {
    let (settings, lines, app) = installed(
        &[
            ("EMAIL_PROVIDER", "acs"),
            ("VENDORS_FILE", "vendors.json"),
            ("TILL", "none"),
            ("ORDER_BOOK", "order-book"),
        ],
        &[],
    );
    assert!(
        settings
            .get("ACS_CONNECTION_STRING")
            .unwrap()
            .starts_with("endpoint=http://127.0.0.1:9999/;accesskey=")
    );
    assert_eq!(settings.get("EMAIL_FROM"), Some("orders@orderup.example"));
    assert_eq!(lines.matches("stand-in").count(), 4, "{lines}");
    assert_eq!(settings.get("TILL"), Some("square"));
    assert_eq!(
        settings.get("SQUARE_BASE_URL"),
        Some("http://127.0.0.1:9999")
    );
    let collector = settings.get("OTEL_EXPORTER_OTLP_ENDPOINT");
    assert_eq!(collector, Some("http://127.0.0.1:9999"));
    let order_book = Path::new(settings.get("ORDER_BOOK").unwrap());
    assert!(order_book.is_absolute() && order_book.is_dir());
    let data = app.path().canonicalize().unwrap().join(".orderup");
    assert_eq!(order_book, data.join("order-book"));
    let vendors = std::fs::read_to_string(settings.get("VENDORS_FILE").unwrap()).unwrap();
    let vendors: serde_json::Value = serde_json::from_str(&vendors).unwrap();
    assert!(
        settings
            .get("VENDORS_FILE")
            .unwrap()
            .ends_with("vendors.generated.json")
    );
    assert_eq!(vendors[1]["url"], "http://127.0.0.1:9999/vendors/tea");
    assert_eq!(vendors[1]["allowPrivate"], true);
    assert_eq!(vendors[1]["secrets"][0], "env:TEA_SECRET");
}

#[test]
fn what_the_user_wrote_wins_over_a_stand_in() {
    let (settings, lines, _app) = installed(
        &[
            ("EMAIL_PROVIDER", "smtp"),
            ("EMAIL_FROM", "us@shop.example"),
        ],
        &[],
    );
    assert_eq!(settings.get("EMAIL_PROVIDER"), Some("smtp"));
    assert_eq!(settings.get("EMAIL_FROM"), Some("us@shop.example"));
    assert_eq!(settings.get("ACS_CONNECTION_STRING"), None);
    assert!(lines.contains("your own provider"), "{lines}");

    let own = "endpoint=https://ours.example/;accesskey=AAAA";
    let (settings, _, _app) = installed(&[], &[("ACS_CONNECTION_STRING", own)]);
    assert_eq!(settings.get("ACS_CONNECTION_STRING"), Some(own));
}

/// What becomes of the repository's own example, which local.settings.json is a copy of but for `own`.
fn with_the_repositorys_example(
    own: &[(&str, &str)],
    environment: &[(&str, &str)],
) -> (Settings, String) {
    const EXAMPLE: &str = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../local.settings.json.example"
    );
    let text = std::fs::read_to_string(EXAMPLE).unwrap();
    let app = App::new();
    app.write("local.settings.json.example", &text);
    let mut copy: serde_json::Value = serde_json::from_str(&text).unwrap();
    for (name, value) in own {
        copy["Values"][name] = (*value).into();
    }
    app.write("local.settings.json", &copy.to_string());
    let environment: Vec<_> = [("TEA_SECRET", TEA_SECRET)]
        .iter()
        .chain(environment)
        .copied()
        .collect();
    let mut settings = load(&app, &environment);
    let data = data_folder::prepare(&app.path().join(".orderup"), false).unwrap();
    let stand_ins = install(&mut settings, app.path(), data.path(), PORTS).unwrap();
    (settings, stand_ins.lines.join("\n"))
}

#[test]
fn an_exact_copy_of_the_example_gets_the_stand_ins() {
    let (settings, lines) = with_the_repositorys_example(&[], &[]);
    assert_eq!(settings.get("EMAIL_PROVIDER"), Some("acs"));
    assert_eq!(lines.matches("stand-in").count(), 4, "{lines}");
    assert_eq!(settings.get("TILL"), Some("square"));
    assert!(settings.get("ORDER_TOKEN_SECRET").unwrap().len() >= 32);
}

#[test]
fn a_collector_of_the_users_own_is_left_alone() {
    for name in [
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "OTEL_SDK_DISABLED",
    ] {
        let own = [(name, "of the user's own")];
        let (settings, lines) = with_the_repositorys_example(&own, &[]);
        assert_eq!(settings.get(name), Some("of the user's own"));
        assert_eq!(settings.get("OTEL_BSP_SCHEDULE_DELAY"), None);
        assert!(lines.contains(&format!("go where {name} says")), "{lines}");
    }
}

#[test]
fn any_email_setting_of_the_users_own_means_their_provider() {
    // The example has the same EMAIL_PROVIDER, but the environment is always the user's.
    let (settings, lines) = with_the_repositorys_example(&[], &[("EMAIL_PROVIDER", "smtp")]);
    assert_eq!(settings.get("EMAIL_PROVIDER"), Some("smtp"));
    assert!(lines.contains("because EMAIL_PROVIDER is yours"), "{lines}");

    for name in [
        "ACS_CONNECTION_STRING",
        "ACS_ENDPOINT",
        "SMTP_URL",
        "SENDGRID_API_KEY",
        "RESEND_API_KEY",
    ] {
        let own = [(name, "of the user's own")];
        for (settings, lines) in [
            with_the_repositorys_example(&own, &[]),
            with_the_repositorys_example(&[], &own),
        ] {
            assert_eq!(settings.get("EMAIL_PROVIDER"), Some("smtp"), "{name}");
            assert_eq!(settings.get(name), Some("of the user's own"));
            assert!(
                lines.contains(&format!("because {name} is yours")),
                "{lines}"
            );
        }
    }
}

#[test]
fn a_till_and_an_order_book_of_the_users_own_stay() {
    let own = [("TILL", "square"), ("ORDER_BOOK", "orderup")];
    for (settings, lines) in [
        with_the_repositorys_example(&own, &[]),
        with_the_repositorys_example(&[], &own),
    ] {
        assert_eq!(settings.get("TILL"), Some("square"));
        assert_eq!(settings.get("ORDER_BOOK"), Some("orderup"));
        assert_eq!(settings.get("SQUARE_BASE_URL"), None);
        for word in ["TILL says", "ORDER_BOOK says"] {
            assert!(lines.contains(word), "{lines}");
        }
    }
    // The environment is always the user's, also with the value of the example.
    let (settings, _) = with_the_repositorys_example(&[], &[("TILL", "none")]);
    assert_eq!(settings.get("TILL"), Some("none"));
}

#[test]
fn a_vendor_list_that_is_not_there_is_named_with_its_setting() {
    let app = App::new();
    let data = data_folder::prepare(&app.path().join(".orderup"), false).unwrap();
    let mut set = load(&app, &[("VENDORS_FILE", "no-such-list.json")]);
    let error = install(&mut set, app.path(), data.path(), PORTS).unwrap_err();
    assert!(
        error.contains("VENDORS_FILE") && error.contains("no-such-list.json"),
        "{error}"
    );
    std::fs::remove_file(app.path().join("vendors.json")).unwrap();
    let error = install(&mut load(&app, &[]), app.path(), data.path(), PORTS).unwrap_err();
    assert!(
        error.contains("VENDORS_FILE") && error.contains("/vendors.json"),
        "{error}"
    );
}

#[test]
fn the_bus_is_always_devhosts_own() {
    let (settings, _, _app) = installed(
        &[(
            "ServiceBusConnection",
            "Endpoint=sb://prod.servicebus.windows.net/;…",
        )],
        &[(
            "ServiceBusConnection__fullyQualifiedNamespace",
            "prod.servicebus.windows.net",
        )],
    );
    assert!(
        settings
            .get("ServiceBusConnection")
            .unwrap()
            .contains("UseDevelopmentEmulator=true")
    );
    assert_eq!(
        settings.get("SERVICEBUS_REST_ENDPOINT"),
        Some("http://127.0.0.1:5300")
    );
    assert_eq!(
        settings.removed(),
        ["ServiceBusConnection__fullyQualifiedNamespace"]
    );
}

#[test]
fn a_broken_vendor_list_is_named_without_its_secrets() {
    let app = App::new();
    let data = data_folder::prepare(&app.path().join(".orderup"), false).unwrap();
    for (broken, word) in [
        ("{}", "vendors.json"),
        (r#"[{"secrets":["whsec_AA=="]}]"#, "`id`"),
        (r#"["whsec_AA=="]"#, "line 1"),
        (r#"[{"id":"a"}]"#, "`a`): `name`"),
        (r#"[{"id":"a","name":"A"}]"#, "`a`): `url`"),
        (r#"[{"id":"a","name":"A","url":"a.example/hook"}]"#, "`url`"),
        (r#"[{"id":"a","name":"A","url":"/hook"}]"#, "`url`"),
        (
            r#"[{"id":"a","name":"A","url":"ftp://a.example/"}]"#,
            "`url`",
        ),
        (
            r#"[{"id":"a","name":"A","url":"http://a.example/"}]"#,
            "allowPrivate",
        ),
        (
            r#"[{"id":"a","name":"A","url":"https://a.example/"}]"#,
            "`secrets`",
        ),
        (
            r#"[{"id":"a","name":"A","url":"https://a.example/","secrets":["whsec_"]}]"#,
            "a secret is not",
        ),
        (
            r#"[{"id":"a","name":"A","url":"https://a.example/","secrets":["env:NOT_SET"]}]"#,
            "`NOT_SET`",
        ),
        (
            r#"[{"id":"a","name":"A","url":"https://a.example/","secrets":["whsec_AA=="]},
                {"id":"a","name":"A","url":"https://a.example/","secrets":["whsec_AA=="]}]"#,
            "twice",
        ),
    ] {
        app.write("vendors.json", broken);
        let error = install(&mut load(&app, &[]), app.path(), data.path(), PORTS).unwrap_err();
        assert!(
            error.contains(word) && !error.contains("whsec_AA"),
            "{error}"
        );
    }
}

#[test]
fn only_a_folder_of_our_own_is_emptied() {
    let app = App::new();
    let folder = app.path().join("data");
    data_folder::prepare(&folder, false).unwrap();
    std::fs::write(folder.join("emails.jsonl"), "x").unwrap();
    data_folder::prepare(&folder, false).unwrap();
    assert!(folder.join("emails.jsonl").exists());
    data_folder::prepare(&folder, true).unwrap();
    assert!(!folder.join("emails.jsonl").exists());
    // It is still known as ours.
    data_folder::prepare(&folder, true).unwrap();

    let foreign: &Path = app.path();
    assert!(
        data_folder::prepare(foreign, true)
            .unwrap_err()
            .contains("--data")
    );
    assert!(foreign.join("host.json").exists());
}

#[test]
fn a_folder_in_use_is_neither_written_nor_emptied_by_another() {
    let app = App::new();
    let folder = app.path().join("data");
    let used = data_folder::prepare(&folder, false).unwrap();
    std::fs::write(folder.join("emails.jsonl"), "x").unwrap();
    for fresh in [false, true] {
        let error = data_folder::prepare(&folder, fresh).unwrap_err();
        assert!(
            error.starts_with("another devhost uses `") && error.contains("--data"),
            "{error}"
        );
        assert!(folder.join("emails.jsonl").exists());
    }
    drop(used);
    data_folder::prepare(&folder, true).unwrap();
    assert!(!folder.join("emails.jsonl").exists());
}
