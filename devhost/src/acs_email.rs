//! The body of `POST /emails:send`, checked as the service's schema says.
//!
//! Strict where the service may be lenient: a member that the schema does not know is refused, because it is a
//! misspelt one.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;
use uuid::Uuid;

use crate::acs::AcceptedEmail;

/// The service's limit for recipients of one email.
const MOST_RECIPIENTS: usize = 50;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "some members are only checked for their type")]
pub struct Email {
    headers: Option<BTreeMap<String, String>>,
    sender_address: String,
    content: Content,
    recipients: Recipients,
    attachments: Option<Vec<Attachment>>,
    #[serde(default)]
    reply_to: Vec<Address>,
    user_engagement_tracking_disabled: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Content {
    subject: String,
    plain_text: Option<String>,
    html: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recipients {
    to: Vec<Address>,
    #[serde(default)]
    cc: Vec<Address>,
    #[serde(default)]
    bcc: Vec<Address>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "display names are only checked for their type")]
struct Address {
    address: String,
    display_name: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "attachments are only checked for their members")]
struct Attachment {
    name: String,
    content_type: String,
    content_in_base64: String,
    content_id: Option<String>,
}

impl Email {
    /// Reads and checks the body; the error says what is wrong.
    pub fn parse(body: &[u8]) -> Result<Self, String> {
        let email: Self = serde_json::from_slice(body)
            .map_err(|error| format!("The request body is not valid: {error}."))?;
        let Recipients { to, cc, bcc } = &email.recipients;
        if to.is_empty() {
            return Err("recipients.to is empty.".to_owned());
        }
        if to.len() + cc.len() + bcc.len() > MOST_RECIPIENTS {
            return Err(format!("There are more than {MOST_RECIPIENTS} recipients."));
        }
        let people = [
            ("recipients.to", to),
            ("recipients.cc", cc),
            ("recipients.bcc", bcc),
            ("replyTo", &email.reply_to),
        ];
        for (place, people) in people {
            if let Some(index) = people
                .iter()
                .position(|person| !is_address(&person.address))
            {
                return Err(format!("{place}[{index}].address is not an email address."));
            }
        }
        if !is_address(&email.sender_address) {
            return Err("senderAddress is not an email address.".to_owned());
        }
        if email.content.subject.trim().is_empty() {
            return Err("content.subject is empty.".to_owned());
        }
        if email.content.plain_text.is_none() && email.content.html.is_none() {
            return Err("content has neither plainText nor html.".to_owned());
        }
        Ok(email)
    }

    /// What is kept of it.
    pub fn accepted(
        self,
        operation_id: Uuid,
        received_at: Timestamp,
        body_sha256: String,
    ) -> AcceptedEmail {
        let addresses =
            |people: Vec<Address>| people.into_iter().map(|person| person.address).collect();
        AcceptedEmail {
            to: addresses(self.recipients.to),
            cc: addresses(self.recipients.cc),
            bcc: addresses(self.recipients.bcc),
            from: self.sender_address,
            subject: self.content.subject,
            text: self.content.plain_text,
            html: self.content.html,
            reply_to: addresses(self.reply_to),
            operation_id,
            received_at,
            body_sha256,
        }
    }
}

/// Something, an at sign, something: enough to notice a member that holds something else.
fn is_address(text: &str) -> bool {
    !text.contains(char::is_whitespace)
        && text
            .rsplit_once('@')
            .is_some_and(|(user, domain)| !user.is_empty() && !domain.is_empty())
}
