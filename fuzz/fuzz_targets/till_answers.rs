#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| orderup_fuzz::till_answers::check(data));
