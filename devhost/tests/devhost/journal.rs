//! What the stand-ins keep, and what is left of it after an accident.

use std::io::Write;

use devhost::journal::{Entry, Journal};
use serde::{Deserialize, Serialize};

use crate::app::App;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Note {
    id: String,
    text: String,
}

impl Entry for Note {
    fn key(&self) -> Option<(String, String)> {
        Some((self.id.clone(), self.text.len().to_string()))
    }
}

/// Accepts the note unless it is known; gives what is known of it.
fn accept(journal: &Journal<Note>, id: &str) -> Option<String> {
    let note = Note {
        id: id.to_owned(),
        text: "12345".to_owned(),
    };
    journal
        .accept(|known| match known.get(id) {
            Some(known) => (None, Some(known.clone())),
            None => (Some(note), None),
        })
        .unwrap()
}

fn ids(journal: &Journal<Note>) -> Vec<String> {
    journal.shown().iter().map(|note| note.id.clone()).collect()
}

#[test]
fn half_a_last_line_is_dropped() {
    let app = App::new();
    let path = app.path().join("notes.jsonl");
    let journal = Journal::open(&path).unwrap();
    accept(&journal, "a");
    drop(journal);
    let mut file = std::fs::File::options().append(true).open(&path).unwrap();
    file.write_all(br#"{"id":"b","te"#).unwrap();
    let journal = Journal::open(&path).unwrap();
    assert_eq!(ids(&journal), ["a"]);
    accept(&journal, "c");
    drop(journal);
    assert_eq!(ids(&Journal::open(&path).unwrap()), ["a", "c"]);
}

#[test]
fn what_is_cleared_leaves_its_key_and_nothing_else() {
    let app = App::new();
    let path = app.path().join("notes.jsonl");
    let journal = Journal::open(&path).unwrap();
    assert_eq!(accept(&journal, "a"), None);
    journal.clear().unwrap();
    assert_eq!(ids(&journal), [""; 0]);
    assert!(!std::fs::read_to_string(&path).unwrap().contains("12345"));
    assert_eq!(accept(&journal, "b"), None);
    drop(journal);
    let journal = Journal::open(&path).unwrap();
    assert_eq!(ids(&journal), ["b"]);
    assert_eq!(accept(&journal, "a").as_deref(), Some("5"));
}

#[test]
fn a_broken_line_is_named_with_what_to_do() {
    let app = App::new();
    let path = app.path().join("notes.jsonl");
    std::fs::write(&path, "nonsense\n").unwrap();
    let error = Journal::<Note>::open(&path).unwrap_err();
    assert!(
        error.contains("notes.jsonl, line 1") && error.contains("delete this file"),
        "{error}"
    );
    assert!(!error.contains("--fresh"), "{error}");
}
