//! The targets on stable Rust, in seconds: what they were begun with, what has broken them once, and mutations of both.
//!
//! libFuzzer looks for what is not known yet; this sees to it that what is known stays mended.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use crate::TARGETS;

/// How many mutations of each input are tried.
const MUTATIONS: u64 = 1000;

/// No input grows beyond this: what is wrong shows in small ones too.
const LONGEST: usize = 16 * 1024;

#[test]
fn every_target_keeps_its_promises() {
    let mut broken = Vec::new();
    let mut count = 0;
    for (name, check) in TARGETS {
        for input in inputs(name) {
            let bytes = fs::read(&input).unwrap();
            for mutation in 0..=MUTATIONS {
                let bytes = if mutation == 0 {
                    bytes.clone()
                } else {
                    mutated(&bytes, mutation)
                };
                count += 1;
                if catch_unwind(AssertUnwindSafe(|| check(&bytes))).is_err() {
                    let text = String::from_utf8_lossy(&bytes);
                    broken.push(format!(
                        "{name}, {} mutated by {mutation}: {text:?}",
                        input.display()
                    ));
                    break;
                }
            }
        }
    }
    println!("{count} inputs");
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_target_has_seeds_a_way_to_be_run_and_nothing_left_over() {
    let names: Vec<&str> = TARGETS.map(|(name, _)| name).into();
    assert!(names.is_sorted());
    for name in &names {
        assert!(
            files(&folder("seeds").join(name)).len() > 1,
            "{name} has no seeds"
        );
    }
    let stems = |folder: &Path| -> Vec<String> {
        let mut stems: Vec<String> = files(folder)
            .iter()
            .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        stems.sort();
        stems
    };
    assert_eq!(stems(&folder("fuzz_targets")), names);
    for of in ["dictionaries", "seeds", "regressions"] {
        for stem in stems(&folder(of)) {
            assert!(names.contains(&stem.as_str()), "{of}/{stem} is no target's");
        }
    }
}

#[test]
fn a_promise_that_is_broken_is_noticed() {
    let (_, check) = TARGETS
        .iter()
        .find(|(name, _)| *name == "order_token")
        .unwrap();
    let seed = fs::read(folder("seeds/order_token/new")).unwrap();
    check(&seed);
    let broken = catch_unwind(|| crate::place_order::assert_told(&[]));
    assert!(broken.is_err());
}

/// Seeds and regressions of a target.
fn inputs(name: &str) -> Vec<PathBuf> {
    let mut inputs = files(&folder("seeds").join(name));
    inputs.extend(files(&folder("regressions").join(name)));
    inputs.sort();
    inputs
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// What is in that folder; nothing if there is no such folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// One to four changes, the same for the same number.
fn mutated(bytes: &[u8], mutation: u64) -> Vec<u8> {
    const TELLING: [&[u8]; 14] = [
        b"\"",
        b"\\",
        b"\n",
        b"\0",
        b"{",
        b"]",
        b"<",
        b"-1",
        b"1e400",
        b"18446744073709551616",
        b"\xff",
        b"\xc3\xa9",
        b"null",
        b"9999-12-31T23:59:59Z",
    ];
    let mut random = fastrand::Rng::with_seed(mutation);
    let mut bytes = bytes.to_vec();
    for _ in 0..random.usize(1..5) {
        let at = random.usize(0..=bytes.len());
        let end = random.usize(at..=bytes.len()).min(at + 40);
        match random.u32(0..6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.u32(0..8),
            1 => drop(bytes.drain(at..end)),
            2 => {
                let copy = bytes[at..end].to_vec();
                let to = random.usize(0..=bytes.len());
                bytes.splice(to..to, copy);
            }
            3 => {
                let telling = TELLING[random.usize(0..TELLING.len())];
                bytes.splice(at..at, telling.iter().copied());
            }
            4 => {
                let telling = TELLING[random.usize(0..TELLING.len())];
                bytes.splice(at..end, telling.iter().copied());
            }
            _ => bytes.truncate(at),
        }
    }
    bytes.truncate(LONGEST);
    bytes
}
