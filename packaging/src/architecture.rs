//! The processors that a package is made for.

use std::path::PathBuf;

use object::elf;

/// What a package is made for; each has a zip of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Architecture {
    #[value(name = "x86-64")]
    X86_64,
    Arm64,
}

impl Architecture {
    /// Rust's name of the target.
    pub fn target(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// How the files begin that belong to it.
    pub fn stem(self) -> &'static str {
        match self {
            Self::X86_64 => "orderup",
            Self::Arm64 => "orderup-arm64",
        }
    }

    /// The processor as the head of an ELF file names it.
    pub(crate) fn machine(self) -> elf::Machine {
        match self {
            Self::X86_64 => elf::EM_X86_64,
            Self::Arm64 => elf::EM_AARCH64,
        }
    }

    /// Where cargo puts the handler, in its target folder.
    pub(crate) fn binary(self) -> PathBuf {
        PathBuf::from(self.target()).join("release/orderup")
    }
}
