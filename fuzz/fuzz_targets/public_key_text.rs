//! See the function of this name.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ajwt_fuzz::public_key_text(data));
