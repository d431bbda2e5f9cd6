//! The crates that are in the handler: those that cargo links for this target with the features of this package.
//!
//! `cargo metadata` alone would not do: it knows the features of the whole workspace only. So `cargo tree` says which
//! crates there are, and `cargo metadata` what each is. Build scripts, macros and what they need are not in the binary.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

use serde::Deserialize;

use crate::{architecture::Architecture, contents::HANDLER, error::PackageError};

/// Name and version.
pub type Id = (String, String);

/// A crate, as its manifest and the lock file describe it.
#[derive(Debug, Clone)]
pub struct Dependency {
    pub id: Id,
    /// An SPDX expression.
    pub licence: Option<String>,
    pub repository: Option<String>,
    /// The folder of its source.
    pub folder: PathBuf,
    /// SHA-256 of the crate's archive; none of what is not from the registry.
    pub checksum: Option<String>,
    /// The crates that it calls.
    pub needs: BTreeSet<Id>,
}

/// What cargo knows of the workspace.
#[derive(Debug, Deserialize)]
pub struct Workspace {
    pub target_directory: PathBuf,
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    repository: Option<String>,
    manifest_path: PathBuf,
}

impl Workspace {
    /// Asks cargo, with the versions of the lock file. What only other platforms need is not asked for.
    pub fn read(app: &Path, architecture: Architecture) -> Result<Self, PackageError> {
        let platform = ["--filter-platform", architecture.target()];
        let text = cargo(
            app,
            "metadata",
            &["--format-version", "1", platform[0], platform[1]],
        )?;
        serde_json::from_str(&text).map_err(|error| PackageError::Cargo {
            command: "metadata",
            reason: error.to_string(),
        })
    }

    /// The handler and all that is in it, by name and version.
    pub fn dependencies(
        &self,
        app: &Path,
        architecture: Architecture,
    ) -> Result<BTreeMap<Id, Dependency>, PackageError> {
        let tree = cargo(
            app,
            "tree",
            &[
                "--package",
                HANDLER,
                "--edges",
                "normal,no-proc-macro",
                "--target",
                architecture.target(),
                "--prefix",
                "depth",
                "--format",
                " {p}",
            ],
        )?;
        let needs = edges(&tree).map_err(|line| PackageError::Cargo {
            command: "tree",
            reason: format!("the line `{line}` is not understood"),
        })?;
        let lock = app.join("Cargo.lock");
        let checksums = std::fs::read_to_string(&lock)
            .map_err(|error| PackageError::Unreadable(lock, error))
            .map(|text| checksums(&text))?;
        needs
            .into_iter()
            .map(|(id, needs)| {
                let package = self
                    .packages
                    .iter()
                    .find(|package| package.name == id.0 && package.version == id.1)
                    .ok_or_else(|| PackageError::Cargo {
                        command: "metadata",
                        reason: format!("{} {} is unknown", id.0, id.1),
                    })?;
                let dependency = Dependency {
                    licence: package.license.clone(),
                    repository: package.repository.clone(),
                    folder: package
                        .manifest_path
                        .parent()
                        .unwrap_or(Path::new(""))
                        .to_owned(),
                    checksum: checksums.get(&id).cloned(),
                    needs,
                    id: id.clone(),
                };
                Ok((id, dependency))
            })
            .collect()
    }
}

/// Who needs whom, from lines as ` 2 serde v1.0.0 (*)` with the depth in front; the error is a line that is none.
pub fn edges(tree: &str) -> Result<BTreeMap<Id, BTreeSet<Id>>, String> {
    let mut edges = BTreeMap::<Id, BTreeSet<Id>>::new();
    let mut path = Vec::<Id>::new();
    for line in tree.lines() {
        let mut words = line.split_whitespace();
        let parsed = (|| {
            let depth: usize = words.next()?.parse().ok()?;
            let name = words.next()?.to_owned();
            let version = words.next()?.strip_prefix('v')?.to_owned();
            (depth <= path.len()).then_some((depth, (name, version)))
        })();
        let (depth, id) = parsed.ok_or(line)?;
        path.truncate(depth);
        if let Some(parent) = path.last().cloned() {
            edges.entry(parent).or_default().insert(id.clone());
        }
        edges.entry(id.clone()).or_default();
        path.push(id);
    }
    Ok(edges)
}

/// The checksums of the lock file, in which cargo writes one field a line.
fn checksums(lock: &str) -> BTreeMap<Id, String> {
    let value = |block: &str, field: &str| {
        block.lines().find_map(|line| {
            let value = line.strip_prefix(field)?.strip_prefix(" = \"")?;
            value.strip_suffix('"').map(str::to_owned)
        })
    };
    lock.split("[[package]]")
        .filter_map(|block| {
            let id = (value(block, "name")?, value(block, "version")?);
            Some((id, value(block, "checksum")?))
        })
        .collect()
}

fn cargo(app: &Path, command: &'static str, arguments: &[&str]) -> Result<String, PackageError> {
    let failed = |reason: String| PackageError::Cargo { command, reason };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .arg(command)
        .arg("--locked")
        .args(arguments)
        .current_dir(app)
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        ));
    }
    String::from_utf8(output.stdout).map_err(|error| failed(error.to_string()))
}
