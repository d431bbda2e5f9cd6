#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| orderup_fuzz::invocation::check(data));
