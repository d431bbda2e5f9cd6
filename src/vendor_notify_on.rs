//! When vendors are told of an order: `VENDOR_NOTIFY_ON`.

use crate::{
    config::{ConfigError, Settings},
    event::EventKind,
};

const VARIABLE: &str = "VENDOR_NOTIFY_ON";

/// The event at which vendors are told that there is an order for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VendorNotifyOn {
    Placed,
    Confirmed,
}

impl VendorNotifyOn {
    /// `placed` or `confirmed`; where it is not set, `confirmed` if there is a till that confirms.
    ///
    /// # Errors
    /// If it is neither, or waits for a till that there is not.
    pub fn from_settings(settings: &Settings, has_till: bool) -> Result<Self, ConfigError> {
        let invalid = |problem| ConfigError::invalid(VARIABLE, problem, "placed or confirmed");
        let text = settings
            .optional(VARIABLE)
            .map(|text| text.to_ascii_lowercase());
        match (text.as_deref(), has_till) {
            (Some("placed"), _) | (None, false) => Ok(Self::Placed),
            (Some("confirmed"), true) | (None, true) => Ok(Self::Confirmed),
            (Some("confirmed"), false) => Err(invalid("no order is ever confirmed without a TILL")),
            (Some(_), _) => Err(invalid("it is no event at which vendors can be told")),
        }
    }

    /// Whether vendors hear of that event. Of a cancellation they may have to: it depends on what they know.
    pub fn tells_of(self, kind: &EventKind) -> bool {
        match kind {
            EventKind::Placed => self == Self::Placed,
            EventKind::Confirmed => self == Self::Confirmed,
            EventKind::Cancelled(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_confirms_decides_what_counts_where_nothing_is_set() {
        let read = |value: &str, has_till| {
            VendorNotifyOn::from_settings(&Settings::from_pairs([(VARIABLE, value)]), has_till).ok()
        };
        assert_eq!(read("", true), Some(VendorNotifyOn::Confirmed));
        assert_eq!(read("", false), Some(VendorNotifyOn::Placed));
        assert_eq!(read("Placed", true), Some(VendorNotifyOn::Placed));
        assert_eq!(read("confirmed", true), Some(VendorNotifyOn::Confirmed));
        assert_eq!(read("confirmed", false), None);
        assert_eq!(read("delivered", true), None);
    }
}
