//! `function.json`.

use devhost::{
    function_json::{DataType, Function, Trigger},
    ncrontab::Schedule,
    settings::Settings,
};
use serde_json::{Value, json};

fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.set("WORK_QUEUE", "work");
    settings.set("EVERY_MINUTE", "0 * * * * *");
    settings.set("OtherConnection", "Endpoint=sb://other/");
    settings.set("SwitchedOff", "true");
    settings.set("AzureWebJobs.resting.Disabled", "1");
    settings
}

fn parse(name: &str, bindings: &Value) -> Result<Function, String> {
    Function::parse(
        name,
        &json!({ "bindings": bindings }).to_string(),
        &settings(),
    )
}

fn queue(change: impl FnOnce(&mut Value)) -> Value {
    let mut binding = json!({
        "type": "serviceBusTrigger", "direction": "in", "name": "message", "queueName": "%WORK_QUEUE%",
        "connection": "ServiceBusConnection",
    });
    change(&mut binding);
    json!([binding])
}

fn timer(change: impl FnOnce(&mut Value)) -> Value {
    let mut binding = json!({
        "type": "timerTrigger", "direction": "in", "name": "timer", "schedule": "*/15 * * * * *",
    });
    change(&mut binding);
    json!([binding])
}

fn http(change: impl FnOnce(&mut Value)) -> Value {
    let mut binding = json!({"type": "httpTrigger", "direction": "in", "name": "req"});
    change(&mut binding);
    json!([binding, {"type": "http", "direction": "out", "name": "res"}])
}

#[test]
fn a_queue_trigger_resolves_its_settings() {
    let Trigger::ServiceBus(trigger) = parse("work", &queue(|_| {})).unwrap().trigger else {
        panic!()
    };
    assert_eq!(
        (trigger.entity.to_string().as_str(), trigger.data_type),
        ("work", DataType::String)
    );
}

#[test]
fn a_topic_trigger_listens_to_its_subscription() {
    let binding = queue(|binding| {
        binding["queueName"] = Value::Null;
        binding["topicName"] = "orders".into();
        binding["subscriptionName"] = "vendors".into();
        binding["dataType"] = "binary".into();
    });
    let Trigger::ServiceBus(trigger) = parse("work", &binding).unwrap().trigger else {
        panic!()
    };
    assert_eq!(trigger.entity.to_string(), "orders/Subscriptions/vendors");
    assert_eq!(trigger.data_type, DataType::Binary);
}

#[test]
fn an_http_trigger_has_the_hosts_defaults() {
    let Trigger::Http(trigger) = parse("hello", &http(|_| {})).unwrap().trigger else {
        panic!()
    };
    assert_eq!((trigger.route.text(), trigger.methods), ("hello", None));
    assert_eq!(trigger.output, "res");
}

#[test]
fn a_timer_trigger_has_the_hosts_defaults() {
    let parsed = |change: fn(&mut Value)| {
        let function = parse("tick", &timer(change)).unwrap();
        let Trigger::Timer(trigger) = function.trigger else {
            panic!()
        };
        trigger
    };
    let trigger = parsed(|_| {});
    assert_eq!(trigger.name, "timer");
    assert_eq!((trigger.run_on_startup, trigger.use_monitor), (false, true));
    assert_eq!(trigger.schedule, Schedule::parse("*/15 * * * * *").unwrap());
    let trigger = parsed(|b| {
        b["schedule"] = "%EVERY_MINUTE%".into();
        b["runOnStartup"] = true.into();
        b["useMonitor"] = false.into();
    });
    assert_eq!(trigger.schedule, Schedule::parse("0 * * * * *").unwrap());
    assert_eq!((trigger.run_on_startup, trigger.use_monitor), (true, false));
}

#[test]
fn a_function_can_be_switched_off_in_three_ways() {
    let disabled = |name: &str, disabled: Value| {
        let text = json!({ "bindings": queue(|_| {}), "disabled": disabled }).to_string();
        Function::parse(name, &text, &settings()).unwrap().disabled
    };
    assert!(disabled("work", true.into()));
    assert!(disabled("work", "SwitchedOff".into()));
    assert!(disabled("resting", Value::Null));
    assert!(!disabled("work", "NotSet".into()));
    assert!(!disabled("work", Value::Null));
}

#[test]
fn what_is_wrong_or_not_supported_is_named() {
    type Change = fn(&mut Value);
    let cases: [(Change, &str); 12] = [
        (
            |b| b["queueName"] = "%MISSING%".into(),
            "'%MISSING%' does not resolve to a value.",
        ),
        (|b| b["topicName"] = "orders".into(), "either `queueName`"),
        (|b| b["queueName"] = Value::Null, "either `queueName`"),
        (|b| b["queueName"] = "a//b".into(), "`queueName`"),
        (
            |b| b["connection"] = Value::Null,
            "'AzureWebJobsServiceBus' does not exist",
        ),
        (
            |b| b["connection"] = "OtherConnection".into(),
            "stands in for `ServiceBusConnection` only",
        ),
        (|b| b["cardinality"] = "many".into(), "`cardinality`"),
        (|b| b["dataType"] = "stream".into(), "`dataType`"),
        (
            |b| b["isSessionsEnabled"] = true.into(),
            "`isSessionsEnabled`",
        ),
        (
            |b| b["autoCompleteMessages"] = false.into(),
            "`autoCompleteMessages`",
        ),
        (|b| b["direction"] = "out".into(), "`direction`"),
        (
            |b| b["type"] = "queueTrigger".into(),
            "`queueTrigger` is not supported",
        ),
    ];
    for (change, words) in cases {
        let error = parse("work", &queue(change)).unwrap_err();
        assert!(
            error.contains(words) && error.contains("bindings[0]"),
            "{error}"
        );
    }
    let cases: [(Change, &str); 7] = [
        (|b| b["schedule"] = Value::Null, "`schedule` is missing"),
        (
            |b| b["schedule"] = "soon".into(),
            "`schedule`: The schedule",
        ),
        (|b| b["schedule"] = "60 * * * * *".into(), "the second `60`"),
        (|b| b["schedule"] = "%MISSING%".into(), "'%MISSING%'"),
        (|b| b["runOnStartup"] = "yes".into(), "`runOnStartup`"),
        (|b| b["useMonitor"] = 1.into(), "`useMonitor`"),
        (|b| b["direction"] = "out".into(), "`direction`"),
    ];
    for (change, words) in cases {
        let error = parse("tick", &timer(change)).unwrap_err();
        assert!(
            error.contains(words) && error.contains("bindings[0]"),
            "{error}"
        );
    }
    let cases: [(Change, &str); 4] = [
        (|b| b["route"] = "{id:datetime}".into(), "`route`"),
        (|b| b["route"] = "admin/x".into(), "conflicts"),
        (|b| b["methods"] = json!(["GE T"]), "`methods`"),
        (|b| b["authLevel"] = "nobody".into(), "`authLevel`"),
    ];
    for (change, words) in cases {
        let error = parse("hello", &http(change)).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_function_has_one_trigger_and_a_fitting_output() {
    for bindings in [
        json!([]),
        json!([{"type": "http", "direction": "out", "name": "res"}]),
        json!([{"type": "httpTrigger", "direction": "in", "name": "req"}]),
        json!([queue(|_| {})[0], queue(|_| {})[0]]),
        json!([timer(|_| {})[0], queue(|_| {})[0]]),
        json!([timer(|_| {})[0], {"type": "http", "direction": "out", "name": "res"}]),
        json!([queue(|_| {})[0], {"type": "http", "direction": "out", "name": "res"}]),
        json!([queue(|_| {})[0], {"type": "serviceBus", "direction": "out", "name": "out", "queueName": "work"}]),
    ] {
        assert!(parse("work", &bindings).is_err(), "{bindings}");
    }
}

#[test]
fn a_name_must_be_one_that_the_host_takes() {
    for name in ["host", "1st", "a.b", "_x", ""] {
        assert!(
            parse(name, &queue(|_| {}))
                .unwrap_err()
                .contains("not a valid function name"),
            "{name}"
        );
    }
    assert!(parse("vendor-notify", &queue(|_| {})).is_ok());
}
