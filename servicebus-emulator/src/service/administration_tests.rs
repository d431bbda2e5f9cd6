//! Entities of the running namespace that come and go: what outlives the process, what the topology file says to it, and who
//! waits.

use super::{
    ServiceBus,
    tests::{Folder, ids, lock, refused, send, start},
};
use std::time::Duration;

use crate::{
    Error, MessageState, ReceiveMode, Topology,
    attributes::Status,
    description::{Description, Kind},
    rule::Rule,
    sample::{message, path, queue, subscription, topic},
    topology::{Queue, Subscription},
};

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(600);

fn file() -> Topology {
    Topology {
        queues: vec![queue("file"), queue("stays")],
        topics: vec![topic("news", vec![subscription(queue("kept"))])],
    }
}

fn open(topology: &Topology, folder: &Folder) -> ServiceBus {
    ServiceBus::open(topology, Some(&folder.0)).expect("the folder can be used")
}

fn deliveries(name: &str, most: u32) -> Queue {
    Queue {
        max_delivery_count: most,
        ..queue(name)
    }
}

fn of_news(name: &str) -> Description {
    Description::Subscription {
        topic: "news".to_owned(),
        subscription: Subscription {
            rules: vec![Rule::sql("red", "colour = 'red'", Some("SET a = 1")).unwrap()],
            queue: queue(name),
        },
    }
}

async fn names(bus: &ServiceBus, kind: Kind) -> Vec<String> {
    let described = bus.describe_all(kind, 0, 100).await.unwrap_or_default();
    described
        .into_iter()
        .map(|described| described.listed.description.path())
        .collect()
}

async fn queues(bus: &ServiceBus) -> Vec<String> {
    names(bus, Kind::Queues).await
}

async fn subscriptions(bus: &ServiceBus) -> Vec<String> {
    names(bus, Kind::SubscriptionsOf("news".to_owned())).await
}

async fn max_deliveries(bus: &ServiceBus, name: &str) -> u32 {
    let described = bus.describe(&path(name)).await.expect("it is there");
    let queue = described.listed.description.queue().cloned();
    queue.expect("a queue").max_delivery_count
}

#[tokio::test]
async fn what_was_created_changed_and_deleted_outlives_the_process() {
    let folder = Folder::new();
    let bus = open(&file(), &folder);
    let made = bus
        .create(Description::Queue(deliveries("Made", 4)))
        .await
        .unwrap();
    bus.create(of_news("made")).await.unwrap();
    bus.update(Description::Queue(deliveries("stays", 7)))
        .await
        .unwrap();
    bus.delete(&path("file")).await.unwrap();
    let kept = path("news/Subscriptions/kept");
    let added = Rule::sql("blue", "colour = 'blue'", None).unwrap();
    let added = bus.add_rule(&kept, added).await.unwrap();
    bus.remove_rule(&kept, "$default").await.unwrap();
    send(&bus, "made", "1").await;
    bus.close().await;

    let bus = open(&file(), &folder);
    assert_eq!(queues(&bus).await, ["Made", "stays"]);
    assert_eq!(
        subscriptions(&bus).await,
        ["news/Subscriptions/kept", "news/Subscriptions/made"]
    );
    let again = bus.describe(&path("made")).await.unwrap();
    assert_eq!(again.listed.description, made.listed.description);
    assert_eq!(again.listed.created_at, made.listed.created_at);
    assert_eq!(again.counts.active, 1);
    assert_eq!(max_deliveries(&bus, "stays").await, 7);
    assert_eq!(bus.rules(&kept).await.unwrap(), [added]);
    let made = bus.rules(&path("news/Subscriptions/made")).await.unwrap();
    let texts = |rule: &Rule| {
        (
            rule.filter.expression().map(str::to_owned),
            rule.action.as_ref().map(|action| action.text().to_owned()),
        )
    };
    assert_eq!(
        made.iter().map(texts).collect::<Vec<_>>(),
        [(
            Some("colour = 'red'".to_owned()),
            Some("SET a = 1".to_owned())
        )]
    );
    assert_eq!(ids(&bus, "made", MessageState::Active).await, ["1"]);
}

#[tokio::test]
async fn the_file_has_the_word_about_an_entity_again_when_it_says_something_else() {
    let folder = Folder::new();
    let bus = open(&file(), &folder);
    bus.update(Description::Queue(deliveries("file", 7)))
        .await
        .unwrap();
    bus.delete(&path("stays")).await.unwrap();
    bus.create(Description::Queue(deliveries("made", 4)))
        .await
        .unwrap();
    bus.close().await;

    let mut changed = file();
    changed.queues[0].lock_duration = Duration::from_secs(7);
    changed.queues[1].lock_duration = Duration::from_secs(7);
    changed.queues.push(deliveries("made", 5));
    let bus = open(&changed, &folder);
    assert_eq!(max_deliveries(&bus, "file").await, 10);
    assert_eq!(max_deliveries(&bus, "stays").await, 10);
    assert_eq!(max_deliveries(&bus, "made").await, 5);
    bus.close().await;

    // What had been remembered is forgotten, and does not come back with the old file.
    let bus = open(&file(), &folder);
    assert_eq!(max_deliveries(&bus, "file").await, 10);
    assert_eq!(queues(&bus).await, ["file", "stays"]);
}

#[tokio::test]
async fn a_deleted_topic_of_the_file_stays_away_with_its_subscriptions_and_comes_back_with_them() {
    let folder = Folder::new();
    let bus = open(&file(), &folder);
    bus.delete(&path("news")).await.unwrap();
    bus.close().await;
    let bus = open(&file(), &folder);
    assert_eq!(names(&bus, Kind::Topics).await, Vec::<String>::new());
    let kept = bus.describe(&path("news/Subscriptions/kept")).await;
    assert!(matches!(kept, Err(Error::EntityNotFound(_))));
    bus.close().await;

    let mut changed = file();
    changed.topics[0].default_message_time_to_live = Some(LONG);
    let bus = open(&changed, &folder);
    assert_eq!(names(&bus, Kind::Topics).await, ["news"]);
    assert_eq!(subscriptions(&bus).await, ["news/Subscriptions/kept"]);
}

#[tokio::test]
async fn a_topic_that_was_created_in_place_of_a_queue_of_the_file_is_one_after_reopening() {
    let folder = Folder::new();
    let bus = open(&file(), &folder);
    send(&bus, "file", "1").await;
    bus.delete(&path("file")).await.unwrap();
    bus.create(Description::Topic(topic("file", Vec::new())))
        .await
        .unwrap();
    bus.close().await;
    let bus = open(&file(), &folder);
    assert_eq!(names(&bus, Kind::Topics).await, ["file", "news"]);
    assert_eq!(queues(&bus).await, ["stays"]);
    send(&bus, "file", "2").await;
}

#[tokio::test]
async fn what_is_in_an_entity_of_another_kind_than_the_file_says_outlives_the_process() {
    let folder = Folder::new();
    let bus = open(&file(), &folder);
    for name in ["file", "news"] {
        bus.delete(&path(name)).await.unwrap();
    }
    bus.create(Description::Topic(topic("file", Vec::new())))
        .await
        .unwrap();
    bus.create(Description::Queue(queue("news"))).await.unwrap();
    send(&bus, "news", "1").await;
    let mut scheduled = message("2");
    scheduled.scheduled_enqueue_time = Some(jiff::Timestamp::now() + LONG);
    bus.send(&path("file"), vec![scheduled]).await.unwrap();
    bus.close().await;
    // What the first process after it does to the disk is seen by the second.
    for _ in 0..3 {
        let bus = open(&file(), &folder);
        assert_eq!(ids(&bus, "news", MessageState::Active).await, ["1"]);
        assert_eq!(ids(&bus, "file", MessageState::Scheduled).await, ["2"]);
        bus.close().await;
    }
}

#[tokio::test]
async fn a_created_subscription_goes_with_its_topic_from_the_file_unless_it_holds_messages() {
    let folder = Folder::new();
    let bus = open(&file(), &folder);
    bus.create(of_news("made")).await.unwrap();
    bus.close().await;
    let without = Topology {
        topics: Vec::new(),
        ..file()
    };
    let bus = open(&without, &folder);
    assert_eq!(names(&bus, Kind::Topics).await, Vec::<String>::new());
    bus.close().await;
    let bus = open(&file(), &folder);
    assert_eq!(subscriptions(&bus).await, ["news/Subscriptions/kept"]);
    send(&bus, "news", "1").await;
    bus.close().await;
    assert!(refused(&folder, &without).contains("`news/subscriptions/kept`"));
}

#[tokio::test]
async fn what_was_deleted_does_not_come_back_when_it_is_created_again() {
    let folder = Folder::new();
    let bus = open(&file(), &folder);
    for number in 0..3 {
        send(&bus, "file", &number.to_string()).await;
    }
    bus.delete(&path("file")).await.unwrap();
    bus.create(Description::Queue(queue("file"))).await.unwrap();
    send(&bus, "file", "new").await;
    bus.close().await;
    let bus = open(&file(), &folder);
    assert_eq!(ids(&bus, "file", MessageState::Active).await, ["new"]);
    let received = lock(&bus, "file", Duration::ZERO).await.unwrap();
    assert_eq!(received.sequence_number, 1);
}

#[tokio::test]
async fn what_an_entity_left_behind_that_left_the_file_is_not_that_of_one_created_later() {
    let folder = Folder::new();
    let sessions = Queue {
        requires_session: true,
        ..queue("sessions")
    };
    let once = Queue {
        duplicate_detection: Some(LONG),
        ..queue("once")
    };
    let with = Topology {
        queues: vec![once.clone(), sessions.clone()],
        topics: Vec::new(),
    };
    let without = Topology {
        queues: Vec::new(),
        topics: Vec::new(),
    };
    let bus = open(&with, &folder);
    send(&bus, "once", "1").await;
    let received = lock(&bus, "once", Duration::ZERO).await.unwrap();
    bus.complete(&path("once"), received.lock_token.unwrap())
        .await
        .unwrap();
    let rooms = path("sessions");
    let accept = async |bus: &ServiceBus| {
        let accepted = bus.accept_session(&rooms, Some("red"), Duration::ZERO);
        accepted.await.unwrap().expect("it is free").token
    };
    let red = accept(&bus).await;
    bus.set_session_state(&rooms, red, Some("old".into()))
        .await
        .unwrap();
    bus.close().await;

    let bus = open(&without, &folder);
    for queue in [once, sessions] {
        bus.create(Description::Queue(queue)).await.unwrap();
    }
    bus.close().await;

    let bus = open(&without, &folder);
    let red = accept(&bus).await;
    assert_eq!(bus.session_state(&rooms, red).await, Ok(None));
    send(&bus, "once", "1").await;
    let received = lock(&bus, "once", Duration::ZERO).await.unwrap();
    assert_eq!(received.sequence_number, 1);
    assert_eq!(received.message.message_id.as_deref(), Some("1"));
}

#[tokio::test]
async fn who_waits_is_told_when_the_entity_goes_or_gives_no_more() {
    let folder = Folder::new();
    let bus = open(&file(), &folder);
    let waits = |entity: &str| {
        let (bus, from) = (bus.clone(), path(entity));
        Box::pin(async move { bus.receive(&from, ReceiveMode::PeekLock, LONG).await })
    };
    let mut gone = waits("file");
    let mut of_topic = waits("news/subscriptions/kept/$deadletterqueue");
    let mut forwards = waits("stays");
    for waits in [&mut gone, &mut of_topic, &mut forwards] {
        start(waits).await;
    }
    bus.delete(&path("file")).await.unwrap();
    assert_eq!(gone.await, Err(Error::EntityNotFound("file".to_owned())));
    bus.delete(&path("news")).await.unwrap();
    assert!(matches!(of_topic.await, Err(Error::EntityNotFound(_))));
    bus.create(Description::Queue(queue("made"))).await.unwrap();
    let mut forwarding = queue("stays");
    forwarding.forward_to = Some("made".to_owned());
    bus.update(Description::Queue(forwarding)).await.unwrap();
    assert!(matches!(forwards.await, Err(Error::NotSupported(_))));

    let mut disabled = waits("made");
    start(&mut disabled).await;
    let mut description = queue("made");
    description.attributes.status = Status::ReceiveDisabled;
    bus.update(Description::Queue(description)).await.unwrap();
    assert_eq!(
        disabled.await,
        Err(Error::EntityDisabled("made".to_owned()))
    );
    // Whoever waits at another entity goes on waiting.
    bus.create(Description::Queue(queue("other")))
        .await
        .unwrap();
    let mut served = waits("other");
    start(&mut served).await;
    bus.delete(&path("made")).await.unwrap();
    bus.send(&path("other"), vec![message("1")]).await.unwrap();
    assert!(served.await.unwrap().is_some());
}

#[tokio::test]
async fn a_maximum_size_of_its_own_counts() {
    let folder = Folder::new();
    let limits = crate::Limits {
        entity_quota: 1_000,
        ..crate::Limits::default()
    };
    let bus = ServiceBus::open_with(&file(), Some(&folder.0), limits).unwrap();
    let mut large = message("1");
    large.body = vec![b'x'; 2_000].into();
    let sent = bus.send(&path("stays"), vec![large.clone()]).await;
    assert_eq!(sent, Err(Error::QuotaExceeded("stays".to_owned())));
    let mut own = queue("stays");
    own.attributes.max_size_in_megabytes = Some(1024);
    bus.update(Description::Queue(own)).await.unwrap();
    assert_eq!(bus.send(&path("stays"), vec![large]).await, Ok(()));
}
