//! The files of a package, and what keeps it from being made.

use packaging::{contents::contents, funcignore::FuncIgnore};

use crate::app::{App, project};

fn names(app: &App) -> Vec<String> {
    let entries = contents(&app.0, &app.handler()).unwrap();
    entries.into_iter().map(|entry| entry.name).collect()
}

fn refusal(app: &App) -> String {
    contents(&app.0, &app.handler()).unwrap_err().to_string()
}

#[test]
fn it_has_the_functions_the_settings_of_the_host_and_the_handler() {
    let app = App::new("it_has");
    let expected = [
        "checkout/function.json",
        "host.json",
        "notify/function.json",
        "orderup",
        "vendors.json",
    ];
    assert_eq!(names(&app), expected);
    let entries = contents(&app.0, &app.handler()).unwrap();
    for entry in entries {
        let mode = if entry.name == "orderup" {
            0o755
        } else {
            0o644
        };
        assert_eq!(entry.mode, mode, "{}", entry.name);
    }
}

/// Which also says that the project's `.funcignore` agrees.
#[test]
fn the_projects_own_has_every_function() {
    let app = App::new("projects_own");
    let entries = contents(project(), &app.handler()).unwrap();
    let names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    let expected = [
        "book/function.json",
        "cancel/function.json",
        "checkout/function.json",
        "host.json",
        "notify/function.json",
        "order-status/function.json",
        "order/function.json",
        "orderup",
        "outbox/function.json",
        "problem/function.json",
        "till/function.json",
        "vendor-notify/function.json",
        "vendors.json",
    ];
    assert_eq!(names, expected);
}

#[test]
fn what_is_missing_is_named() {
    for file in ["host.json", "vendors.json", "target/orderup"] {
        let app = App::new("missing");
        app.remove(file);
        let why = refusal(&app);
        assert!(why.contains(file) && why.contains("is missing"), "{why}");
    }
    let app = App::new("missing");
    app.remove("checkout/function.json");
    app.remove("notify/function.json");
    assert!(refusal(&app).contains("function.json is missing"));
}

#[test]
fn what_is_extra_in_a_function_is_refused() {
    let app = App::new("extra");
    app.write("checkout/index.js", "");
    let why = refusal(&app);
    assert!(why.contains("checkout/index.js is no part"), "{why}");
}

#[test]
fn what_the_host_could_not_use_is_refused() {
    for (file, text, reason) in [
        ("host.json", "{", "EOF"),
        (
            "host.json",
            r#"{"customHandler":{"description":{"defaultExecutablePath":"server"}}}"#,
            "\"server\"",
        ),
        ("vendors.json", "{}", "no list"),
        ("notify/function.json", "{]", "line 1"),
    ] {
        let app = App::new("unusable");
        app.write(file, text);
        let why = refusal(&app);
        assert!(why.contains(file) && why.contains(reason), "{why}");
    }
}

#[test]
fn a_function_that_funcignore_leaves_out_is_named_with_its_line() {
    let app = App::new("left_out");
    app.write("till/function.json", "{}");
    let why = refusal(&app);
    assert!(why.contains("add `!/till/`"), "{why}");
}

/// Core Tools asks only how a path begins.
#[test]
fn what_core_tools_would_upload_besides_is_refused() {
    for other in ["orderup.old", "host.json~", "orderup-data/x"] {
        let app = App::new("besides");
        app.write(other, "");
        let why = refusal(&app);
        let top = other.split('/').next().unwrap();
        assert!(why.contains(top) && why.contains("Core Tools"), "{why}");
    }
    let app = App::new("besides");
    app.write(
        ".funcignore",
        "/*\n!/host.json\n!/vendors.json\n!/orderup\n!/checkout/\n!/notify/\n!/src/\n",
    );
    assert!(refusal(&app).contains("src is no part of the package"));
}

#[test]
fn funcignore_has_no_lines_that_tools_read_differently() {
    for text in [
        "",
        "target\n",
        "!/host.json\n/*\n",
        "/*\nhost.json\n",
        "/*\n!host.json\n",
        "/*\n!/*.json\n",
        "/*\n!/checkout/function.json\n",
        "/*\n!/\n",
    ] {
        assert!(FuncIgnore::parse(text).is_err(), "{text}");
    }
}
