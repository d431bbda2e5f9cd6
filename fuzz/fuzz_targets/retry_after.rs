#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| orderup_fuzz::retry_after::check(data));
