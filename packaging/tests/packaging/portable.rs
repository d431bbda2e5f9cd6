//! What the handler may need of a system.

use packaging::{
    architecture::Architecture,
    portable::{Needs, check},
};

use crate::app::App;

fn needs(libraries: &[&str], glibc: (u32, u32)) -> Needs {
    Needs {
        libraries: libraries.iter().map(|name| (*name).to_owned()).collect(),
        glibc: Some(glibc),
    }
}

#[test]
fn only_an_old_glibc_may_be_needed() {
    assert_eq!(needs(&["libc.so.6", "libm.so.6"], (2, 28)).refusal(), None);
    assert_eq!(Needs::default().refusal(), None);
    for (needs, named) in [
        (needs(&["libc.so.6"], (2, 29)), "glibc 2.29"),
        (needs(&["libc.so.6"], (3, 0)), "glibc 3.0"),
        (needs(&["libc.so.6", "libssl.so.3"], (2, 17)), "libssl.so.3"),
        (needs(&["libgcc_s.so.1"], (2, 17)), "libgcc_s.so.1"),
    ] {
        let why = needs.refusal().unwrap();
        assert!(why.contains(named) && why.contains("just package"), "{why}");
    }
}

#[test]
fn what_is_no_program_for_the_processor_is_refused() {
    let app = App::new("processor");
    let why = check(&app.handler(), Architecture::X86_64).unwrap_err();
    assert!(why.to_string().contains("64-bit Linux"), "{why}");
}

/// This test is a program that runs here, and so none for the other processor.
#[cfg(target_os = "linux")]
#[test]
fn a_program_for_the_other_processor_is_refused() {
    let other = if cfg!(target_arch = "x86_64") {
        Architecture::Arm64
    } else {
        Architecture::X86_64
    };
    let this = std::env::current_exe().unwrap();
    let why = check(&this, other).unwrap_err().to_string();
    assert!(why.contains("another processor"), "{why}");
}
