//! The zip, and the checksums beside it.

use std::fs;

use packaging::{archive, checksums, contents::contents};
use zip::{DateTime, ZipArchive};

use crate::app::App;

#[test]
fn the_same_files_give_the_same_bytes() {
    let app = App::new("same_bytes");
    let [first, second] = ["first.zip", "second.zip"].map(|name| app.0.join(name));
    archive::write(&first, &contents(&app.0, &app.handler()).unwrap()).unwrap();
    // Written anew, and so with other times.
    let text = fs::read(app.handler()).unwrap();
    fs::remove_file(app.handler()).unwrap();
    fs::write(app.handler(), text).unwrap();
    archive::write(&second, &contents(&app.0, &app.handler()).unwrap()).unwrap();
    assert_eq!(fs::read(first).unwrap(), fs::read(second).unwrap());
}

#[test]
fn entries_are_sorted_and_have_their_modes_and_no_time() {
    let app = App::new("entries");
    let path = app.0.join("orderup.zip");
    archive::write(&path, &contents(&app.0, &app.handler()).unwrap()).unwrap();
    let mut zip = ZipArchive::new(fs::File::open(path).unwrap()).unwrap();
    let names: Vec<String> = zip
        .file_names()
        .map(|name| name.unwrap().into_owned())
        .collect();
    assert!(names.is_sorted(), "{names:?}");
    for index in 0..zip.len() {
        let entry = zip.by_index(index).unwrap();
        let name = entry.name().unwrap();
        let mode = if name == "orderup" {
            0o100_755
        } else {
            0o100_644
        };
        assert_eq!(entry.unix_mode(), Some(mode), "{name}");
        assert_eq!(entry.last_modified(), Some(DateTime::default()));
    }
}

#[test]
fn what_is_too_large_is_refused_by_numbers_and_not_left_behind() {
    let app = App::new("too_large");
    // Bytes that deflate can do nothing about.
    let mut state = 1_u64;
    let noise: Vec<u8> = (0..archive::ZIP_BUDGET + 1)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        })
        .collect();
    fs::write(app.handler(), noise).unwrap();
    let path = app.0.join("orderup.zip");
    let why = archive::write(&path, &contents(&app.0, &app.handler()).unwrap()).unwrap_err();
    let why = why.to_string();
    assert!(why.contains("more than the 2621440 it may have"), "{why}");
    assert!(!path.exists());
    let why = archive::within(&app.handler(), 1).unwrap_err().to_string();
    assert!(
        why.contains("is 2621441 bytes, 2621440 more than the 1"),
        "{why}"
    );
}

#[test]
fn checksums_are_those_of_sha256sum() {
    let app = App::new("checksums");
    app.write("dist/b", "");
    app.write("dist/a", "abc");
    let dist = app.0.join("dist");
    checksums::write(&dist).unwrap();
    checksums::write(&dist).unwrap();
    assert_eq!(
        fs::read_to_string(dist.join("SHA256SUMS")).unwrap(),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  a\n\
         e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  b\n"
    );
}
