//! What the encoder makes of any bytes is what they were, after any window, at any level.
#![no_main]

use flate2::{Decompress, FlushDecompress};
use img_core::deflate::{Encoder, WINDOW};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, u16, &[u8])| {
    let (level, start, data) = input;
    let start = usize::from(start).min(data.len());
    let mut stream = Vec::new();
    Encoder::new(u32::from(level % 9) + 1).encode(data, start, &mut stream);
    stream.extend_from_slice(&[3, 0]);
    let mut decoder = Decompress::new(false);
    if start > 0 {
        decoder
            .set_dictionary(&data[start.saturating_sub(WINDOW)..start])
            .expect("a dictionary");
    }
    let mut back = Vec::with_capacity(data.len() - start + 1);
    decoder
        .decompress_vec(&stream, &mut back, FlushDecompress::Finish)
        .expect("deflate");
    assert!(back == data[start..]);
});
