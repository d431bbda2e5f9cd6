//! Why there is no package; each says what to do, or what is wrong where.

use std::{io, path::PathBuf};

use thiserror::Error;

/// Nothing usable was made.
#[derive(Debug, Error)]
pub enum PackageError {
    #[error("{} is missing", .0.display())]
    Missing(PathBuf),
    #[error("{} is no part of the package: move it, or say in packaging/src/contents.rs what it is for", .0.display())]
    Extra(PathBuf),
    #[error("{}: {}", .0.display(), .1)]
    Wrong(PathBuf, String),
    #[error("{}: {}", .0.display(), .1)]
    Unreadable(PathBuf, #[source] io::Error),
    #[error("{} cannot be written: {}", .0.display(), .1)]
    Unwritable(PathBuf, #[source] io::Error),
    #[error(".funcignore leaves out {0}, which is part of the package: add `!/{first}`", first = first(.0))]
    Ignored(String),
    #[error("{} is no part of the package, and .funcignore leaves it in, as Core Tools reads it", .0.display())]
    NotIgnored(PathBuf),
    #[error("{} is {size} bytes, {over} more than the {budget} it may have", .path.display(), over = .size - .budget)]
    TooLarge {
        path: PathBuf,
        size: u64,
        budget: u64,
    },
    #[error("{} {reason}", .path.display())]
    NotPortable { path: PathBuf, reason: String },
    #[error("`cargo {command}`: {reason}")]
    Cargo {
        command: &'static str,
        reason: String,
    },
    #[error(
        "the crate {0} has no licence text: put the one of its repository into packaging/licences, \
         and name it in packaging/src/licences.rs"
    )]
    NoLicence(String),
    #[error("the zip cannot be made: {0}")]
    Zip(#[from] zip::result::ZipError),
}

/// The line that keeps a file: the file itself, or its folder.
fn first(name: &str) -> String {
    match name.split_once('/') {
        Some((folder, _)) => format!("{folder}/"),
        None => name.to_owned(),
    }
}
