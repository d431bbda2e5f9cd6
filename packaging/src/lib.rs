//! Makes what is deployed from a handler that cargo has built, and refuses to make anything else.
//!
//! For each architecture: the zip with the [`contents`] that Azure gets, written by [`archive`] so that the same commit
//! gives the same bytes; beside it the bill of materials ([`sbom`]) and the [`licences`] of all that is in the binary,
//! which is what [`dependencies`] and the [`toolchain`] say; and [`checksums`] over all. The handler has to be
//! [`portable`] and as small as it was.

pub mod architecture;
pub mod archive;
pub mod checksums;
pub mod contents;
pub mod dependencies;
pub mod error;
pub mod funcignore;
pub mod licences;
pub mod portable;
pub mod sbom;
pub mod toolchain;

use std::{
    fs,
    path::{Path, PathBuf},
};

use architecture::Architecture;
use dependencies::Workspace;
use error::PackageError;
use toolchain::Toolchain;

/// What was made for one architecture.
#[derive(Debug)]
pub struct Package {
    pub zip: PathBuf,
    /// In bytes.
    pub zip_size: u64,
    /// In bytes.
    pub handler_size: u64,
    pub needs: portable::Needs,
}

/// Where the packages are made, in the app's folder.
pub const DIST: &str = "dist";

/// Makes the packages anew: what was in [`DIST`] is gone.
pub fn make(app: &Path, architectures: &[Architecture]) -> Result<Vec<Package>, PackageError> {
    let dist = &app.join(DIST);
    let toolchain = Toolchain::find(app)?;
    let unwritable = |error| PackageError::Unwritable(dist.to_owned(), error);
    if dist.exists() {
        fs::remove_dir_all(dist).map_err(unwritable)?;
    }
    fs::create_dir_all(dist).map_err(unwritable)?;
    let packages = architectures
        .iter()
        .map(|architecture| make_one(app, dist, *architecture, &toolchain))
        .collect::<Result<_, _>>()?;
    let licences = dist.join("rust-std-licences.html");
    fs::copy(&toolchain.std_licences, &licences)
        .map_err(|error| PackageError::Unwritable(licences, error))?;
    checksums::write(dist)?;
    Ok(packages)
}

fn make_one(
    app: &Path,
    dist: &Path,
    architecture: Architecture,
    toolchain: &Toolchain,
) -> Result<Package, PackageError> {
    let workspace = Workspace::read(app, architecture)?;
    let handler = workspace.target_directory.join(architecture.binary());
    let entries = contents::contents(app, &handler)?;
    let needs = portable::check(&handler, architecture)?;
    archive::within(&handler, archive::HANDLER_BUDGET)?;
    let dependencies = workspace.dependencies(app, architecture)?;
    let digest = checksums::sha256(&handler)?;
    let sbom = sbom::document(&dependencies, toolchain, architecture, &digest);
    let licences = licences::document(&dependencies, toolchain, architecture)?;

    let file = |ending: &str| dist.join(format!("{}{ending}", architecture.stem()));
    for (path, text) in [
        (file(".cdx.json"), format!("{sbom:#}\n")),
        (file(".licences.txt"), licences),
    ] {
        fs::write(&path, text).map_err(|error| PackageError::Unwritable(path, error))?;
    }
    let zip = file(".zip");
    archive::write(&zip, &entries)?;
    let size = |path: &Path| {
        fs::metadata(path)
            .map(|metadata| metadata.len())
            .map_err(|error| PackageError::Unreadable(path.to_owned(), error))
    };
    Ok(Package {
        zip_size: size(&zip)?,
        handler_size: size(&handler)?,
        zip,
        needs,
    })
}
