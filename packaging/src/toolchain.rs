//! What the compiler and the linker bring into the handler: Rust's standard library, and of zig the unwinder of LLVM and
//! its own compiler-rt.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::error::PackageError;

/// The compiler, and the pinned zig.
#[derive(Debug)]
pub struct Toolchain {
    /// Of the compiler and its standard library, as in `1.95.0`.
    pub rust: String,
    /// As in `0.17.1`.
    pub zig: String,
    /// The licences of the standard library, a page that comes with the compiler.
    pub std_licences: PathBuf,
    /// The licences of what zig adds, from its package.
    pub zig_licences: Vec<PathBuf>,
}

impl Toolchain {
    /// The compiler that cargo uses, and the zig that `just zig` has installed.
    pub fn find(app: &Path) -> Result<Self, PackageError> {
        let release = rustc(&["--version", "--verbose"])?;
        let rust = release
            .lines()
            .find_map(|line| line.strip_prefix("release: "))
            .unwrap_or_default()
            .to_owned();
        let sysroot = rustc(&["--print", "sysroot"])?;
        let std_licences = Path::new(sysroot.trim()).join("share/doc/rust/COPYRIGHT-library.html");
        if !std_licences.is_file() {
            return Err(PackageError::Missing(std_licences));
        }
        let requirements = app.join("packaging/requirements.txt");
        let zig = fs::read_to_string(&requirements)
            .map_err(|error| PackageError::Unreadable(requirements.clone(), error))?
            .lines()
            .find_map(|line| line.strip_prefix("ziglang=="))
            .and_then(|rest| rest.split_whitespace().next())
            .map(str::to_owned)
            .ok_or_else(|| {
                PackageError::Wrong(requirements, "it does not pin ziglang".to_owned())
            })?;
        let zig_folder = zig_folder(app)?;
        let zig_licences =
            ["LICENSE", "lib/libunwind/LICENSE.TXT"].map(|file| zig_folder.join(file));
        Ok(Self {
            rust,
            zig,
            std_licences,
            zig_licences: zig_licences.to_vec(),
        })
    }
}

/// The folder of the Python package, which is below that of a version of Python.
fn zig_folder(app: &Path) -> Result<PathBuf, PackageError> {
    let lib = app.join("target/zig/lib");
    let found = fs::read_dir(&lib)
        .map_err(|error| PackageError::Unreadable(lib.clone(), error))?
        .filter_map(|entry| Some(entry.ok()?.path().join("site-packages/ziglang")))
        .find(|folder| folder.is_dir());
    found.ok_or_else(|| PackageError::Missing(lib.join("python3/site-packages/ziglang")))
}

fn rustc(arguments: &[&str]) -> Result<String, PackageError> {
    let failed = |reason: String| PackageError::Cargo {
        command: "rustc",
        reason,
    };
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc)
        .args(arguments)
        .output()
        .map_err(|error| failed(error.to_string()))?;
    String::from_utf8(output.stdout).map_err(|error| failed(error.to_string()))
}
