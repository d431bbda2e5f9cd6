//! Runs after the handler has been built; `just package` does both.
//!
//! It ends with 0 when `dist`, in the app's folder, holds all that it should and nothing else, and with 1 and a line on
//! standard error otherwise.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use packaging::{architecture::Architecture, archive, make, portable};

/// Makes the zip that is deployed, its bill of materials, licences and checksums.
#[derive(Debug, Parser)]
struct Arguments {
    /// What the handler was built for
    #[arg(value_enum, required = true)]
    architectures: Vec<Architecture>,
    /// The folder with host.json and one folder per function
    #[arg(long, value_name = "DIR", default_value = ".")]
    app: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match make(&arguments.app, &arguments.architectures) {
        Ok(packages) => {
            for package in packages {
                let (major, minor) = package.needs.glibc.unwrap_or_default();
                println!(
                    "{}: {} bytes of {}; orderup in it: {} bytes of {}, needs {} and glibc {major}.{minor} of {}.{}",
                    package.zip.display(),
                    package.zip_size,
                    archive::ZIP_BUDGET,
                    package.handler_size,
                    archive::HANDLER_BUDGET,
                    package.needs.libraries.join(" "),
                    portable::GLIBC.0,
                    portable::GLIBC.1,
                );
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("packaging: {error}");
            ExitCode::FAILURE
        }
    }
}
