//! Transactions: what a client sends and settles that is to happen as a whole or not at all.
//!
//! A transaction is declared and discharged through messages to the coordinator. What is done under it in between, on any
//! link of the connection, is kept here and becomes one command to the bus when it is discharged. Nothing of it is
//! visible before, and nothing happens when it fails, is rolled back or takes too long.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde_amqp::{Value as Amqp, descriptor::Descriptor};
use uuid::Uuid;

use super::work::LinkId;
use super::{
    errors::{
        NOT_ALLOWED, NOT_IMPLEMENTED, RESOURCE_LIMIT_EXCEEDED, Refusal, TRANSACTION_TIMEOUT,
        UNKNOWN_TRANSACTION,
    },
    value_decoding::{DecodeError, Reader},
};
use crate::{Message, Operation};

/// How long a transaction may take, as in Azure.
const LONGEST: Duration = Duration::from_secs(120);
/// How many operations one may have, as in Azure.
const MOST_OPERATIONS: usize = 100;
/// How many bytes of messages the transactions of a connection may have together, unless one message alone is larger.
const MOST_BYTES: usize = 16 << 20;
/// How many a connection may have at a time.
const MOST_TRANSACTIONS: usize = 100;

/// What is asked of the coordinator.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Declare,
    Discharge { id: Vec<u8>, fail: bool },
}

impl Request {
    pub(crate) fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(payload);
        while !reader.is_empty() {
            if reader.descriptor()? != 0x77 {
                reader.encoded()?;
                continue;
            }
            let Amqp::Described(described) = reader.value()? else {
                break;
            };
            let code = match &described.descriptor {
                Descriptor::Code(code) => *code,
                Descriptor::Name(name) => match name.as_str() {
                    "amqp:declare:list" => 0x31,
                    "amqp:discharge:list" => 0x32,
                    _ => break,
                },
            };
            let Amqp::List(fields) = &described.value else {
                break;
            };
            return match (code, &fields[..]) {
                (0x31, _) => Ok(Self::Declare),
                (0x32, [Amqp::Binary(id), rest @ ..]) => Ok(Self::Discharge {
                    id: id.to_vec(),
                    fail: matches!(rest.first(), Some(Amqp::Bool(true))),
                }),
                _ => break,
            };
        }
        Err(DecodeError::Type("declare or discharge"))
    }
}

#[derive(Debug)]
struct Transaction {
    /// Over which it was declared.
    link: LinkId,
    /// Of its messages, in bytes.
    size: usize,
    operations: Vec<Operation>,
    declared_at: Instant,
    /// Why it cannot be committed any more.
    spoilt: Option<Refusal>,
}

/// Those of one connection that have not been discharged.
#[derive(Debug, Default)]
pub(crate) struct Transactions {
    open: BTreeMap<Vec<u8>, Transaction>,
}

impl Transactions {
    pub(crate) fn declare(&mut self, link: LinkId, now: Instant) -> Result<Vec<u8>, Refusal> {
        if self.open.len() >= MOST_TRANSACTIONS {
            self.open
                .retain(|_, transaction| now < transaction.declared_at + LONGEST);
        }
        if self.open.len() >= MOST_TRANSACTIONS {
            return Err(Refusal::new(
                RESOURCE_LIMIT_EXCEEDED,
                format!("the connection has {MOST_TRANSACTIONS} transactions already"),
            ));
        }
        let id = Uuid::new_v4().into_bytes().to_vec();
        let transaction = Transaction {
            link,
            operations: Vec::new(),
            size: 0,
            declared_at: now,
            spoilt: None,
        };
        self.open.insert(id.clone(), transaction);
        Ok(id)
    }

    /// Makes the operation part of the transaction. What is refused here also keeps the rest from being committed.
    pub(crate) fn enlist(
        &mut self,
        id: &[u8],
        operation: Result<Operation, Refusal>,
        now: Instant,
    ) -> Result<(), Refusal> {
        let kept: usize = self.open.values().map(|transaction| transaction.size).sum();
        let transaction = self.open.get_mut(id).ok_or_else(unknown)?;
        let size = match &operation {
            Ok(Operation::Send { messages, .. }) => messages.iter().map(Message::size).sum(),
            Ok(Operation::Settle { .. }) | Err(_) => 0,
        };
        let operation = if now >= transaction.declared_at + LONGEST {
            Err(late())
        } else if transaction.operations.len() >= MOST_OPERATIONS {
            Err(Refusal::new(
                RESOURCE_LIMIT_EXCEEDED,
                format!("the transaction has {MOST_OPERATIONS} operations already"),
            ))
        } else if kept > 0 && kept + size > MOST_BYTES {
            Err(Refusal::new(
                RESOURCE_LIMIT_EXCEEDED,
                format!("the connection's transactions have {kept} bytes of messages already"),
            ))
        } else {
            operation
        };
        match operation {
            Ok(operation) => {
                transaction.size += size;
                transaction.operations.push(operation);
                Ok(())
            }
            Err(refusal) => {
                transaction.spoilt.get_or_insert(refusal.clone());
                Err(refusal)
            }
        }
    }

    /// Ends the transaction: what is to be carried out now. With `fail` that is nothing.
    pub(crate) fn discharge(
        &mut self,
        id: &[u8],
        fail: bool,
        now: Instant,
    ) -> Result<Vec<Operation>, Refusal> {
        let transaction = self.open.remove(id).ok_or_else(unknown)?;
        if fail {
            return Ok(Vec::new());
        }
        if let Some(refusal) = transaction.spoilt {
            return Err(refusal);
        }
        if now >= transaction.declared_at + LONGEST {
            return Err(late());
        }
        Ok(transaction.operations)
    }

    /// Rolls back what was declared over that link to the coordinator, which the client has closed.
    pub(crate) fn clear(&mut self, link: LinkId) {
        self.open.retain(|_, transaction| transaction.link != link);
    }
}

/// What has no place in a transaction.
pub(crate) fn not_transactional() -> Refusal {
    Refusal::new(
        NOT_ALLOWED,
        "of requests only those that settle messages can be part of a transaction",
    )
}

/// Sending through one entity to another has no API in the SDKs of today, which span entities without it.
pub(crate) fn no_transfers() -> Refusal {
    Refusal::new(
        NOT_IMPLEMENTED,
        "the emulator does not send via an entity; send to the destination in the transaction",
    )
}

fn unknown() -> Refusal {
    Refusal::new(
        UNKNOWN_TRANSACTION,
        "the transaction was not declared, or has been discharged",
    )
}

fn late() -> Refusal {
    Refusal::new(
        TRANSACTION_TIMEOUT,
        format!("the transaction took longer than {LONGEST:?}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Settlement, sample::path};

    const LINK: LinkId = LinkId {
        channel: 0,
        handle: 0,
        serial: 1,
    };

    fn send() -> Operation {
        Operation::Send {
            to: path("q"),
            messages: vec![Message::default()],
        }
    }

    #[test]
    fn a_transaction_gives_its_operations_in_order_and_once() {
        let now = Instant::now();
        let mut transactions = Transactions::default();
        let id = transactions.declare(LINK, now).unwrap();
        let settle = Operation::Settle {
            from: path("q"),
            lock_token: Uuid::nil(),
            settlement: Settlement::Complete,
        };
        assert_eq!(transactions.enlist(&id, Ok(send()), now), Ok(()));
        assert_eq!(transactions.enlist(&id, Ok(settle.clone()), now), Ok(()));
        assert_eq!(
            transactions.discharge(&id, false, now),
            Ok(vec![send(), settle])
        );
        let again = transactions.discharge(&id, false, now).unwrap_err();
        assert_eq!(again.condition, UNKNOWN_TRANSACTION);
        let unknown = transactions.enlist(&id, Ok(send()), now).unwrap_err();
        assert_eq!(unknown.condition, UNKNOWN_TRANSACTION);
    }

    #[test]
    fn one_that_failed_in_part_or_took_too_long_is_not_committed() {
        let now = Instant::now();
        let mut transactions = Transactions::default();
        let spoilt = transactions.declare(LINK, now).unwrap();
        assert_eq!(transactions.enlist(&spoilt, Ok(send()), now), Ok(()));
        let refused = transactions.enlist(&spoilt, Err(not_transactional()), now);
        assert_eq!(refused, Err(not_transactional()));
        assert_eq!(
            transactions.discharge(&spoilt, false, now),
            Err(not_transactional())
        );

        let id = transactions.declare(LINK, now).unwrap();
        let late = transactions.discharge(&id, false, now + LONGEST);
        assert_eq!(late.unwrap_err().condition, TRANSACTION_TIMEOUT);

        let id = transactions.declare(LINK, now).unwrap();
        assert_eq!(transactions.enlist(&id, Ok(send()), now), Ok(()));
        assert_eq!(transactions.discharge(&id, true, now), Ok(Vec::new()));
    }

    #[test]
    fn requests_are_read_as_clients_write_them() {
        // As the .NET client declares, and discharges with an id of two bytes.
        let declare = [0x00, 0x53, 0x77, 0x00, 0x53, 0x31, 0x45];
        assert_eq!(Request::decode(&declare), Ok(Request::Declare));
        let discharge = [
            0x00, 0x53, 0x77, 0x00, 0x53, 0x32, 0xc0, 0x06, 0x02, 0xa0, 0x02, 0x01, 0x02, 0x41,
        ];
        let id = vec![1, 2];
        let fail = true;
        assert_eq!(
            Request::decode(&discharge),
            Ok(Request::Discharge { id, fail })
        );
        for other in [&[][..], &[0x00, 0x53, 0x77, 0x40], &declare[..5]] {
            assert!(Request::decode(other).is_err());
        }
    }
}
