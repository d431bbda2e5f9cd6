//! The entities of a namespace, read from the official emulator's `Config.json` format.
//!
//! The file is read once, when the namespace is opened, and is checked whole: names, ranges, references, filters and
//! actions. What comes out can be served as it is; an error names the file and the place in it.
//! The format: `ServiceBus-Emulator/Schema/Config-schema.json` of Azure/azure-service-bus-emulator-installer. Defaults are
//! the official emulator's; its smaller limits (TTL of at most an hour, at most 10 deliveries, 50 entities) are Azure's here.

use std::{collections::BTreeSet, path::Path, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use thiserror::Error;

use crate::{
    attributes::Attributes,
    config_json::Object,
    iso_8601,
    topology_limits::{self, MINUTE, SHORTEST_DUPLICATE_WINDOW},
    topology_references::check_references,
    topology_rules::rules,
};

/// What a namespace consists of.
#[derive(Debug, Clone, PartialEq)]
pub struct Topology {
    pub queues: Vec<Queue>,
    pub topics: Vec<Topic>,
}

/// What a queue and a subscription have in common.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Queue {
    /// The queue's name; for a subscription only its last part.
    pub name: String,
    pub lock_duration: Duration,
    pub max_delivery_count: u32,
    pub default_message_time_to_live: Option<Duration>,
    pub dead_lettering_on_message_expiration: bool,
    /// The window of duplicate detection, where it is required.
    pub duplicate_detection: Option<Duration>,
    pub forward_to: Option<String>,
    pub forward_dead_lettered_messages_to: Option<String>,
    pub requires_session: bool,
    pub attributes: Attributes,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Topic {
    pub name: String,
    pub default_message_time_to_live: Option<Duration>,
    pub duplicate_detection: Option<Duration>,
    pub attributes: Attributes,
    pub subscriptions: Vec<Subscription>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Subscription {
    pub queue: Queue,
    pub rules: Vec<crate::rule::Rule>,
}

/// Why a topology file cannot be used, with the place in it.
#[derive(Debug, Error)]
pub enum TopologyError {
    #[error("`{path}` cannot be read: {source}")]
    Unreadable {
        path: String,
        source: std::io::Error,
    },
    #[error("`{path}` is not valid: {reason}")]
    Invalid { path: String, reason: String },
}

impl Topology {
    /// Reads and checks a topology file.
    pub fn read(path: &Path) -> Result<Self, TopologyError> {
        let path_text = path.display().to_string();
        let json = std::fs::read_to_string(path).map_err(|source| TopologyError::Unreadable {
            path: path_text.clone(),
            source,
        })?;
        Self::parse(&json, &path_text)
    }

    /// Checks the text of a topology file; `path` is what errors call it.
    pub fn parse(json: &str, path: &str) -> Result<Self, TopologyError> {
        // Editors on Windows begin a JSON file with a byte-order mark, which .NET reads over.
        let json = json.strip_prefix('\u{feff}').unwrap_or(json);
        serde_json::from_str(json)
            .map_err(|error| error.to_string())
            .and_then(|json: Json| topology(&json))
            .map_err(|reason| TopologyError::Invalid {
                path: path.to_owned(),
                reason,
            })
    }
}

fn topology(json: &Json) -> Result<Topology, String> {
    let file = Object::new(String::new(), json)?;
    if !file.has("UserConfig") {
        return Err("`UserConfig` is missing".to_owned());
    }
    let user_config = file.object("UserConfig")?;
    let namespaces = user_config.objects("Namespaces")?;
    let [namespace] = &namespaces[..] else {
        return Err(user_config.error_in("Namespaces", "expected exactly one namespace"));
    };
    namespace.only(&["Name", "Queues", "Topics"])?;
    if namespace.required_text("Name")? != "sbemulatorns" {
        return Err(namespace.error_in("Name", "an emulator's namespace is called `sbemulatorns`"));
    }
    // From here on places are relative to the one namespace: `Topics[0].Subscriptions[1]`.
    let namespace = match json.pointer("/UserConfig/Namespaces/0") {
        Some(namespace) => Object::new(String::new(), namespace)?,
        None => namespace.clone(),
    };
    let mut names = Names::default();
    let mut queues = Vec::new();
    for object in namespace.objects("Queues")? {
        object.only(&["Name", "Properties"])?;
        let name = entity_name(&object)?;
        names.add(&object, name)?;
        queues.push(queue(&object, name, Kind::Queue)?);
    }
    let mut topics = Vec::new();
    for object in namespace.objects("Topics")? {
        let topic = topic(&object)?;
        names.add(&object, &topic.name)?;
        topics.push(topic);
    }
    let topology = Topology { queues, topics };
    check_references(&topology)?;
    Ok(topology)
}

/// Queues and topics share one set of names; case does not count.
#[derive(Default)]
pub(crate) struct Names(BTreeSet<String>);

impl Names {
    pub(crate) fn add(&mut self, object: &Object<'_>, name: &str) -> Result<(), String> {
        if self.0.insert(name.to_lowercase()) {
            Ok(())
        } else {
            Err(object.error_in("Name", format_args!("`{name}` exists already")))
        }
    }
}

fn topic(object: &Object<'_>) -> Result<Topic, String> {
    object.only(&["Name", "Properties", "Subscriptions"])?;
    let name = entity_name(object)?;
    let properties = object.object("Properties")?;
    properties.only(&[
        "DefaultMessageTimeToLive",
        "DuplicateDetectionHistoryTimeWindow",
        "RequiresDuplicateDetection",
    ])?;
    let mut names = Names::default();
    let mut subscriptions = Vec::new();
    for object in object.objects("Subscriptions")? {
        object.only(&["Name", "Properties", "Rules"])?;
        let name = short_name(&object)?;
        names.add(&object, name)?;
        subscriptions.push(Subscription {
            queue: queue(&object, name, Kind::Subscription)?,
            rules: rules(&object)?,
        });
    }
    Ok(Topic {
        name: name.to_owned(),
        default_message_time_to_live: time_to_live(&properties)?,
        duplicate_detection: duplicate_detection(&properties)?,
        attributes: Attributes::default(),
        subscriptions,
    })
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Queue,
    Subscription,
}

fn queue(object: &Object<'_>, name: &str, kind: Kind) -> Result<Queue, String> {
    let properties = object.object("Properties")?;
    let mut known = vec![
        "DeadLetteringOnMessageExpiration",
        "DefaultMessageTimeToLive",
        "ForwardDeadLetteredMessagesTo",
        "ForwardTo",
        "LockDuration",
        "MaxDeliveryCount",
        "RequiresSession",
    ];
    if kind == Kind::Queue {
        known.extend([
            "DuplicateDetectionHistoryTimeWindow",
            "RequiresDuplicateDetection",
        ]);
    }
    properties.only(&known)?;
    let lock_duration = properties.duration("LockDuration")?.unwrap_or(MINUTE);
    let lock_duration = topology_limits::lock_duration(lock_duration)
        .map_err(|error| properties.error_in("LockDuration", error))?;
    let max_delivery_count = properties.whole_number("MaxDeliveryCount")?.unwrap_or(3);
    let max_delivery_count = topology_limits::max_delivery_count(max_delivery_count)
        .map_err(|error| properties.error_in("MaxDeliveryCount", error))?;
    let forward = |property| {
        Ok::<_, String>(
            properties
                .text(property)?
                .filter(|target| !target.is_empty())
                .map(str::to_owned),
        )
    };
    Ok(Queue {
        name: name.to_owned(),
        lock_duration,
        max_delivery_count,
        default_message_time_to_live: time_to_live(&properties)?,
        dead_lettering_on_message_expiration: properties
            .boolean("DeadLetteringOnMessageExpiration")?,
        duplicate_detection: duplicate_detection(&properties)?,
        forward_to: forward("ForwardTo")?,
        forward_dead_lettered_messages_to: forward("ForwardDeadLetteredMessagesTo")?,
        requires_session: properties.boolean("RequiresSession")?,
        attributes: Attributes::default(),
    })
}

fn time_to_live(properties: &Object<'_>) -> Result<Option<Duration>, String> {
    const PROPERTY: &str = "DefaultMessageTimeToLive";
    if properties.text(PROPERTY)?.is_some_and(iso_8601::is_never) {
        return Ok(None);
    }
    let time_to_live = properties.duration(PROPERTY)?.unwrap_or(60 * MINUTE);
    topology_limits::time_to_live(time_to_live)
        .map(Some)
        .map_err(|error| properties.error_in(PROPERTY, error))
}

fn duplicate_detection(properties: &Object<'_>) -> Result<Option<Duration>, String> {
    const PROPERTY: &str = "DuplicateDetectionHistoryTimeWindow";
    let window = properties
        .duration(PROPERTY)?
        .unwrap_or(SHORTEST_DUPLICATE_WINDOW);
    let window = topology_limits::duplicate_window(window)
        .map_err(|error| properties.error_in(PROPERTY, error))?;
    Ok(properties
        .boolean("RequiresDuplicateDetection")?
        .then_some(window))
}

/// A queue's or topic's name.
fn entity_name<'a>(object: &Object<'a>) -> Result<&'a str, String> {
    let name = object.required_text("Name")?;
    topology_limits::entity_name(name).map_err(|error| object.error_in("Name", error))?;
    Ok(name)
}

/// A subscription's or rule's name.
pub(crate) fn short_name<'a>(object: &Object<'a>) -> Result<&'a str, String> {
    let name = object.required_text("Name")?;
    topology_limits::short_name(name).map_err(|error| object.error_in("Name", error))?;
    Ok(name)
}
