//! The durable side of the namespace: one file in the data folder.
//!
//! It is opened exclusively, so that no two processes own the same messages, and read whole. From then on each
//! batch of changes is one transaction, on the disk when [`Store::commit`] returns. Locks are not in it.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use jiff::Timestamp;
use redb::{
    Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, StorageError,
    TableDefinition,
};

use crate::{
    OpenError,
    broker::{Frozen, Item},
    description::Remembered,
    entity::Record,
    journal::Change,
};

const FILE: &str = "servicebus.redb";

/// In bytes; little, because everything that is read more than once is in the broker's memory.
const CACHE: usize = 16 << 20;

/// Rises with every change of what the tables hold.
const FORMAT: u64 = 3;

const FORMAT_TABLE: TableDefinition<'_, &str, u64> = TableDefinition::new("format");
/// (entity, sequence number) to the encoded [`Record`].
const MESSAGES: TableDefinition<'_, (&str, i64), &[u8]> = TableDefinition::new("messages");
/// Entity to the highest sequence number that it has given out.
const LAST_SEQUENCES: TableDefinition<'_, &str, i64> = TableDefinition::new("last-sequences");
/// (entity, message id) to the time at which it was accepted, in nanoseconds since the epoch.
const SEEN: TableDefinition<'_, (&str, &str), i128> = TableDefinition::new("seen");
/// (entity, session) to its encoded state and when that was set.
const SESSION_STATES: TableDefinition<'_, (&str, &str), &[u8]> =
    TableDefinition::new("session-states");
/// Entity to what the management API has made of it, encoded.
const ENTITIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("entities");

#[derive(Debug, Clone)]
pub(crate) struct Store {
    folder: PathBuf,
    /// `None` after a failure, until the file could be opened again.
    database: Arc<Mutex<Option<Database>>>,
}

impl Store {
    /// Opens the store in that folder, which is created where it does not exist.
    pub(crate) fn open(folder: &Path) -> Result<Self, OpenError> {
        let store = Self {
            folder: folder.to_owned(),
            database: Arc::default(),
        };
        fs::create_dir_all(folder)
            .map_err(|error| store.unusable(format!("it cannot be created: {error}")))?;
        let database = caught(|| {
            // Without the check, a file altered by someone else could end the process instead of being refused.
            let database = open_file(folder, true)?;
            prepare(&database)?;
            Ok(database)
        })
        .map_err(|reason| store.unusable(reason))?;
        *store.database() = Some(database);
        Ok(store)
    }

    /// Hands over all that the store holds, one after the other.
    pub(crate) fn read(
        &self,
        mut take: impl FnMut(Item) -> Result<(), String>,
    ) -> Result<(), OpenError> {
        self.with(|database| read(database, &mut take))
            .map_err(|reason| self.unusable(reason))
    }

    /// How the broker gets back what it has left to this store.
    pub(crate) fn frozen(&self) -> Frozen {
        let store = self.clone();
        Frozen::new(Box::new(move |entity, first, last| {
            store.with(|database| {
                records(database, entity, first, last).map_err(|error| error.to_string())
            })
        }))
    }

    /// Carries out all of the changes or none. After an error it may be either: whoever knows better
    /// writes them again.
    pub(crate) fn commit(&self, changes: &[Change]) -> Result<(), String> {
        if changes.is_empty() {
            return Ok(());
        }
        self.with(|database| write(database, changes).map_err(|error| error.to_string()))
    }

    pub(crate) fn unusable(&self, reason: String) -> OpenError {
        OpenError::Data {
            folder: self.folder.display().to_string(),
            reason,
        }
    }

    fn database(&self) -> MutexGuard<'_, Option<Database>> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works with the open file. After an error of the disk the library refuses the file until it has been opened again.
    fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T, String>) -> Result<T, String> {
        let mut slot = self.database();
        let database = slot.take();
        let (database, outcome) = caught(|| {
            let database = match database {
                Some(database) => database,
                // What this process has written itself needs no check, which is a pass over the whole file.
                None => open_file(&self.folder, false)?,
            };
            let outcome = work(&database)?;
            Ok((database, outcome))
        })?;
        *slot = Some(database);
        Ok(outcome)
    }
}

/// A panic of the storage library is an error like any other; what it was working on is gone by then.
fn caught<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let reason = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no reason given");
        Err(format!("the storage library panicked: {reason}"))
    })
}

fn open_file(folder: &Path, check_integrity: bool) -> Result<Database, String> {
    let mut builder = Database::builder();
    builder.set_check_integrity_on_open(check_integrity);
    builder.set_cache_size(CACHE);
    let opened = builder.create(folder.join(FILE));
    opened.map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            "another process is using it; end that one, or choose another data folder".to_owned()
        }
        DatabaseError::Storage(StorageError::Io(error))
            if error.kind() != std::io::ErrorKind::InvalidData =>
        {
            format!("`{FILE}` cannot be opened: {error}")
        }
        DatabaseError::UpgradeRequired(_) => {
            format!("`{FILE}` is from another version; {CHOOSE_ANOTHER}")
        }
        error => format!("`{FILE}` is damaged ({error}); {CHOOSE_ANOTHER}"),
    })
}

const CHOOSE_ANOTHER: &str =
    "move it away or choose another data folder to begin with an empty namespace";

/// Creates what a new file lacks, and checks that an old one can be read.
fn prepare(database: &Database) -> Result<(), String> {
    match format(database).map_err(damaged)? {
        None => create(database).map_err(|error| format!("`{FILE}` cannot be written: {error}")),
        Some(FORMAT) => Ok(()),
        Some(other) => Err(format!(
            "`{FILE}` has format {other}, and this version reads format {FORMAT} only; {CHOOSE_ANOTHER}"
        )),
    }
}

fn damaged(error: impl Into<redb::Error>) -> String {
    let error: redb::Error = error.into();
    format!("`{FILE}` is damaged ({error}); {CHOOSE_ANOTHER}")
}

fn unreadable(what: impl std::fmt::Display) -> String {
    format!("`{FILE}` is damaged ({what} cannot be read); {CHOOSE_ANOTHER}")
}

fn format(database: &Database) -> Result<Option<u64>, redb::Error> {
    match database.begin_read()?.open_table(FORMAT_TABLE) {
        Ok(table) => Ok(Some(
            table.get("version")?.map_or(0, |version| version.value()),
        )),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn create(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction
        .open_table(FORMAT_TABLE)?
        .insert("version", FORMAT)?;
    transaction.open_table(MESSAGES)?;
    transaction.open_table(LAST_SEQUENCES)?;
    transaction.open_table(SEEN)?;
    transaction.open_table(SESSION_STATES)?;
    transaction.open_table(ENTITIES)?;
    transaction.commit()?;
    Ok(())
}

fn read(
    database: &Database,
    take: &mut impl FnMut(Item) -> Result<(), String>,
) -> Result<(), String> {
    let transaction = database.begin_read().map_err(damaged)?;
    let mut remembered = Vec::new();
    for entry in transaction
        .open_table(ENTITIES)
        .map_err(damaged)?
        .iter()
        .map_err(damaged)?
    {
        let (entity, value) = entry.map_err(damaged)?;
        let entity = entity.value();
        let record = postcard::from_bytes::<Remembered>(value.value())
            .map_err(|_| unreadable(format_args!("the description of `{entity}`")))?;
        remembered.push((entity.to_owned(), record));
    }
    take(Item::Entities(remembered))?;
    for entry in transaction
        .open_table(LAST_SEQUENCES)
        .map_err(damaged)?
        .iter()
        .map_err(damaged)?
    {
        let (entity, sequence) = entry.map_err(damaged)?;
        take(Item::LastSequence(
            entity.value().to_owned(),
            sequence.value(),
        ))?;
    }
    for entry in transaction
        .open_table(MESSAGES)
        .map_err(damaged)?
        .iter()
        .map_err(damaged)?
    {
        let (key, value) = entry.map_err(damaged)?;
        let (entity, sequence) = key.value();
        let record = postcard::from_bytes::<Record>(value.value())
            .map_err(|_| unreadable(format_args!("message {sequence} of `{entity}`")))?;
        take(Item::Message(entity.to_owned(), sequence, record))?;
    }
    for entry in transaction
        .open_table(SEEN)
        .map_err(damaged)?
        .iter()
        .map_err(damaged)?
    {
        let (key, at) = entry.map_err(damaged)?;
        let (entity, message_id) = key.value();
        let at = Timestamp::from_nanosecond(at.value()).unwrap_or(Timestamp::MIN);
        take(Item::Seen(entity.to_owned(), message_id.to_owned(), at))?;
    }
    for entry in transaction
        .open_table(SESSION_STATES)
        .map_err(damaged)?
        .iter()
        .map_err(damaged)?
    {
        let (key, value) = entry.map_err(damaged)?;
        let (entity, session) = key.value();
        let (state, updated) = postcard::from_bytes::<(Bytes, Timestamp)>(value.value())
            .map_err(|_| unreadable(format_args!("the state of a session of `{entity}`")))?;
        take(Item::SessionState(
            entity.to_owned(),
            session.to_owned(),
            state,
            updated,
        ))?;
    }
    Ok(())
}

/// The records of one entity in that range of sequence numbers.
fn records(
    database: &Database,
    entity: &str,
    first: i64,
    last: i64,
) -> Result<Vec<(i64, Record)>, redb::Error> {
    let transaction = database.begin_read()?;
    let messages = transaction.open_table(MESSAGES)?;
    let mut records = Vec::new();
    for entry in messages.range((entity, first)..=(entity, last))? {
        let (key, value) = entry?;
        let record = postcard::from_bytes(value.value())
            .map_err(|error| StorageError::Corrupted(error.to_string()))?;
        records.push((key.value().1, record));
    }
    Ok(records)
}

fn write(database: &Database, changes: &[Change]) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    {
        let mut messages = transaction.open_table(MESSAGES)?;
        let mut last_sequences = transaction.open_table(LAST_SEQUENCES)?;
        let mut seen = transaction.open_table(SEEN)?;
        let mut session_states = transaction.open_table(SESSION_STATES)?;
        let mut entities = transaction.open_table(ENTITIES)?;
        for change in changes {
            match change {
                Change::Put {
                    entity,
                    sequence,
                    record,
                } => {
                    let bytes = postcard::to_allocvec(record)
                        .map_err(|error| StorageError::Corrupted(error.to_string()))?;
                    messages.insert((&**entity, *sequence), bytes.as_slice())?;
                }
                Change::Remove { entity, sequence } => {
                    messages.remove((&**entity, *sequence))?;
                }
                Change::LastSequence { entity, sequence } => {
                    last_sequences.insert(&**entity, *sequence)?;
                }
                Change::Seen {
                    entity,
                    message_id,
                    at,
                } => {
                    seen.insert((&**entity, &**message_id), at.as_nanosecond())?;
                }
                Change::Forget { entity, message_id } => {
                    seen.remove((&**entity, &**message_id))?;
                }
                Change::Clear { entity } => {
                    let entity = &**entity;
                    let sequences = (entity, i64::MIN)..=(entity, i64::MAX);
                    messages.retain_in(sequences, |_, _| false)?;
                    last_sequences.remove(entity)?;
                    // The least name that comes after all pairs with this one.
                    let after = format!("{entity}\0");
                    let pairs = (entity, "")..(after.as_str(), "");
                    seen.retain_in(pairs.clone(), |_, _| false)?;
                    session_states.retain_in(pairs, |_, _| false)?;
                }
                Change::Remember {
                    entity,
                    record: Some(record),
                } => {
                    let bytes = postcard::to_allocvec(&**record)
                        .map_err(|error| StorageError::Corrupted(error.to_string()))?;
                    entities.insert(&**entity, bytes.as_slice())?;
                }
                Change::Remember {
                    entity,
                    record: None,
                } => {
                    entities.remove(&**entity)?;
                }
                Change::SessionState {
                    entity,
                    session,
                    state: Some(state),
                } => {
                    let bytes = postcard::to_allocvec(state)
                        .map_err(|error| StorageError::Corrupted(error.to_string()))?;
                    session_states.insert((&**entity, &**session), bytes.as_slice())?;
                }
                Change::SessionState {
                    entity,
                    session,
                    state: None,
                } => {
                    session_states.remove((&**entity, &**session))?;
                }
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_the_storage_library_is_an_error() {
        let place = 7;
        let outcome = caught::<()>(|| panic!("no page {place}"));
        assert_eq!(
            outcome,
            Err("the storage library panicked: no page 7".to_owned())
        );
        assert!(caught::<()>(|| panic!("fixed text")).is_err_and(|it| it.ends_with("fixed text")));
        assert_eq!(caught(|| Ok(1)), Ok(1));
    }
}
