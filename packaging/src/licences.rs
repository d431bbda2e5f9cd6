//! The licence texts of all that is in the binary, from the sources it was built of.
//!
//! Each text is there once, below the crates that have it. Those of Rust's standard library are a page of their own,
//! which comes with the compiler.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    architecture::Architecture,
    contents::HANDLER,
    dependencies::{Dependency, Id},
    error::PackageError,
    toolchain::Toolchain,
};

/// How the names of such files begin, in capitals.
const BEGINNINGS: [&str; 6] = [
    "LICENSE",
    "LICENCE",
    "COPYING",
    "COPYRIGHT",
    "NOTICE",
    "UNLICENSE",
];

/// The texts that repositories have and their crates lack, by the repository's address.
const REPOSITORIES: [(&str, &str); 1] = [(
    "https://github.com/azure/azure-sdk-for-rust",
    include_str!("../licences/azure-sdk-for-rust.txt"),
)];

/// All texts in one; the error names a crate without any.
pub fn document(
    dependencies: &BTreeMap<Id, Dependency>,
    toolchain: &Toolchain,
    architecture: Architecture,
) -> Result<String, PackageError> {
    let mut owners = BTreeMap::<String, BTreeSet<String>>::new();
    for (id, dependency) in dependencies.iter().filter(|(id, _)| id.0 != HANDLER) {
        let licence = dependency
            .licence
            .as_deref()
            .unwrap_or("no SPDX expression");
        let owner = format!("{} {} ({licence})", id.0, id.1);
        for text in texts(dependency)? {
            owners.entry(text).or_default().insert(owner.clone());
        }
    }
    for file in &toolchain.zig_licences {
        let owner = format!("ziglang {} (compiler-rt and libunwind)", toolchain.zig);
        owners.entry(read(file)?).or_default().insert(owner);
    }
    let mut sections: Vec<_> = owners
        .into_iter()
        .map(|(text, owners)| (owners, text))
        .collect();
    sections.sort();
    let mut document = format!(
        "What others have written of orderup for {}, and their licences.\n\n\
         Rust's standard library ({}) is in it, too: see rust-std-licences.html.\n",
        architecture.target(),
        toolchain.rust
    );
    for (owners, text) in sections {
        let rule = "=".repeat(80);
        let owners = Vec::from_iter(owners).join("\n");
        // Writing to a String cannot fail.
        let _ = write!(document, "\n{rule}\n{owners}\n{rule}\n\n{text}\n");
    }
    Ok(document)
}

/// The texts of one crate, anywhere in its folder; at least one.
fn texts(dependency: &Dependency) -> Result<BTreeSet<String>, PackageError> {
    let mut files = Vec::new();
    find(&dependency.folder, &mut files)?;
    let mut texts: BTreeSet<String> = files
        .iter()
        .map(|file| read(file))
        .collect::<Result<_, _>>()?;
    if texts.is_empty() {
        let repository = dependency.repository.as_deref().unwrap_or_default();
        let repository = repository.to_ascii_lowercase();
        let (_, text) = REPOSITORIES
            .iter()
            .find(|(address, _)| repository.starts_with(address))
            .ok_or_else(|| {
                PackageError::NoLicence(format!("{} {}", dependency.id.0, dependency.id.1))
            })?;
        texts.insert(text.trim().to_owned());
    }
    Ok(texts)
}

fn find(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), PackageError> {
    let unreadable = |error| PackageError::Unreadable(folder.to_owned(), error);
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let capitals = name.to_ascii_uppercase();
        if path.is_dir() {
            find(&path, files)?;
        } else if BEGINNINGS.iter().any(|begin| capitals.starts_with(begin))
            && !capitals.ends_with(".RS")
        {
            files.push(path);
        }
    }
    Ok(())
}

/// The text with the line ends of this system, and none around it.
fn read(file: &Path) -> Result<String, PackageError> {
    let bytes = fs::read(file).map_err(|error| PackageError::Unreadable(file.to_owned(), error))?;
    Ok(String::from_utf8_lossy(&bytes)
        .replace("\r\n", "\n")
        .trim_matches('\n')
        .to_owned())
}
