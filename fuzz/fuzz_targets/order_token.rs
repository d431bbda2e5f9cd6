#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| orderup_fuzz::order_token::check(data));
