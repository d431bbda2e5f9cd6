//! The running namespace: what has been answered is on the disk, and who waits is served.

use std::{
    fs,
    future::{Future, poll_fn},
    path::PathBuf,
    pin::Pin,
    task::Poll,
    time::Duration,
};

use uuid::Uuid;

use super::ServiceBus;
use crate::{
    Changes, Error, Limits, Message, MessageState, OpenError, ReceiveMode, ReceivedMessage,
    Settlement, Topology,
    broker::Broker,
    sample::{message, path, queue, queues, topic},
    topology::Queue,
};

/// Longer than any test takes: what comes, comes before.
const LONG: Duration = Duration::from_secs(600);

/// A folder of its own for each test, removed afterwards.
pub(super) struct Folder(pub(super) PathBuf);

impl Folder {
    pub(super) fn new() -> Self {
        Self(std::env::temp_dir().join(format!("servicebus-{}", Uuid::new_v4())))
    }

    fn file(&self) -> PathBuf {
        self.0.join("servicebus.redb")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // It may never have been created.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn topology() -> Topology {
    let detecting = Queue {
        duplicate_detection: Some(Duration::from_secs(600)),
        ..queue("detecting")
    };
    queues([queue("q"), detecting])
}

fn open(folder: &Folder) -> ServiceBus {
    ServiceBus::open(&topology(), Some(&folder.0)).expect("the folder can be used")
}

pub(super) fn refused(folder: &Folder, topology: &Topology) -> String {
    match ServiceBus::open(topology, Some(&folder.0)) {
        Err(error @ OpenError::Data { .. }) => error.to_string(),
        Err(error) => panic!("another error: {error}"),
        Ok(_) => panic!("it was opened"),
    }
}

pub(super) async fn send(bus: &ServiceBus, to: &str, id: &str) {
    bus.send(&path(to), vec![message(id)])
        .await
        .expect("it is accepted");
}

pub(super) async fn lock(bus: &ServiceBus, from: &str, wait: Duration) -> Option<ReceivedMessage> {
    bus.receive(&path(from), ReceiveMode::PeekLock, wait)
        .await
        .expect("it can be received from")
}

async fn locked(bus: &ServiceBus, from: &str) -> ReceivedMessage {
    lock(bus, from, LONG).await.expect("a message comes")
}

fn token(message: &ReceivedMessage) -> Uuid {
    message.lock_token.expect("a locked message")
}

pub(super) async fn ids(bus: &ServiceBus, entity: &str, state: MessageState) -> Vec<String> {
    bus.browse(&path(entity), state)
        .await
        .expect("it exists")
        .into_iter()
        .filter_map(|message| message.message.message_id)
        .collect()
}

/// Starts the future, which is not ready yet.
pub(super) async fn start<F: Future>(future: &mut Pin<Box<F>>) {
    poll_fn(|context| {
        assert!(future.as_mut().poll(context).is_pending());
        Poll::Ready(())
    })
    .await;
}

// What survives

#[tokio::test]
async fn a_sent_message_is_there_after_reopening_just_as_it_was() {
    let folder = Folder::new();
    let bus = open(&folder);
    let mut full = Message {
        body: vec![0, 159, 146, 150].into(),
        time_to_live: Some(Duration::from_millis(86_400_123)),
        label: Some("order.placed".to_owned()),
        ..message("a")
    };
    for (name, value) in [
        ("text", crate::Value::String("é".to_owned())),
        ("number", crate::Value::Double(0.1 + 0.2)),
        ("none", crate::Value::Double(f64::INFINITY)),
        ("time", crate::Value::Timestamp(crate::sample::at(1))),
    ] {
        full.properties.insert(name.to_owned(), value);
    }
    bus.send(&path("q"), vec![full.clone()])
        .await
        .expect("it is accepted");
    let before = bus
        .browse(&path("q"), MessageState::Active)
        .await
        .expect("q exists");
    bus.close().await;
    let bus = open(&folder);
    let after = bus
        .browse(&path("q"), MessageState::Active)
        .await
        .expect("q exists");
    assert_eq!(before, after);
    assert_eq!(after[0].message, full);
}

#[tokio::test]
async fn a_completed_message_does_not_come_back_and_its_number_is_not_used_again() {
    let folder = Folder::new();
    let bus = open(&folder);
    send(&bus, "q", "a").await;
    let first = locked(&bus, "q").await;
    bus.complete(&path("q"), token(&first))
        .await
        .expect("the lock is held");
    bus.close().await;
    let bus = open(&folder);
    assert_eq!(lock(&bus, "q", Duration::ZERO).await, None);
    send(&bus, "q", "b").await;
    let second = locked(&bus, "q").await;
    assert!(second.sequence_number > first.sequence_number);
}

#[tokio::test]
async fn a_locked_message_is_available_after_reopening_with_its_delivery_counted() {
    let folder = Folder::new();
    let bus = open(&folder);
    send(&bus, "q", "a").await;
    let first = locked(&bus, "q").await;
    bus.close().await;
    let bus = open(&folder);
    assert_eq!(
        bus.complete(&path("q"), token(&first)).await,
        Err(Error::MessageLockLost)
    );
    assert_eq!(locked(&bus, "q").await.delivery_count, 2);
}

#[tokio::test]
async fn the_last_delivery_before_the_end_of_the_process_counts_as_well() {
    let folder = Folder::new();
    let once = queues([Queue {
        max_delivery_count: 1,
        ..queue("q")
    }]);
    let bus = ServiceBus::open(&once, Some(&folder.0)).expect("the folder can be used");
    send(&bus, "q", "a").await;
    locked(&bus, "q").await;
    bus.close().await;
    let bus = ServiceBus::open(&once, Some(&folder.0)).expect("the folder can be used");
    assert_eq!(
        ids(&bus, "q/$deadletterqueue", MessageState::Active).await,
        ["a"]
    );
}

#[tokio::test]
async fn a_scheduled_message_is_still_scheduled_after_reopening() {
    let folder = Folder::new();
    let bus = open(&folder);
    let scheduled = Message {
        scheduled_enqueue_time: Some(crate::sample::at(1_000_000_000)),
        ..message("a")
    };
    bus.send(&path("q"), vec![scheduled])
        .await
        .expect("it is accepted");
    bus.close().await;
    let bus = open(&folder);
    assert_eq!(ids(&bus, "q", MessageState::Scheduled).await, ["a"]);
}

#[tokio::test]
async fn the_history_of_duplicate_detection_survives_reopening() {
    let folder = Folder::new();
    let bus = open(&folder);
    send(&bus, "detecting", "a").await;
    let first = locked(&bus, "detecting").await;
    bus.complete(&path("detecting"), token(&first))
        .await
        .expect("the lock is held");
    bus.close().await;
    let bus = open(&folder);
    send(&bus, "detecting", "a").await;
    send(&bus, "detecting", "b").await;
    assert_eq!(ids(&bus, "detecting", MessageState::Active).await, ["b"]);
}

#[tokio::test]
async fn a_dead_letter_survives_reopening() {
    let folder = Folder::new();
    let bus = open(&folder);
    send(&bus, "q", "a").await;
    let message = locked(&bus, "q").await;
    let settlement = Settlement::DeadLetter {
        reason: Some("why".to_owned()),
        description: Some("in detail".to_owned()),
        changes: Changes::new(),
    };
    bus.settle(&path("q"), token(&message), settlement)
        .await
        .expect("the lock is held");
    bus.close().await;
    let bus = open(&folder);
    let dead = locked(&bus, "q/$deadletterqueue").await;
    assert_eq!(dead.delivery_count, 2);
    assert_eq!(bus.entities().await.expect("it is open")[1].dead_letter, 1);
}

#[tokio::test]
async fn without_a_folder_nothing_outlives_the_process() {
    let bus = ServiceBus::open(&topology(), None).expect("nothing is in the way");
    send(&bus, "q", "a").await;
    assert_eq!(locked(&bus, "q").await.delivery_count, 1);
    bus.close().await;
    let bus = ServiceBus::open(&topology(), None).expect("nothing is in the way");
    assert_eq!(lock(&bus, "q", Duration::ZERO).await, None);
}

// What cannot be opened

#[tokio::test]
async fn a_folder_in_use_is_refused_by_name() {
    let folder = Folder::new();
    let bus = open(&folder);
    let error = refused(&folder, &topology());
    assert!(error.contains(&folder.0.display().to_string()), "{error}");
    assert!(error.contains("another process is using it"), "{error}");
    bus.close().await;
    open(&folder).close().await;
}

#[tokio::test]
async fn an_entity_that_is_gone_from_the_topology_does_not_take_its_messages_along() {
    let folder = Folder::new();
    let bus = open(&folder);
    send(&bus, "detecting", "a").await;
    bus.close().await;
    let without = queues([queue("q")]);
    let error = refused(&folder, &without);
    assert!(error.contains("`detecting`"), "{error}");
    assert!(error.contains("choose another data folder"), "{error}");
    // A topic of that name could not hold the message either.
    let as_topic = Topology {
        queues: vec![queue("q")],
        topics: vec![topic("detecting", Vec::new())],
    };
    assert!(refused(&folder, &as_topic).contains("`detecting`"));
    let bus = open(&folder);
    assert_eq!(ids(&bus, "detecting", MessageState::Active).await, ["a"]);
}

#[tokio::test]
async fn an_entity_without_messages_may_go() {
    let folder = Folder::new();
    let bus = open(&folder);
    send(&bus, "detecting", "a").await;
    let message = locked(&bus, "detecting").await;
    bus.complete(&path("detecting"), token(&message))
        .await
        .expect("the lock is held");
    bus.close().await;
    ServiceBus::open(&queues([queue("q")]), Some(&folder.0))
        .expect("nothing would be lost")
        .close()
        .await;
}

#[test]
fn a_file_that_is_not_a_store_is_refused() {
    let folder = Folder::new();
    fs::create_dir_all(&folder.0).expect("a folder");
    fs::write(
        folder.file(),
        "These are not the messages you are looking for.",
    )
    .expect("a file");
    let error = refused(&folder, &topology());
    assert!(error.contains("is damaged"), "{error}");
    assert!(error.contains("choose another data folder"), "{error}");
}

#[tokio::test]
async fn a_store_that_has_lost_its_end_is_refused() {
    let folder = Folder::new();
    let bus = open(&folder);
    send(&bus, "q", "a").await;
    bus.close().await;
    let bytes = fs::read(folder.file()).expect("the file");
    fs::write(folder.file(), &bytes[..bytes.len() / 3]).expect("the file");
    let error = refused(&folder, &topology());
    assert!(error.contains("is damaged"), "{error}");
}

#[tokio::test]
async fn a_store_in_which_one_byte_has_changed_is_refused() {
    let folder = Folder::new();
    let bus = open(&folder);
    let marked = Message {
        body: "the body of the message".into(),
        ..message("a")
    };
    bus.send(&path("q"), vec![marked])
        .await
        .expect("it is accepted");
    bus.close().await;
    let mut bytes = fs::read(folder.file()).expect("the file");
    let body = b"the body of the message";
    let places: Vec<usize> = (0..bytes.len() - body.len())
        .filter(|place| bytes[*place..].starts_with(body))
        .collect();
    assert!(!places.is_empty());
    for place in places {
        bytes[place] = b'T';
    }
    fs::write(folder.file(), &bytes).expect("the file");
    let error = refused(&folder, &topology());
    assert!(error.contains("is damaged"), "{error}");
}

#[tokio::test]
async fn a_store_of_another_format_is_refused() {
    let folder = Folder::new();
    open(&folder).close().await;
    {
        let database = redb::Database::create(folder.file()).expect("the file is free");
        let transaction = database.begin_write().expect("a transaction");
        let format = redb::TableDefinition::<&str, u64>::new("format");
        transaction
            .open_table(format)
            .expect("the table")
            .insert("version", 99)
            .expect("written");
        transaction.commit().expect("committed");
    }
    let error = refused(&folder, &topology());
    assert!(error.contains("has format 99"), "{error}");
    assert!(error.contains("choose another data folder"), "{error}");
}

#[test]
fn a_folder_that_cannot_be_created_is_refused() {
    let folder = Folder::new();
    fs::create_dir_all(&folder.0).expect("a folder");
    fs::write(folder.0.join("file"), "").expect("a file");
    let inside = Folder(folder.0.join("file").join("folder"));
    assert!(refused(&inside, &topology()).contains("cannot be created"));
}

#[test]
fn a_topology_with_one_name_twice_is_refused() {
    let twice = queues([queue("q"), queue("Q")]);
    assert!(matches!(
        ServiceBus::open(&twice, None),
        Err(OpenError::Topology(_))
    ));
}

// Who waits

#[tokio::test]
async fn a_receiver_that_waits_is_served_by_the_next_send() {
    let bus = ServiceBus::open(&topology(), None).expect("nothing is in the way");
    let mut waiting = Box::pin(lock(&bus, "q", LONG));
    start(&mut waiting).await;
    send(&bus, "q", "a").await;
    let message = waiting.await.expect("a message comes");
    assert_eq!(message.message.message_id.as_deref(), Some("a"));
}

#[tokio::test]
async fn receivers_are_served_in_the_order_in_which_they_came() {
    let bus = ServiceBus::open(&topology(), None).expect("nothing is in the way");
    let mut first = Box::pin(lock(&bus, "q", LONG));
    let mut second = Box::pin(lock(&bus, "q", LONG));
    start(&mut first).await;
    start(&mut second).await;
    // One that does not wait does not overtake those who do.
    send(&bus, "q", "a").await;
    assert_eq!(lock(&bus, "q", Duration::ZERO).await, None);
    send(&bus, "q", "b").await;
    let ids: Vec<_> = [first.await, second.await]
        .into_iter()
        .flatten()
        .filter_map(|message| message.message.message_id)
        .collect();
    assert_eq!(ids, ["a", "b"]);
}

#[tokio::test]
async fn a_receiver_is_woken_by_the_end_of_a_lock_and_by_a_schedule() {
    let bus = ServiceBus::open(
        &queues([Queue {
            lock_duration: Duration::from_millis(20),
            ..queue("q")
        }]),
        None,
    )
    .expect("nothing is in the way");
    send(&bus, "q", "a").await;
    let first = locked(&bus, "q").await;
    let again = locked(&bus, "q").await;
    assert_eq!(again.sequence_number, first.sequence_number);
    assert_eq!(again.delivery_count, 2);

    let bus = ServiceBus::open(&topology(), None).expect("nothing is in the way");
    let due = jiff::Timestamp::now() + Duration::from_millis(20);
    let scheduled = Message {
        scheduled_enqueue_time: Some(due),
        ..message("later")
    };
    bus.send(&path("q"), vec![scheduled])
        .await
        .expect("it is accepted");
    assert!(locked(&bus, "q").await.enqueued_time >= due);
}

#[tokio::test]
async fn a_receiver_gets_nothing_when_its_time_is_over() {
    let bus = ServiceBus::open(&topology(), None).expect("nothing is in the way");
    assert_eq!(lock(&bus, "q", Duration::from_millis(5)).await, None);
    send(&bus, "q", "a").await;
    assert_eq!(locked(&bus, "q").await.delivery_count, 1);
}

#[tokio::test]
async fn a_receiver_that_went_away_while_it_waited_costs_nothing() {
    let bus = ServiceBus::open(&topology(), None).expect("nothing is in the way");
    let mut waiting = Box::pin(lock(&bus, "q", LONG));
    start(&mut waiting).await;
    drop(waiting);
    send(&bus, "q", "a").await;
    assert_eq!(locked(&bus, "q").await.delivery_count, 1);
}

#[tokio::test]
async fn a_receiver_that_went_away_while_it_waited_does_not_take_the_message_along() {
    let bus = ServiceBus::open(&topology(), None).expect("nothing is in the way");
    let from = path("q");
    let mut waiting = Box::pin(bus.receive(&from, ReceiveMode::ReceiveAndDelete, LONG));
    start(&mut waiting).await;
    drop(waiting);
    send(&bus, "q", "a").await;
    assert_eq!(ids(&bus, "q", MessageState::Active).await, ["a"]);
}

#[tokio::test]
async fn a_receiver_that_went_away_after_it_was_served_gives_the_message_back() {
    let bus = ServiceBus::open(&topology(), None).expect("nothing is in the way");
    for round in 0..100 {
        let mut waiting = Box::pin(lock(&bus, "q", LONG));
        start(&mut waiting).await;
        send(&bus, "q", &round.to_string()).await;
        drop(waiting);
        // The lock would last for 30 s.
        let message = locked(&bus, "q").await;
        assert_eq!(message.delivery_count, 1);
        bus.complete(&path("q"), token(&message))
            .await
            .expect("the lock is held");
    }
}

#[tokio::test]
async fn a_closed_namespace_sends_everyone_away() {
    let bus = ServiceBus::open(&topology(), None).expect("nothing is in the way");
    let other = bus.clone();
    let from = path("q");
    let mut waiting = Box::pin(other.receive(&from, ReceiveMode::PeekLock, LONG));
    start(&mut waiting).await;
    bus.close().await;
    assert_eq!(waiting.await, Err(Error::Closed));
    assert_eq!(
        other.send(&path("q"), vec![message("a")]).await,
        Err(Error::Closed)
    );
    other.close().await;
}

#[tokio::test]
async fn dropping_the_last_handle_frees_the_folder() {
    let folder = Folder::new();
    let bus = open(&folder);
    let other = bus.clone();
    drop(bus);
    send(&other, "q", "a").await;
    drop(other);
    let bus = loop {
        match ServiceBus::open(&topology(), Some(&folder.0)) {
            Ok(bus) => break bus,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    assert_eq!(ids(&bus, "q", MessageState::Active).await, ["a"]);
}

#[tokio::test]
async fn errors_of_one_command_do_not_touch_the_others() {
    let folder = Folder::new();
    let bus = open(&folder);
    let (nowhere, q) = (path("nowhere"), path("q"));
    let (bad, good, lost) = tokio::join!(
        bus.send(&nowhere, vec![message("a")]),
        bus.send(&q, vec![message("a")]),
        bus.complete(&q, Uuid::nil()),
    );
    assert_eq!(bad, Err(Error::EntityNotFound("nowhere".to_owned())));
    assert_eq!(good, Ok(()));
    assert_eq!(lost, Err(Error::MessageLockLost));
    assert_eq!(ids(&bus, "q", MessageState::Active).await, ["a"]);
}

// The worst that can happen

#[tokio::test]
async fn a_namespace_whose_owner_has_panicked_says_that_it_is_closed() {
    let ids = Box::new(|| panic!("there are no ids"));
    let broker = Broker::new(&topology(), Limits::default(), ids).expect("a valid topology");
    let bus = ServiceBus::start(broker, None, Limits::default()).expect("a thread");
    let other = bus.clone();
    let from = path("q");
    let mut waiting = Box::pin(other.receive(&from, ReceiveMode::PeekLock, LONG));
    start(&mut waiting).await;
    assert!(!bus.is_closed());
    assert_eq!(
        bus.send(&from, vec![Message::default()]).await,
        Err(Error::Closed)
    );
    assert_eq!(waiting.await, Err(Error::Closed));
    bus.closed().await;
    assert!(bus.is_closed());
    bus.close().await;
}

#[tokio::test]
async fn a_session_that_is_accepted_for_someone_who_has_gone_is_free_again() {
    let rooms = Queue {
        requires_session: true,
        ..queue("rooms")
    };
    let bus = ServiceBus::open(&queues([rooms]), None).unwrap();
    let from = path("rooms");
    {
        let accepting = bus.accept_session(&from, Some("a"), Duration::ZERO);
        let mut accepting = std::pin::pin!(accepting);
        // Asked for, and given up before the answer; one that was there already is closed as its holder would.
        std::future::poll_fn(|context| {
            if let std::task::Poll::Ready(Ok(Some(accepted))) = accepting.as_mut().poll(context) {
                bus.release_session(&from, accepted.token);
            }
            std::task::Poll::Ready(())
        })
        .await;
    }
    // What gives it back is on its way once a later command has been answered.
    bus.entities().await.unwrap();
    let accepted = bus.accept_session(&from, Some("a"), Duration::ZERO).await;
    assert_eq!(accepted.unwrap().unwrap().session_id, "a");
}
