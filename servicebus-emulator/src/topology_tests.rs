//! Topology files that are taken, and those that are refused with the place of the mistake.

use std::{path::Path, time::Duration};

use crate::Topology;

fn file(queues: &str, topics: &str) -> String {
    format!(
        r#"{{ "UserConfig": {{ "Namespaces": [
            {{ "Name": "sbemulatorns", "Queues": [{queues}], "Topics": [{topics}] }}
        ], "Logging": {{ "Type": "File" }} }} }}"#
    )
}

fn parse(queues: &str, topics: &str) -> Result<Topology, String> {
    Topology::parse(&file(queues, topics), "servicebus.json").map_err(|error| error.to_string())
}

fn queue(properties: &str) -> Result<Topology, String> {
    parse(
        &format!(r#"{{ "Name": "q", "Properties": {{ {properties} }} }}, {{ "Name": "other" }}"#),
        "",
    )
}

fn rule(properties: &str) -> Result<Topology, String> {
    parse(
        "",
        &format!(
            r#"{{ "Name": "t", "Subscriptions": [ {{ "Name": "a" }},
                {{ "Name": "b", "Rules": [{{ "Name": "r", "Properties": {{ {properties} }} }}] }} ] }}"#
        ),
    )
}

#[test]
fn the_projects_own_topology_is_valid() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../servicebus.json");
    let topology = Topology::read(&path).unwrap();
    let days = |days: u64| Some(Duration::from_secs(days * 86_400));

    let [notifications] = &topology.queues[..] else {
        panic!("one queue is expected")
    };
    assert_eq!(notifications.name, "notifications");
    assert_eq!(notifications.duplicate_detection, None);
    assert_eq!(notifications.max_delivery_count, 10);
    assert_eq!(notifications.default_message_time_to_live, days(14));

    let [orders] = &topology.topics[..] else {
        panic!("one topic is expected")
    };
    assert_eq!(orders.duplicate_detection, Some(Duration::from_secs(600)));
    let names: Vec<_> = orders
        .subscriptions
        .iter()
        .map(|it| (it.queue.name.as_str(), it.queue.forward_to.as_deref()))
        .collect();
    assert_eq!(
        names,
        [
            ("customers", Some("notifications")),
            ("vendors", None),
            ("till", None),
            ("book", None)
        ]
    );
    for subscription in &orders.subscriptions {
        assert!(subscription.queue.dead_lettering_on_message_expiration);
        assert_eq!(subscription.queue.default_message_time_to_live, days(14));
        let [rule] = &subscription.rules[..] else {
            panic!("one rule is expected")
        };
        assert_eq!(rule.name, subscription.queue.name);
        assert!(rule.has_action());
    }
}

#[test]
fn what_is_left_out_has_the_official_emulators_defaults() {
    let topology = parse(
        r#"{ "Name": "a/b.c-d_e" }"#,
        r#"{ "Name": "t", "Subscriptions": [{ "Name": "s" }] }"#,
    )
    .unwrap();
    let queue = &topology.queues[0];
    assert_eq!(queue.name, "a/b.c-d_e");
    assert_eq!(queue.lock_duration, Duration::from_secs(60));
    assert_eq!(queue.max_delivery_count, 3);
    assert_eq!(
        queue.default_message_time_to_live,
        Some(Duration::from_secs(3600))
    );
    assert_eq!(queue.duplicate_detection, None);
    assert!(!queue.dead_lettering_on_message_expiration);
    assert_eq!(queue.forward_to, None);
    let subscription = &topology.topics[0].subscriptions[0];
    assert_eq!(subscription.rules.len(), 1);
    assert_eq!(subscription.rules[0].name, "$Default");
}

#[test]
fn durations_are_iso_8601() {
    let time_to_live = |text: &str| {
        queue(&format!(r#""DefaultMessageTimeToLive": "{text}""#))
            .map(|topology| topology.queues[0].default_message_time_to_live)
    };
    for (text, seconds) in [
        ("PT5M", Some(300)),
        ("P14D", Some(14 * 86_400)),
        ("P1DT2H3M4S", Some(93_784)),
        ("P1Y", Some(365 * 86_400)),
        ("P2M", Some(60 * 86_400)),
        ("P10675199DT2H48M5.4775807S", None),
        ("P10675199D", None),
    ] {
        assert_eq!(
            time_to_live(text),
            Ok(seconds.map(Duration::from_secs)),
            "{text}"
        );
    }
    for text in ["5 minutes", "PT", "P", "-PT5M", "00:05:00", "PT0S", ""] {
        assert!(time_to_live(text).is_err(), "{text}");
    }
}

#[test]
fn a_mistake_in_a_queue_is_named_with_its_place() {
    for (properties, reason) in [
        (
            r#""LockDuration": "PT4S""#,
            "Queues[0].Properties.LockDuration: it must be from PT5S to PT5M",
        ),
        (r#""LockDuration": "PT5M1S""#, "from PT5S to PT5M"),
        (
            r#""LockDuration": 60"#,
            "Queues[0].Properties.LockDuration: expected a string",
        ),
        (
            r#""MaxDeliveryCount": 0"#,
            "Queues[0].Properties.MaxDeliveryCount: it must be at least 1",
        ),
        (r#""MaxDeliveryCount": 1.5"#, "expected a whole number"),
        (r#""MaxDeliveryCount": 2147483648"#, "at least 1"),
        (r#""RequiresSession": "no""#, "expected true or false"),
        (
            r#""DuplicateDetectionHistoryTimeWindow": "PT19S""#,
            "from PT20S to P7D",
        ),
        (
            r#""DuplicateDetectionHistoryTimeWindow": "P7DT1S""#,
            "from PT20S to P7D",
        ),
        (
            r#""ForwardTo": "nowhere""#,
            "Queues[0].Properties.ForwardTo: there is no queue or topic `nowhere`",
        ),
        (
            r#""ForwardTo": "Q""#,
            "Queues[0].Properties.ForwardTo: it leads back to `q`",
        ),
        (
            r#""ForwardDeadLetteredMessagesTo": "q""#,
            "it leads back to `q`",
        ),
        (
            r#""DeadLetteringOnMessageExpiratoin": true"#,
            "Queues[0].Properties: `DeadLetteringOnMessageExpiratoin` is not a property here",
        ),
    ] {
        let error = queue(properties).expect_err(properties);
        assert!(error.contains(reason), "{properties}: {error}");
        assert!(
            error.starts_with("`servicebus.json` is not valid: "),
            "{error}"
        );
    }
}

#[test]
fn targets_are_found_in_any_case() {
    let topology =
        queue(r#""ForwardTo": "OTHER", "ForwardDeadLetteredMessagesTo": "other""#).unwrap();
    assert_eq!(topology.queues[0].forward_to.as_deref(), Some("OTHER"));
}

#[test]
fn forwarding_in_a_circle_is_refused() {
    let error = parse(
        r#"{ "Name": "start", "Properties": { "ForwardTo": "a" } },
           { "Name": "a", "Properties": { "ForwardTo": "b" } },
           { "Name": "b", "Properties": { "ForwardTo": "a" } }"#,
        "",
    )
    .unwrap_err();
    assert!(
        error.contains("Queues[1].Properties.ForwardTo: it leads back to `a`"),
        "{error}"
    );
    let error = parse(
        "",
        r#"{ "Name": "t", "Subscriptions": [{ "Name": "s", "Properties": { "ForwardTo": "t" } }] }"#,
    )
    .unwrap_err();
    assert!(
        error.contains("Topics[0].Subscriptions[0].Properties.ForwardTo: it leads back to `t`"),
        "{error}"
    );
}

#[test]
fn names_are_checked() {
    for name in [
        "",
        "-a",
        "a-",
        "a b",
        "a//b",
        "/a",
        "$a",
        "a/Subscriptions/b",
        "a/$deadletterqueue",
        "a?b",
    ] {
        assert!(
            parse(&format!(r#"{{ "Name": "{name}" }}"#), "").is_err(),
            "{name}"
        );
    }
    assert!(parse(&format!(r#"{{ "Name": "{}" }}"#, "a".repeat(261)), "").is_err());
    let error = parse(
        r#"{ "Name": "a" }"#,
        r#"{ "Name": "A", "Subscriptions": [] }"#,
    )
    .unwrap_err();
    assert!(
        error.contains("Topics[0].Name: `A` exists already"),
        "{error}"
    );
    let error = parse(
        "",
        r#"{ "Name": "t", "Subscriptions": [{ "Name": "s" }, { "Name": "a/b" }] }"#,
    )
    .unwrap_err();
    assert!(
        error.contains("Topics[0].Subscriptions[1].Name: `a/b` is not a name"),
        "{error}"
    );
    assert!(
        parse("{}", "")
            .unwrap_err()
            .contains("Queues[0]: `Name` is missing")
    );
}

#[test]
fn a_mistake_in_a_rule_is_named_with_its_place() {
    let place = "Topics[0].Subscriptions[1].Rules[0].Properties";
    for (properties, reason) in [
        (r#""FilterType": "Sql""#, ": `SqlFilter` is missing"),
        (
            r#""FilterType": "Sql", "SqlFilter": {}"#,
            ".SqlFilter: `SqlExpression` is missing",
        ),
        (
            r#""FilterType": "Sql", "SqlFilter": { "SqlExpression": "a" }"#,
            ".SqlFilter.SqlExpression: `a` is a value",
        ),
        (
            r#""FilterType": "Regex""#,
            ".FilterType: `Regex` is none of",
        ),
        (
            r#""SqlFilter": { "SqlExpression": "1=1" }"#,
            ": `FilterType` is missing",
        ),
        (
            r#""FilterType": "Correlation", "SqlFilter": { "SqlExpression": "1=1" }"#,
            ": `SqlFilter` does not belong",
        ),
        (
            r#""FilterType": "Correlation", "CorrelationFilter": {}"#,
            ".CorrelationFilter: a correlation filter needs",
        ),
        (
            r#""FilterType": "Correlation", "CorrelationFilter": { "Subject": "x" }"#,
            ".CorrelationFilter: `Subject` is not",
        ),
        (
            r#""FilterType": "Correlation", "CorrelationFilter": { "Properties": { "a": [] } }"#,
            ".CorrelationFilter.Properties.a: expected",
        ),
        (
            r#""FilterType": "True", "Action": { "SqlExpression": "DROP x" }"#,
            ".Action.SqlExpression: expected `SET` or `REMOVE`",
        ),
    ] {
        let error = rule(properties).expect_err(properties);
        assert!(
            error.contains(&format!("{place}{reason}")),
            "{properties}: {error}"
        );
    }
    for properties in [
        r#""FilterType": "Sql", "SqlFilter": { "SqlExpression": "sys.label = 'x'" }, "Action": { "SqlExpression": "SET a = 1" }"#,
        r#""FilterType": "Correlation", "CorrelationFilter": { "Label": "x", "Properties": { "a": "b", "c": 1 } }"#,
        r#""FilterType": "True""#,
        r#""FilterType": "False", "Action": {}"#,
    ] {
        rule(properties).expect(properties);
    }
}

#[test]
fn what_is_not_a_topology_file_is_refused() {
    for (json, reason) in [
        ("", "EOF"),
        ("[]", "expected an object"),
        ("{}", "`UserConfig` is missing"),
        (
            r#"{ "UserConfig": {} }"#,
            "UserConfig.Namespaces: expected exactly one",
        ),
        (
            r#"{ "UserConfig": { "Namespaces": [{ "Name": "x" }] } }"#,
            "UserConfig.Namespaces[0].Name",
        ),
        (
            r#"{ "UserConfig": { "Namespaces": [{ "Name": "sbemulatorns", "Queues": {} }] } }"#,
            "Queues: expected an array",
        ),
        (
            r#"{ "UserConfig": { "Namespaces": [{ "Name": "sbemulatorns", "Queues": [1] }] } }"#,
            "Queues[0]: expected an object",
        ),
        (
            r#"{ "UserConfig": { "Namespaces": [{ "Name": "sbemulatorns", "Queue": [] }] } }"#,
            "`Queue` is not a property here",
        ),
    ] {
        let error = Topology::parse(json, "x.json").expect_err(json).to_string();
        assert!(error.contains(reason), "{json}: {error}");
    }
    let missing = Topology::read(Path::new("/nowhere/servicebus.json"))
        .unwrap_err()
        .to_string();
    assert!(
        missing.contains("`/nowhere/servicebus.json` cannot be read"),
        "{missing}"
    );
}
