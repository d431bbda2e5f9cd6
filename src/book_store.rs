//! The storage beneath the order book: objects that are written once, in a container of Azure or in a folder.
//!
//! Made once, at start, without touching the network. No call takes longer than 3 s (a list 10 s), and one that
//! fails says why in [`StoreError`]. After a few failures in a row it is left alone for a while ([`crate::book_pause`]):
//! calls then fail at once, so that a book that is down delays nothing else. One that takes nothing, because it is read-only or
//! full, is still read.

use std::collections::BinaryHeap;
use std::fmt;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use time::OffsetDateTime;
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::blob_container::BlobContainer;
use crate::book_folder::BookFolder;
use crate::book_path;
use crate::book_pause::{BookPause, Change};
use crate::config::{ConfigError, Settings};
use crate::storage_account::{BookPlace, ORDER_BOOK};
pub use crate::store_error::StoreError;

const LONGEST_CALL: Duration = Duration::from_secs(3);
const LONGEST_LIST: Duration = Duration::from_secs(10);

/// As many as Azure gives at once.
const PAGE_SIZE: usize = 5000;

/// Clones share it, and what it knows of its failures.
#[derive(Clone)]
pub struct BookStore(Arc<Inner>);

struct Inner {
    place: Place,
    page_size: usize,
    writing: Mutex<BookPause>,
    reading: Mutex<BookPause>,
}

enum Place {
    Container(BlobContainer),
    Folder(Arc<BookFolder>),
}

/// What is asked of either place.
enum Ask {
    Put(String, Bytes),
    Get(String),
    Delete(String),
    List(String, usize),
    /// A list of everything, however long that takes.
    Walk(String),
}

impl Ask {
    fn is_write(&self) -> bool {
        matches!(self, Self::Put(..) | Self::Delete(_))
    }
}

enum Answer {
    IsNew(bool),
    Body(Bytes),
    Listed(Vec<Listed>),
    Nothing,
}

impl Answer {
    fn body(body: Option<Bytes>) -> Self {
        body.map_or(Self::Nothing, Self::Body)
    }

    fn listed(self) -> Vec<Listed> {
        match self {
            Self::Listed(listed) => listed,
            _ => vec![],
        }
    }

    fn put(self) -> Put {
        match self {
            Self::IsNew(true) => Put::Created,
            _ => Put::Existed,
        }
    }
}

/// What became of an object that was to be written once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It was not there and is now.
    Created,
    /// There is one of that name. Perhaps ours: an earlier call whose answer was lost, or the repetition within this
    /// call. Who must know whose it is reads it.
    Existed,
}

/// An object, without what is in it. The order is that of the paths.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    pub path: String,
    pub size: u64,
    pub last_modified: OffsetDateTime,
}

impl BookStore {
    /// Reads `ORDER_BOOK` and, for a container, `AzureWebJobsStorage`; creates the folder if it is one. `None` if there is
    /// no order book.
    ///
    /// # Errors
    /// The first setting that is missing or not usable.
    pub fn from_settings(
        settings: &Settings,
        http: &reqwest::Client,
    ) -> Result<Option<Self>, ConfigError> {
        Self::read(settings, http, BookFolder::open)
    }

    /// The same for whoever only reads: a folder has to be there already, and nothing in it changes.
    pub fn to_read(
        settings: &Settings,
        http: &reqwest::Client,
    ) -> Result<Option<Self>, ConfigError> {
        Self::read(settings, http, BookFolder::open_to_read)
    }

    fn read(
        settings: &Settings,
        http: &reqwest::Client,
        open: fn(&Path) -> io::Result<BookFolder>,
    ) -> Result<Option<Self>, ConfigError> {
        let place = match BookPlace::read(settings)? {
            None => return Ok(None),
            Some(BookPlace::Folder(path)) => match open(&path) {
                Ok(folder) => Place::Folder(Arc::new(folder)),
                Err(error) => {
                    let problem = error.to_string();
                    return Err(ConfigError::invalid(
                        ORDER_BOOK,
                        problem,
                        "a folder of ours",
                    ));
                }
            },
            Some(BookPlace::Container(container)) => {
                Place::Container(BlobContainer::new(container, http))
            }
        };
        Ok(Some(Self::new(place)))
    }

    /// In a folder, which is created if it is missing.
    ///
    /// # Errors
    /// If it can't be created, or is no folder.
    pub fn folder(path: &Path) -> Result<Self, StoreError> {
        let folder = BookFolder::open(path)?;
        Ok(Self::new(Place::Folder(Arc::new(folder))))
    }

    #[cfg(test)]
    fn root(&self) -> &Path {
        match &self.0.place {
            Place::Container(_) => panic!("it is no folder"),
            Place::Folder(folder) => folder.root(),
        }
    }

    fn new(place: Place) -> Self {
        Self(Arc::new(Inner {
            place,
            page_size: PAGE_SIZE,
            writing: Mutex::default(),
            reading: Mutex::default(),
        }))
    }

    /// Writes an object if there is none of that name, and otherwise changes nothing.
    ///
    /// After [`StoreError::Unavailable`] it may be there all the same.
    pub async fn put_once(&self, path: &str, body: impl Into<Bytes>) -> Result<Put, StoreError> {
        let ask = Ask::Put(checked(path)?, body.into());
        self.ask(ask).await.map(Answer::put)
    }

    /// The same, though the store be left alone just now: for what has no other place.
    pub async fn insist(&self, path: &str, body: impl Into<Bytes>) -> Result<Put, StoreError> {
        let ask = Ask::Put(checked(path)?, body.into());
        self.ask_now(ask).await.map(Answer::put)
    }

    /// What is in an object; `None` if there is none of that name.
    pub async fn get(&self, path: &str) -> Result<Option<Bytes>, StoreError> {
        match self.ask(Ask::Get(checked(path)?)).await? {
            Answer::Body(body) => Ok(Some(body)),
            _ => Ok(None),
        }
    }

    /// Takes an object away; that there is none is fine.
    pub async fn delete(&self, path: &str) -> Result<(), StoreError> {
        self.ask(Ask::Delete(checked(path)?)).await.map(drop)
    }

    /// Everything below `prefix`, which is a path or empty, sorted by path.
    pub async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        self.list_first(prefix, usize::MAX).await
    }

    /// The same of as much as there may be, for whoever has the time: only a page of it has to come soon.
    pub async fn walk(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        let ask = Ask::Walk(folder(prefix)?);
        self.ask(ask).await.map(Answer::listed)
    }

    /// The first `limit` by path of what is below `prefix`, where all of it lies in one folder; of several
    /// folders, the first as the place orders them.
    pub async fn list_first(&self, prefix: &str, limit: usize) -> Result<Vec<Listed>, StoreError> {
        let ask = Ask::List(folder(prefix)?, limit);
        self.ask(ask).await.map(Answer::listed)
    }

    /// Whether there is a store at all: a container without which nothing can be listed looks like one that is empty.
    ///
    /// # Errors
    /// If there is none, or it does not answer.
    pub async fn is_there(&self) -> Result<(), StoreError> {
        match &self.0.place {
            Place::Container(container) => container.list("", 1, None).await?.map(drop),
            Place::Folder(folder) => folder.is_there().ok(),
        }
        .ok_or_else(|| StoreError::unavailable("there is no such container or folder"))
    }

    /// Asks, unless there is a pause.
    async fn ask(&self, ask: Ask) -> Result<Answer, StoreError> {
        if !self.pause(ask.is_write()).admits(Instant::now()) {
            return Err(StoreError::Paused);
        }
        self.ask_now(ask).await
    }

    /// Asks, and takes note of what it came to.
    async fn ask_now(&self, ask: Ask) -> Result<Answer, StoreError> {
        let is_write = ask.is_write();
        let longest = match ask {
            Ask::Walk(_) => Duration::MAX,
            Ask::List(..) => LONGEST_LIST,
            Ask::Put(..) | Ask::Get(_) | Ask::Delete(_) => LONGEST_CALL,
        };
        // Boxed, so that it is in the program once and not in each caller.
        let call: Pin<Box<dyn Future<Output = _> + Send + '_>> = match &self.0.place {
            Place::Container(container) => Box::pin(self.ask_container(container, ask)),
            Place::Folder(folder) => Box::pin(ask_folder(Arc::clone(folder), ask)),
        };
        let result = tokio::time::timeout(longest, call)
            .await
            .unwrap_or_else(|_| Err(StoreError::unavailable("it did not answer in time")));
        self.take_note(is_write, result.as_ref().err());
        result
    }

    async fn ask_container(
        &self,
        container: &BlobContainer,
        ask: Ask,
    ) -> Result<Answer, StoreError> {
        Ok(match ask {
            Ask::Put(path, body) => Answer::IsNew(container.put_once(&path, body).await?),
            Ask::Get(path) => Answer::body(container.get(&path).await?),
            Ask::Delete(path) => {
                container.delete(&path).await?;
                Answer::Nothing
            }
            Ask::List(prefix, limit) => {
                Answer::Listed(self.pages(container, &prefix, limit).await?)
            }
            Ask::Walk(prefix) => Answer::Listed(self.pages(container, &prefix, usize::MAX).await?),
        })
    }

    async fn pages(
        &self,
        container: &BlobContainer,
        prefix: &str,
        limit: usize,
    ) -> Result<Vec<Listed>, StoreError> {
        let mut listed = Vec::new();
        let mut marker: Option<String> = None;
        while listed.len() < limit {
            let size = self.0.page_size.min(limit - listed.len());
            let page = container.list(prefix, size, marker.as_deref()).await?;
            // Nothing was ever written.
            let Some(page) = page else { break };
            listed.extend(page.blobs);
            let Some(next) = page.next else { break };
            if marker.as_ref() == Some(&next) {
                return Err(StoreError::unavailable("its list does not go on"));
            }
            marker = Some(next);
        }
        // An account with a hierarchical namespace lists folder by folder. A heap is less code in the program than a sort.
        let mut listed = BinaryHeap::from(listed).into_sorted_vec();
        listed.truncate(limit);
        Ok(listed)
    }

    fn take_note(&self, is_write: bool, error: Option<&StoreError>) {
        let now = Instant::now();
        let failure = error.filter(|error| match error {
            StoreError::Unavailable { .. } | StoreError::Unauthorized { .. } => true,
            StoreError::Full { .. } => is_write,
            StoreError::Refused { .. } | StoreError::Paused => false,
        });
        let change = self.pause(is_write).record(now, failure.is_none());
        let what = if is_write { "written to" } else { "read" };
        match (change, failure) {
            (Some(Change::Begun), Some(failure @ StoreError::Unavailable { .. })) => {
                warn!("the order book is not {what} until it answers again: {failure}");
            }
            (Some(Change::Begun), Some(failure)) => {
                error!("the order book is not {what} until somebody mends it: {failure}");
            }
            (Some(Change::Ended), _) => info!("the order book can be {what} again"),
            (None | Some(Change::Begun), _) => {}
        }
    }

    /// No `.await` happens under it; a panic elsewhere leaves the state whole.
    fn pause(&self, is_write: bool) -> std::sync::MutexGuard<'_, BookPause> {
        let pause = if is_write {
            &self.0.writing
        } else {
            &self.0.reading
        };
        pause.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A list of that many objects at once, to see that the next page is asked for.
#[doc(hidden)]
pub fn with_page_size(store: BookStore, page_size: usize) -> BookStore {
    let inner = Arc::into_inner(store.0).expect("a store that nobody shares");
    BookStore(Arc::new(Inner { page_size, ..inner }))
}

/// A prefix that is a path or empty, as it is asked for.
fn folder(prefix: &str) -> Result<String, StoreError> {
    Ok(match prefix.strip_suffix('/').unwrap_or(prefix) {
        "" => String::new(),
        path => checked(path)? + "/",
    })
}

fn checked(path: &str) -> Result<String, StoreError> {
    if book_path::is_path(path) {
        return Ok(path.to_owned());
    }
    Err(StoreError::refused("that is no name of an object"))
}

/// On a thread that may wait for a disk.
async fn ask_folder(folder: Arc<BookFolder>, ask: Ask) -> Result<Answer, StoreError> {
    let call = move || {
        Ok(match ask {
            Ask::Put(path, body) => Answer::IsNew(folder.put_once(&path, &body)?),
            Ask::Get(path) => Answer::body(folder.get(&path)?),
            Ask::Delete(path) => {
                folder.delete(&path)?;
                Answer::Nothing
            }
            Ask::List(prefix, limit) => Answer::Listed(folder.list(&prefix, limit)?),
            Ask::Walk(prefix) => Answer::Listed(folder.list(&prefix, usize::MAX)?),
        })
    };
    tokio::task::spawn_blocking(call)
        .await
        .unwrap_or_else(|_| Err(StoreError::unavailable("the call was given up")))
}

/// For the log: where the book is.
impl fmt::Display for BookStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.place {
            Place::Container(container) => write!(f, "the container {}", container.url()),
            Place::Folder(folder) => write!(f, "the folder {}", folder.root().display()),
        }
    }
}

impl fmt::Debug for BookStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BookStore({self})")
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            Self(std::env::temp_dir().join(format!("orderup-book-{}", uuid::Uuid::new_v4())))
        }

        fn store(&self) -> BookStore {
            BookStore::folder(&self.0).unwrap()
        }

        /// A file where the folder was: it can't be written to, whoever we are.
        fn replace_by_a_file(&self) {
            fs::remove_dir_all(&self.0).unwrap();
            fs::write(&self.0, "").unwrap();
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
            let _ = fs::remove_file(&self.0);
        }
    }

    async fn paths(store: &BookStore, prefix: &str) -> Vec<String> {
        let listed = store.list(prefix).await.unwrap();
        listed.into_iter().map(|object| object.path).collect()
    }

    fn is_unavailable<T>(result: &Result<T, StoreError>) -> bool {
        matches!(result, Err(StoreError::Unavailable { .. }))
    }

    #[tokio::test]
    async fn an_object_is_written_once_and_read_and_taken_away() {
        let folder = Folder::new();
        let store = folder.store();
        let path = "orders/1/placed.json";
        assert_eq!(store.get(path).await, Ok(None));
        assert_eq!(store.put_once(path, "first").await, Ok(Put::Created));
        assert_eq!(store.put_once(path, "second").await, Ok(Put::Existed));
        assert_eq!(store.get(path).await, Ok(Some(Bytes::from("first"))));
        for _ in 0..2 {
            assert_eq!(store.delete(path).await, Ok(()));
            assert_eq!(store.get(path).await, Ok(None));
        }
        assert_eq!(store.put_once(path, "").await, Ok(Put::Created));
        // A second process finds it.
        assert_eq!(folder.store().get(path).await, Ok(Some(Bytes::new())));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_fifty_who_create_it_one_does() {
        let folder = Folder::new();
        let store = folder.store();
        for object in 0..5 {
            let creators = (0..50).map(|creator| {
                let store = store.clone();
                tokio::spawn(async move {
                    let path = format!("orders/{object}/placed.json");
                    let put = store
                        .put_once(&path, format!("by {creator}"))
                        .await
                        .unwrap();
                    (put, creator, store.get(&path).await.unwrap().unwrap())
                })
            });
            let results = futures_util::future::join_all(creators).await;
            let results: Vec<_> = results.into_iter().map(Result::unwrap).collect();
            let created: Vec<_> = results
                .iter()
                .filter(|result| result.0 == Put::Created)
                .collect();
            assert_eq!(created.len(), 1);
            let winner = format!("by {}", created[0].1);
            assert!(results.iter().all(|result| result.2 == winner));
        }
        let unfinished = fs::read_dir(folder.0.join(".unfinished")).unwrap();
        assert_eq!(unfinished.count(), 0);
    }

    #[tokio::test]
    async fn a_list_is_sorted_by_path_and_holds_nothing_that_is_not_ours() {
        let folder = Folder::new();
        let store = folder.store();
        for path in [
            "outbox/9",
            "outbox/10",
            "outbox/1/a",
            "outbox/1-b",
            "outboxes/1",
            "z",
        ] {
            store.put_once(path, "body").await.unwrap();
        }
        for foreign in [
            "outbox/not ours",
            "outbox/.hidden",
            "outbox/name#1",
            ".unfinished/left",
        ] {
            fs::write(folder.0.join(foreign), "").unwrap();
        }
        #[cfg(unix)]
        {
            use std::os::unix::ffi::OsStrExt;
            let name = std::ffi::OsStr::from_bytes(b"outbox/\xff\xfe");
            fs::write(folder.0.join(name), "").unwrap();
        }
        let outbox = ["outbox/1-b", "outbox/1/a", "outbox/10", "outbox/9"];
        assert_eq!(paths(&store, "outbox").await, outbox);
        assert_eq!(paths(&store, "outbox/").await, outbox);
        assert_eq!(paths(&store, "outbox/1").await, ["outbox/1/a"]);
        assert_eq!(paths(&store, "").await.len(), 6);
        assert_eq!(paths(&store, "nothing/here").await.len(), 0);
        assert_eq!(paths(&store, "z").await.len(), 0);
        let first = store.list_first("outbox", 2).await.unwrap();
        assert_eq!((first[1].path.as_str(), first.len()), ("outbox/1/a", 2));
        assert_eq!(first[0].size, 4);
        let age = OffsetDateTime::now_utc() - first[0].last_modified;
        assert!(age.abs() < time::Duration::MINUTE, "{age}");
    }

    #[tokio::test]
    async fn a_name_that_is_none_is_refused_and_is_no_outage() {
        let folder = Folder::new();
        let store = folder.store();
        for _ in 0..5 {
            for path in ["", "../escape", "a//b", "/etc/passwd", "a b"] {
                let refused = store.put_once(path, "").await.unwrap_err();
                assert!(matches!(refused, StoreError::Refused { .. }), "{refused}");
                assert!(store.get(path).await.is_err() && store.delete(path).await.is_err());
            }
        }
        assert!(store.list("..").await.is_err());
        assert_eq!(store.get("a").await, Ok(None));
    }

    #[tokio::test]
    async fn a_folder_that_is_gone_is_no_empty_book() {
        for operation in 0..4 {
            let folder = Folder::new();
            let store = folder.store();
            store.put_once("a", "body").await.unwrap();
            folder.replace_by_a_file();
            assert!(match operation {
                0 => is_unavailable(&store.put_once("b", "body").await),
                1 => is_unavailable(&store.get("a").await),
                2 => is_unavailable(&store.list("").await),
                _ => is_unavailable(&store.delete("a").await),
            });
        }
    }

    #[tokio::test]
    async fn a_book_that_fails_is_left_alone_for_ten_seconds_at_a_time() {
        let folder = Folder::new();
        let store = folder.store();
        folder.replace_by_a_file();
        for _ in 0..3 {
            assert!(is_unavailable(&store.get("a").await));
        }
        assert_eq!(store.get("a").await, Err(StoreError::Paused));
        assert_eq!(store.clone().list("").await, Err(StoreError::Paused));

        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(is_unavailable(&store.get("a").await));
        assert_eq!(store.get("a").await, Err(StoreError::Paused));

        drop(folder);
        let _folder = BookStore::folder(store.root()).unwrap();
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(store.put_once("a", "body").await, Ok(Put::Created));
        assert_eq!(store.list("").await.unwrap().len(), 1);
        fs::remove_dir_all(store.root()).unwrap();
    }

    #[test]
    fn a_folder_is_made_at_start_and_an_error_says_why_it_is_not() {
        let folder = Folder::new();
        let http = reqwest::Client::new();
        let read = |path: &str| {
            BookStore::from_settings(&Settings::from_pairs([(ORDER_BOOK, path)]), &http)
        };
        let nested = folder.0.join("a/b");
        let store = read(nested.to_str().unwrap()).unwrap().unwrap();
        assert_eq!(
            store.to_string(),
            format!("the folder {}", nested.display())
        );
        for path in ["/proc/orders", "/dev/null/orders"] {
            let error = read(path).unwrap_err().to_string();
            assert!(
                error.contains(ORDER_BOOK) && !error.contains(path),
                "{error}"
            );
        }
        assert!(read("none").unwrap().is_none());
    }

    #[test]
    fn what_a_killed_process_left_is_cleared_away_when_it_is_old() {
        let folder = Folder::new();
        drop(folder.store());
        let [old, new] = ["old", "new"].map(|name| folder.0.join(".unfinished").join(name));
        fs::write(&new, "").unwrap();
        let file = fs::File::create(&old).unwrap();
        let two_hours = Duration::from_secs(2 * 60 * 60);
        file.set_modified(std::time::SystemTime::now() - two_hours)
            .unwrap();
        drop(folder.store());
        assert!(new.exists() && !old.exists());
    }

    #[test]
    fn nothing_secret_is_printed() {
        let text = "AccountName=contoso;AccountKey=aGlkZGVu";
        let settings = Settings::from_pairs([("AzureWebJobsStorage", text)]);
        let store = BookStore::from_settings(&settings, &reqwest::Client::new());
        let printed = format!("{:?}", store.unwrap().unwrap());
        assert_eq!(
            printed,
            "BookStore(the container https://contoso.blob.core.windows.net/order-book)"
        );
    }
}
