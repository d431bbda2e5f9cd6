//! Queues, topics and subscriptions over the management API: created, shown, listed, changed, deleted, and in use.

use reqwest::Method;

use crate::{
    atom::entry,
    namespace::{Namespace, broker_properties},
};

const NEVER: &str = "P10675199DT2H48M5.4775807S";

#[tokio::test]
async fn a_queue_that_is_created_has_azures_defaults() {
    let namespace = Namespace::start().await;
    let created = namespace.create_queue("made", "").await;
    assert_eq!(
        created.content_type,
        "application/atom+xml;type=entry;charset=utf-8"
    );
    let got = namespace.get("made").await;
    assert_eq!(got.status, 200);
    for answer in [created, got] {
        assert_eq!(
            answer.id_and_title(),
            (format!("{}/made", namespace.url), "made".to_owned())
        );
        answer.has(&[
            ("LockDuration", "PT1M"),
            ("MaxSizeInMegabytes", "1024"),
            ("RequiresDuplicateDetection", "false"),
            ("RequiresSession", "false"),
            ("DefaultMessageTimeToLive", NEVER),
            ("DeadLetteringOnMessageExpiration", "false"),
            ("DuplicateDetectionHistoryTimeWindow", "PT10M"),
            ("MaxDeliveryCount", "10"),
            ("EnableBatchedOperations", "true"),
            ("SizeInBytes", "0"),
            ("MessageCount", "0"),
            ("Status", "Active"),
            ("AutoDeleteOnIdle", NEVER),
            ("EnablePartitioning", "false"),
            ("EntityAvailabilityStatus", "Available"),
            ("EnableExpress", "false"),
            ("MaxMessageSizeInKilobytes", "256"),
        ]);
        assert_eq!(answer.get("ForwardTo"), None);
        assert_eq!(answer.get("UserMetadata"), None);
    }
}

#[tokio::test]
async fn what_is_set_is_shown() {
    let namespace = Namespace::start().await;
    let host = namespace.url.strip_prefix("http://").unwrap();
    let created = namespace
        .create_queue(
            "made",
            &format!(
                "<LockDuration>PT45S</LockDuration><MaxSizeInMegabytes>2048</MaxSizeInMegabytes>\
                 <RequiresDuplicateDetection>true</RequiresDuplicateDetection><RequiresSession>false</RequiresSession>\
                 <DefaultMessageTimeToLive>P1DT2H</DefaultMessageTimeToLive>\
                 <DeadLetteringOnMessageExpiration>true</DeadLetteringOnMessageExpiration>\
                 <DuplicateDetectionHistoryTimeWindow>PT5M</DuplicateDetectionHistoryTimeWindow>\
                 <MaxDeliveryCount>7</MaxDeliveryCount><EnableBatchedOperations>false</EnableBatchedOperations>\
                 <AuthorizationRules></AuthorizationRules><Status>SendDisabled</Status>\
                 <ForwardTo>sb://{host}/WORK</ForwardTo><UserMetadata>a &lt;b&gt; &amp; é</UserMetadata>\
                 <AutoDeleteOnIdle>PT10M</AutoDeleteOnIdle><EnablePartitioning>true</EnablePartitioning>\
                 <ForwardDeadLetteredMessagesTo>team/a/work</ForwardDeadLetteredMessagesTo>\
                 <EnableExpress>true</EnableExpress><MaxMessageSizeInKilobytes>1024</MaxMessageSizeInKilobytes>\
                 <SomethingNew>yes</SomethingNew>"
            ),
        )
        .await;
    for answer in [created, namespace.get("made").await] {
        answer.has(&[
            ("LockDuration", "PT45S"),
            ("MaxSizeInMegabytes", "2048"),
            ("RequiresDuplicateDetection", "true"),
            ("DefaultMessageTimeToLive", "P1DT2H"),
            ("DeadLetteringOnMessageExpiration", "true"),
            ("DuplicateDetectionHistoryTimeWindow", "PT5M"),
            ("MaxDeliveryCount", "7"),
            ("EnableBatchedOperations", "false"),
            ("Status", "SendDisabled"),
            ("ForwardTo", &format!("sb://{host}/WORK")),
            ("UserMetadata", "a <b> & é"),
            ("AutoDeleteOnIdle", "PT10M"),
            ("EnablePartitioning", "true"),
            (
                "ForwardDeadLetteredMessagesTo",
                &format!("sb://{host}/team/a/work"),
            ),
            ("EnableExpress", "true"),
            ("MaxMessageSizeInKilobytes", "1024"),
        ]);
    }
}

#[tokio::test]
async fn prefixes_cdata_and_the_order_of_elements_do_not_matter() {
    let namespace = Namespace::start().await;
    let body = "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?>\
        <a:entry xmlns:a=\"http://www.w3.org/2005/Atom\" xmlns:s=\"http://schemas.microsoft.com/netservices/2010/10/servicebus/connect\">\
        <a:title>ignored</a:title><a:content type=\"application/xml\"> <s:QueueDescription>\
        <s:UserMetadata><![CDATA[<x>]]></s:UserMetadata> <s:MaxDeliveryCount> 5 </s:MaxDeliveryCount>\
        <s:LockDuration>PT30S</s:LockDuration></s:QueueDescription></a:content></a:entry>";
    let created = namespace.put("made", body.to_owned()).await;
    assert_eq!(created.status, 201, "{}", created.text);
    created.has(&[
        ("UserMetadata", "<x>"),
        ("MaxDeliveryCount", "5"),
        ("LockDuration", "PT30S"),
    ]);
}

#[tokio::test]
async fn entities_of_the_file_are_shown_with_what_they_hold() {
    let namespace = Namespace::start().await;
    for (path, header) in [
        ("work/messages", "{}"),
        ("work/messages", "{}"),
        (
            "work/messages",
            r#"{"ScheduledEnqueueTimeUtc":"Thu, 24 Dec 2099 17:00:05 GMT"}"#,
        ),
        ("orders/messages", r#"{"Label":"red"}"#),
        (
            "orders/messages",
            r#"{"ScheduledEnqueueTimeUtc":"Thu, 24 Dec 2099 17:00:05 GMT"}"#,
        ),
    ] {
        let request = namespace.post(path).header("BrokerProperties", header);
        assert_eq!(request.body("12345").send().await.unwrap().status(), 201);
    }
    // One is under a lock; two deliveries make a dead letter.
    for _ in 0..2 {
        let locked = namespace.lock("work").await;
        let token = &broker_properties(&locked)["LockToken"];
        let path = format!("work/messages/1/{}", token.as_str().unwrap());
        let request = namespace.request(Method::PUT, &path);
        assert_eq!(request.send().await.unwrap().status(), 200);
    }
    namespace.lock("work").await;

    let work = namespace.get("WORK?enrich=True&api-version=2021-05").await;
    work.has(&[
        ("MaxDeliveryCount", "2"),
        ("DefaultMessageTimeToLive", "P1D"),
        ("MessageCount", "3"),
    ]);
    let counts = |answer: &crate::atom::Answer| {
        [
            "ActiveMessageCount",
            "DeadLetterMessageCount",
            "ScheduledMessageCount",
            "TransferMessageCount",
            "TransferDeadLetterMessageCount",
        ]
        .map(|name| answer.count(name))
    };
    assert_eq!(counts(&work), [1, 1, 1, 0, 0]);
    let size: u64 = work.get("SizeInBytes").unwrap().parse().unwrap();
    // Three bodies with their message ids, and what a dead letter carries in addition.
    assert!((3 * (5 + 32)..400).contains(&size), "{size}");

    let orders = namespace.get("orders").await;
    orders.has(&[
        ("SubscriptionCount", "2"),
        ("DefaultMessageTimeToLive", "PT1H"),
    ]);
    assert_eq!(counts(&orders), [0, 0, 1, 0, 0]);
    let red = namespace.get("orders/subscriptions/RED").await;
    red.has(&[("MessageCount", "1"), ("MaxDeliveryCount", "3")]);
    assert_eq!(counts(&red), [1, 0, 0, 0, 0]);
    assert_eq!(
        red.id_and_title(),
        (
            format!("{}/orders/Subscriptions/red", namespace.url),
            "red".to_owned()
        )
    );
}

#[tokio::test]
async fn lists_come_by_name_in_pages_and_paths_in_any_case() {
    let namespace = Namespace::start().await;
    let queues = namespace.get("$Resources/Queues").await;
    assert_eq!(
        queues.content_type,
        "application/atom+xml;type=feed;charset=utf-8"
    );
    assert_eq!(queues.titles(), ["team/a/work", "work"]);
    assert_eq!(queues.next(), None);
    assert_eq!(
        namespace.get("$resources/topics/").await.titles(),
        ["orders"]
    );
    for path in ["orders/subscriptions", "ORDERS/Subscriptions/"] {
        assert_eq!(namespace.get(path).await.titles(), ["all", "red"]);
    }
    for number in 0..5 {
        namespace.create_queue(&format!("q{number}"), "").await;
    }
    let mut page = "$Resources/queues?api-version=2021-05&%24skip=0&$top=3".to_owned();
    let mut pages = Vec::new();
    loop {
        let answer = namespace.get(&page).await;
        pages.push(answer.titles());
        match answer.next() {
            Some(next) => {
                page = next
                    .strip_prefix(&format!("{}/", namespace.url))
                    .unwrap()
                    .to_owned();
            }
            None => break,
        }
    }
    assert_eq!(
        pages,
        [
            &["q0", "q1", "q2"][..],
            &["q3", "q4", "team/a/work"],
            &["work"]
        ]
    );
    assert!(
        namespace
            .get("$Resources/queues?$skip=7")
            .await
            .titles()
            .is_empty()
    );
    for number in 5..102 {
        namespace.create_queue(&format!("q{number}"), "").await;
    }
    let first = namespace.get("$Resources/queues?$top=1000").await;
    assert_eq!(first.titles().len(), 100);
    assert!(first.next().unwrap().ends_with("?$skip=100&$top=100"));
}

#[tokio::test]
async fn a_queue_that_is_created_takes_and_gives_messages_until_it_is_deleted() {
    let namespace = Namespace::start().await;
    namespace.create_queue("made", "").await;
    let send = || namespace.post("made/messages").body("x").send();
    assert_eq!(send().await.unwrap().status(), 201);
    assert_eq!(namespace.take("made").await.text().await.unwrap(), "x");
    assert_eq!(send().await.unwrap().status(), 201);
    let deleted = namespace.delete("Made").await;
    assert_eq!((deleted.status, deleted.text.as_str()), (200, ""));
    assert_eq!(send().await.unwrap().status(), 404);
    namespace.get("made").await.refused(404);
    // It begins anew, without the messages of the old one.
    namespace.create_queue("made", "").await;
    assert!(namespace.is_empty("made").await);
    assert_eq!(send().await.unwrap().status(), 201);
    let taken = namespace.take("made").await;
    assert_eq!(broker_properties(&taken)["SequenceNumber"], 1);
}

#[tokio::test]
async fn a_topic_goes_with_its_subscriptions() {
    let namespace = Namespace::start().await;
    namespace.create_topic("team/news").await;
    let path = "team/news/Subscriptions/mine";
    namespace
        .create_subscription(path, "<MaxDeliveryCount>4</MaxDeliveryCount>")
        .await
        .has(&[
            ("MaxDeliveryCount", "4"),
            ("LockDuration", "PT1M"),
            ("DefaultMessageTimeToLive", NEVER),
            ("DeadLetteringOnFilterEvaluationExceptions", "true"),
            ("Status", "Active"),
        ]);
    let sent = namespace.post("team/news/messages").body("x").send().await;
    assert_eq!(sent.unwrap().status(), 201);
    assert_eq!(namespace.take(path).await.text().await.unwrap(), "x");
    assert_eq!(namespace.delete("team/news").await.status, 200);
    namespace.get(path).await.refused(404);
    namespace.create_topic("team/news").await;
    namespace
        .get("team/news")
        .await
        .has(&[("SubscriptionCount", "0")]);
    namespace.create_subscription(path, "").await;
    assert_eq!(namespace.delete(path).await.status, 200);
    assert!(
        namespace
            .get("team/news/subscriptions")
            .await
            .titles()
            .is_empty()
    );
}

#[tokio::test]
async fn an_update_replaces_the_properties_and_counts_at_once() {
    let namespace = Namespace::start().await;
    namespace
        .create_queue("made", "<UserMetadata>old</UserMetadata>")
        .await;
    let created = namespace.get("made").await;
    let body = entry(
        "QueueDescription",
        "<LockDuration>PT5S</LockDuration><MaxDeliveryCount>1</MaxDeliveryCount>",
    );
    let updated = namespace.replace("MADE", body).await;
    assert_eq!(updated.status, 200, "{}", updated.text);
    updated.has(&[("LockDuration", "PT5S"), ("MaxDeliveryCount", "1")]);
    assert_eq!(updated.get("UserMetadata"), None);
    assert_eq!(updated.id_and_title().1, "made");
    assert_eq!(updated.get("CreatedAt"), created.get("CreatedAt"));
    assert!(updated.get("UpdatedAt") > created.get("UpdatedAt"));

    let sent = namespace.post("made/messages").body("x").send().await;
    assert_eq!(sent.unwrap().status(), 201);
    let locked = namespace.lock("made").await;
    let token = &broker_properties(&locked)["LockToken"];
    let path = format!("made/messages/1/{}", token.as_str().unwrap());
    let request = namespace.request(Method::PUT, &path);
    assert_eq!(request.send().await.unwrap().status(), 200);
    assert!(!namespace.is_empty("made/$deadletterqueue").await);

    let body = entry("TopicDescription", "<UserMetadata>new</UserMetadata>");
    namespace
        .replace("orders", body)
        .await
        .has(&[("UserMetadata", "new"), ("SubscriptionCount", "2")]);
    let body = entry(
        "SubscriptionDescription",
        "<LockDuration>PT7S</LockDuration>",
    );
    let path = "orders/subscriptions/red";
    namespace
        .replace(path, body)
        .await
        .has(&[("LockDuration", "PT7S"), ("MaxDeliveryCount", "10")]);
    // The rules have stayed.
    let rules = namespace.get("orders/subscriptions/red/rules").await;
    assert_eq!(rules.titles(), ["red"]);
}

#[tokio::test]
async fn a_status_says_whether_messages_can_be_sent_or_received() {
    let namespace = Namespace::start().await;
    namespace.create_queue("made", "").await;
    for (status, sends, receives) in [
        ("Active", 201, 204),
        ("SendDisabled", 403, 204),
        ("ReceiveDisabled", 201, 403),
        ("Disabled", 403, 403),
        ("Active", 201, 204),
    ] {
        let body = entry("QueueDescription", &format!("<Status>{status}</Status>"));
        let updated = namespace.replace("made", body).await;
        updated.has(&[("Status", status)]);
        while status == "Active" && !namespace.is_empty("made").await {}
        let receive = namespace.post("made/messages/head?timeout=0").send();
        assert_eq!(receive.await.unwrap().status(), receives, "{status}");
        let sent = namespace.post("made/messages").body("x").send().await;
        assert_eq!(sent.unwrap().status(), sends, "{status}");
        while status == "Active" && !namespace.is_empty("made").await {}
    }
}

#[tokio::test]
async fn what_lies_in_a_queue_moves_on_once_the_queue_forwards() {
    let namespace = Namespace::start().await;
    namespace.create_queue("made", "").await;
    let sent = namespace.post("made/messages").body("x").send().await;
    assert_eq!(sent.unwrap().status(), 201);
    let body = entry("QueueDescription", "<ForwardTo>work</ForwardTo>");
    assert_eq!(namespace.replace("made", body).await.status, 200);
    assert_eq!(namespace.take("work").await.text().await.unwrap(), "x");
    // The target goes, and what would be forwarded is a dead letter.
    assert_eq!(namespace.delete("work").await.status, 200);
    let sent = namespace.post("made/messages").body("y").send().await;
    assert_eq!(sent.unwrap().status(), 201);
    let dead = namespace.take("made/$deadletterqueue").await;
    assert_eq!(
        crate::namespace::header(&dead, "deadletterreason"),
        Some("\"MessagingEntityNotFoundException\"")
    );
}

#[tokio::test]
async fn the_namespace_says_what_it_is() {
    let namespace = Namespace::start().await;
    let info = namespace.get("$namespaceinfo?api-version=2021-05").await;
    assert_eq!(info.status, 200);
    info.has(&[
        ("MessagingSKU", "Standard"),
        ("Name", "sbemulatorns"),
        ("NamespaceType", "Messaging"),
    ]);
    assert!(info.get("CreatedTime").unwrap().ends_with('Z'));
}

#[tokio::test]
async fn what_is_called_messages_is_managed_as_anything_else() {
    let namespace = Namespace::start().await;
    for queue in ["messages", "a/messages/queue"] {
        namespace.create_queue(queue, "").await;
    }
    namespace.create_topic("b/messages").await;
    let subscriptions = [
        "b/messages/Subscriptions/messages",
        "b/messages/Subscriptions/other",
    ];
    for subscription in subscriptions {
        namespace.create_subscription(subscription, "").await;
    }
    let feed = namespace.get("b/messages/subscriptions").await;
    assert_eq!(feed.titles(), ["messages", "other"]);
    let rule = "b/messages/subscriptions/messages/rules/messages";
    let created = namespace
        .put(rule, entry("RuleDescription", "<Name>messages</Name>"))
        .await;
    assert_eq!(created.status, 201, "{}", created.text);
    for path in ["messages", "a/messages/queue", rule]
        .iter()
        .chain(&subscriptions)
    {
        let got = namespace.get(path).await;
        assert_eq!(got.status, 200, "{path}: {}", got.text);
        let last = if path.starts_with('a') {
            path
        } else {
            &path[path.rfind('/').map_or(0, |at| at + 1)..]
        };
        assert_eq!(got.id_and_title().1, last);
    }

    let sent = namespace.post("b/messages/messages").body("1").send().await;
    assert_eq!(sent.unwrap().status(), 201);
    let taken = namespace.take(subscriptions[0]).await;
    assert_eq!(taken.text().await.unwrap(), "1");

    for path in [
        rule,
        subscriptions[0],
        subscriptions[1],
        "messages",
        "b/messages",
    ] {
        assert_eq!(namespace.delete(path).await.status, 200, "{path}");
        assert_eq!(namespace.get(path).await.status, 404, "{path}");
    }
}
