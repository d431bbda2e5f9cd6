//! Requests that the management API refuses; nothing of them is left.

use reqwest::Method;

use crate::{atom::entry, namespace::Namespace, signatures::sign};

const RULE: &str = "orders/subscriptions/all/rules/made";

#[tokio::test]
async fn a_body_that_is_no_entry_is_refused() {
    let namespace = Namespace::start().await;
    let deep = "<a>".repeat(20_000);
    let wide = format!(
        "<entry><content>{}</content></entry>",
        "<a/>".repeat(40_000)
    );
    for body in [
        "",
        "{}",
        "<entry>",
        "<entry/>",
        "<entry><content/></entry>",
        "<feed><content><QueueDescription/></content></feed>",
        "<entry><content><QueueDescription></content></entry>",
        "<entry><content><RuleDescription/></content></entry>",
        "<!DOCTYPE a [<!ENTITY b \"c\">]><entry><content><QueueDescription><UserMetadata>&b;</UserMetadata></QueueDescription></content></entry>",
        "<!DOCTYPE a SYSTEM \"file:///etc/passwd\"><entry><content><QueueDescription/></content></entry>",
        "<entry><content><QueueDescription>&nbsp;</QueueDescription></content></entry>",
        &deep,
        &wide,
    ] {
        let text = namespace.put("made", body.to_owned()).await.refused(400);
        assert!(text.contains("SubCode=40000. The "), "{text}");
        for path in ["orders/subscriptions/made", RULE] {
            if !body.contains("RuleDescription") {
                namespace.put(path, body.to_owned()).await.refused(400);
            }
        }
    }
    let request = namespace.request(Method::PUT, "made");
    let answer = request.body(vec![0xff, 0xfe, 0x3c]).send().await.unwrap();
    assert_eq!(answer.status(), 400);
    namespace.get("made").await.refused(404);
    assert_eq!(
        namespace.get("orders/subscriptions").await.titles(),
        ["all", "red"]
    );
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused() {
    let namespace = Namespace::start().await;
    for size in [262_145, 3_000_000] {
        let comment = format!("<!--{}-->", "x".repeat(size));
        let body = entry("QueueDescription", &comment);
        namespace.put("made", body).await.refused(413);
    }
    namespace.get("made").await.refused(404);
}

#[tokio::test]
async fn who_has_no_valid_token_learns_nothing_and_changes_nothing() {
    let namespace = Namespace::start().await;
    let other = sign("http://localhost/other");
    for (method, path) in [
        (Method::GET, "$Resources/queues"),
        (Method::GET, "$namespaceinfo"),
        (Method::GET, "work"),
        (Method::GET, "nowhere"),
        (Method::GET, "orders/subscriptions/all/rules"),
        (Method::PUT, "made"),
        (Method::DELETE, "work"),
        (Method::DELETE, "orders/subscriptions/red/rules/red"),
    ] {
        for authorization in [None, Some(other.as_str())] {
            let mut request = namespace.unsigned(method.clone(), path);
            if let Some(authorization) = authorization {
                request = request.header("authorization", authorization);
            }
            let body = entry("QueueDescription", "");
            let answer = request.body(body).send().await.unwrap();
            assert_eq!(answer.status(), 401, "{path}");
        }
    }
    // A token for one entity is good for that one.
    let request = namespace.unsigned(Method::GET, "work");
    let answer = request.header("authorization", sign("http://localhost/work"));
    assert_eq!(answer.send().await.unwrap().status(), 200);
    assert_eq!(
        namespace.get("$Resources/queues").await.titles(),
        ["team/a/work", "work"]
    );
    namespace.get("made").await.refused(404);
}

#[tokio::test]
async fn what_does_not_exist_is_not_found() {
    let namespace = Namespace::start().await;
    for path in [
        "",
        "$Resources",
        "$Resources/relays",
        "$other",
        "nowhere",
        "nowhere/subscriptions",
        "work/subscriptions",
        "nowhere/subscriptions/all",
        "orders/subscriptions/none",
        "orders/subscriptions/none/rules",
        "orders/subscriptions/none/rules/$Default",
        "orders/subscriptions/all/rules/none",
        "work/$deadletterqueue",
    ] {
        let text = namespace.get(path).await.refused(404);
        assert!(
            text.contains("SubCode=40400. The messaging entity '"),
            "{text}"
        );
    }
    for path in [
        "nowhere",
        "nowhere/subscriptions/all",
        "orders/subscriptions/none",
        "orders/subscriptions/none/rules/red",
        "orders/subscriptions/all/rules/none",
    ] {
        namespace.delete(path).await.refused(404);
    }
    let queue = || entry("QueueDescription", "");
    let subscription = || entry("SubscriptionDescription", "");
    let rule = || entry("RuleDescription", "");
    namespace.replace("nowhere", queue()).await.refused(404);
    for path in ["nowhere/subscriptions/x", "work/subscriptions/x"] {
        namespace.put(path, subscription()).await.refused(404);
        namespace.replace(path, subscription()).await.refused(404);
    }
    let path = "orders/subscriptions/none/rules/x";
    namespace.put(path, rule()).await.refused(404);
    let path = "orders/subscriptions/all/rules/none";
    namespace.replace(path, rule()).await.refused(404);
}

#[tokio::test]
async fn what_exists_is_not_created_again() {
    let namespace = Namespace::start().await;
    for (path, kind) in [
        ("WORK", "QueueDescription"),
        ("work", "TopicDescription"),
        ("Orders", "QueueDescription"),
        ("orders/subscriptions/ALL", "SubscriptionDescription"),
        ("orders/subscriptions/red/rules/Red", "RuleDescription"),
    ] {
        let text = namespace.put(path, entry(kind, "")).await.refused(409);
        assert!(text.contains("SubCode=40900. "), "{text}");
        assert!(text.contains("already exists"), "{text}");
    }
    // An update does not make a topic of a queue either.
    for (path, kind) in [("work", "TopicDescription"), ("orders", "QueueDescription")] {
        namespace.replace(path, entry(kind, "")).await.refused(409);
    }
    namespace
        .get("work")
        .await
        .has(&[("MaxDeliveryCount", "2")]);
    let rule = namespace.get("orders/subscriptions/red/rules/red").await;
    rule.has(&[(
        "Filter/SqlExpression",
        "colour = 'red' OR sys.Label = 'red'",
    )]);
}

#[tokio::test]
async fn values_that_azure_would_not_take_are_refused_by_name() {
    let namespace = Namespace::start().await;
    let long = "x".repeat(1025);
    for (name, value) in [
        ("LockDuration", "PT4S"),
        ("LockDuration", "PT5M1S"),
        ("LockDuration", "a minute"),
        ("MaxDeliveryCount", "0"),
        ("MaxDeliveryCount", "-1"),
        ("MaxDeliveryCount", "many"),
        ("DefaultMessageTimeToLive", "PT0S"),
        ("DuplicateDetectionHistoryTimeWindow", "PT19S"),
        ("DuplicateDetectionHistoryTimeWindow", "P8D"),
        ("AutoDeleteOnIdle", "PT4M59S"),
        ("MaxSizeInMegabytes", "1000"),
        ("MaxMessageSizeInKilobytes", "255"),
        ("RequiresSession", "maybe"),
        ("EnablePartitioning", "2"),
        ("Status", "Asleep"),
        ("UserMetadata", &long),
        ("ForwardTo", "nowhere"),
        ("ForwardTo", "made"),
        ("ForwardTo", "sb://localhost/"),
        ("ForwardTo", "orders/subscriptions/all"),
        ("ForwardDeadLetteredMessagesTo", "Made"),
    ] {
        let body = entry("QueueDescription", &format!("<{name}>{value}</{name}>"));
        let text = namespace.put("made", body).await.refused(400);
        assert!(text.contains(name), "{name} in {text}");
    }
    namespace.get("made").await.refused(404);
    let name = "x".repeat(261);
    for path in ["a b", "-a", "a-", "a*b", "a/b/", "a//b", "$made", &name] {
        let encoded = path.replace(' ', "%20");
        let answer = namespace.put(&encoded, entry("QueueDescription", "")).await;
        // A path is not taken apart as a name: slashes too many are none.
        let expected = match path {
            "a/b/" => 201,
            "a//b" => 409,
            "$made" => 404,
            _ => 400,
        };
        assert_eq!(answer.status, expected, "{path} {}", answer.text);
    }
    let name = "x".repeat(51);
    let path = format!("orders/subscriptions/{name}");
    let body = entry("SubscriptionDescription", "");
    namespace.put(&path, body).await.refused(400);
}

#[tokio::test]
async fn forwarding_in_a_circle_and_forwarding_of_sessions_are_refused() {
    let namespace = Namespace::start().await;
    namespace
        .create_queue("one", "<ForwardTo>work</ForwardTo>")
        .await;
    let body = entry("QueueDescription", "<ForwardTo>one</ForwardTo>");
    let text = namespace.replace("work", body).await.refused(400);
    assert!(text.contains("leads back to `work`"), "{text}");
    let text = namespace
        .put(
            "two",
            entry(
                "QueueDescription",
                "<RequiresSession>true</RequiresSession><ForwardTo>work</ForwardTo>",
            ),
        )
        .await
        .refused(400);
    assert!(text.contains("requires sessions"), "{text}");
}

#[tokio::test]
async fn what_is_decided_at_creation_cannot_be_changed() {
    let namespace = Namespace::start().await;
    for (path, kind, names) in [
        (
            "work",
            "QueueDescription",
            &[
                "RequiresSession",
                "RequiresDuplicateDetection",
                "EnablePartitioning",
            ][..],
        ),
        (
            "orders",
            "TopicDescription",
            &["RequiresDuplicateDetection", "EnablePartitioning"],
        ),
        (
            "orders/subscriptions/all",
            "SubscriptionDescription",
            &["RequiresSession"],
        ),
    ] {
        for name in names {
            let body = entry(kind, &format!("<{name}>true</{name}>"));
            let text = namespace.replace(path, body).await.refused(400);
            assert!(
                text.contains(&format!("{name} cannot be changed")),
                "{text}"
            );
        }
    }
    namespace
        .get("work")
        .await
        .has(&[("MaxDeliveryCount", "2")]);
}

#[tokio::test]
async fn rules_that_azure_would_not_take_are_refused() {
    let namespace = Namespace::start().await;
    let value = |kind: &str, value: &str| {
        format!(
            r#"<Filter i:type="CorrelationFilter"><Properties><KeyValueOfstringanyType><Key>k</Key>
               <Value i:type="x:{kind}" xmlns:x="http://www.w3.org/2001/XMLSchema">{value}</Value></KeyValueOfstringanyType></Properties></Filter>"#
        )
    };
    for (properties, reason) in [
        (
            r#"<Filter i:type="SqlFilter"><SqlExpression>a ==== 1</SqlExpression></Filter>"#.to_owned(),
            "The SqlExpression is invalid: ",
        ),
        (
            r#"<Filter i:type="SqlFilter"></Filter>"#.to_owned(),
            "The SqlFilter has no SqlExpression.",
        ),
        (
            r#"<Filter i:type="SqlFilter"><SqlExpression>a = @p</SqlExpression><Parameters><KeyValueOfstringanyType>
               <Key>@p</Key></KeyValueOfstringanyType></Parameters></Filter>"#
                .to_owned(),
            "Parameters of SQL expressions are not supported",
        ),
        (
            r#"<Filter i:type="DateTimeFilter"></Filter>"#.to_owned(),
            "`DateTimeFilter` is none of",
        ),
        (
            r#"<Filter></Filter>"#.to_owned(),
            "`` is none of",
        ),
        (
            r#"<Filter i:type="CorrelationFilter"></Filter>"#.to_owned(),
            "at least one property",
        ),
        (value("int", "five"), "The value of the property `k`"),
        (value("double", "NaN"), "The value of the property `k`"),
        (value("duration", "PT1M"), "The value of the property `k`"),
        (
            r#"<Action i:type="SqlRuleAction"><SqlExpression>DROP a</SqlExpression></Action>"#.to_owned(),
            "The action is invalid: ",
        ),
        (
            r#"<Action i:type="RunAction"></Action>"#.to_owned(),
            "`RunAction` is neither",
        ),
    ] {
        let body = entry("RuleDescription", &properties);
        let text = namespace.put(RULE, body).await.refused(400);
        assert!(text.contains(reason), "{reason} in {text}");
    }
    namespace.get(RULE).await.refused(404);
}

#[tokio::test]
async fn verbs_that_mean_nothing_there_are_refused() {
    let namespace = Namespace::start().await;
    for (method, path) in [
        (Method::POST, "$Resources/queues"),
        (Method::PATCH, "work"),
        (Method::PUT, "$namespaceinfo"),
        (Method::PUT, "$Resources/queues"),
        (Method::PUT, "orders/subscriptions"),
        (Method::PUT, "orders/subscriptions/all/rules"),
        (Method::DELETE, "$Resources/topics"),
        (Method::DELETE, "orders/subscriptions"),
    ] {
        let answer = namespace.request(method, path).send().await.unwrap();
        assert_eq!(answer.status(), 405, "{path}");
    }
    for query in ["$skip=some", "$top=-1"] {
        let path = format!("$Resources/queues?{query}");
        let text = namespace.get(&path).await.refused(400);
        assert!(text.contains(query.split_once('=').unwrap().0), "{text}");
    }
}
