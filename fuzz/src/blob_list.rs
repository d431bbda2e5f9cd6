//! A page of Azure's answer to "List Blobs".
//!
//! Whatever the answer says: what is read has the path of something of ours, and no way out of the container.

use orderup::{blob_list, book_path};

pub fn check(data: &[u8]) {
    let Ok(xml) = std::str::from_utf8(data) else {
        return;
    };
    let Some(page) = blob_list::parse(xml) else {
        return;
    };
    assert!(xml.contains("</EnumerationResults>"));
    for blob in &page.blobs {
        assert!(book_path::is_path(&blob.path));
        let mut segments = blob.path.split('/');
        assert!(segments.all(|segment| !matches!(segment, "" | "." | "..")));
        assert!(xml.contains(&blob.path));
    }
    assert!(page.next.as_deref() != Some(""));
    // An answer that was cut off is none.
    if let Some(end) = xml.find("</EnumerationResults>") {
        assert_eq!(blob_list::parse(&xml[..end]), None);
    }
}
