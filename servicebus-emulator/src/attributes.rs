//! What the management API sets and shows of an entity and the topology file does not have.
//!
//! Two of them have an effect here: the status, and the maximum size. The others are kept and shown as they were set, so
//! that clients and explorers find what they wrote; see the crate's README for which these are.

use std::time::Duration;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attributes {
    pub status: Status,
    /// `None` is the namespace's own limit.
    pub max_size_in_megabytes: Option<u32>,
    pub user_metadata: Option<String>,
    pub auto_delete_on_idle: Option<Duration>,
    pub enable_batched_operations: bool,
    pub enable_partitioning: bool,
    pub enable_express: bool,
    pub support_ordering: bool,
    pub max_message_size_in_kilobytes: Option<u32>,
    /// Of a subscription only.
    pub dead_lettering_on_filter_evaluation_exceptions: bool,
    /// Of a topic only.
    pub filtering_messages_before_publishing: bool,
}

impl Default for Attributes {
    fn default() -> Self {
        Self {
            status: Status::Active,
            max_size_in_megabytes: None,
            user_metadata: None,
            auto_delete_on_idle: None,
            enable_batched_operations: true,
            enable_partitioning: false,
            enable_express: false,
            support_ordering: true,
            max_message_size_in_kilobytes: None,
            dead_lettering_on_filter_evaluation_exceptions: true,
            filtering_messages_before_publishing: false,
        }
    }
}

/// What may be done with an entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    Active,
    Disabled,
    SendDisabled,
    ReceiveDisabled,
}

impl Status {
    const ALL: [Self; 4] = [
        Self::Active,
        Self::Disabled,
        Self::SendDisabled,
        Self::ReceiveDisabled,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Active => "Active",
            Self::Disabled => "Disabled",
            Self::SendDisabled => "SendDisabled",
            Self::ReceiveDisabled => "ReceiveDisabled",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|status| status.name().eq_ignore_ascii_case(name))
    }

    pub(crate) fn takes_messages(self) -> bool {
        matches!(self, Self::Active | Self::ReceiveDisabled)
    }

    pub(crate) fn gives_messages(self) -> bool {
        matches!(self, Self::Active | Self::SendDisabled)
    }
}
