//! [`deflate`]: the slow levels, which zlib's longer search makes smaller than ours.

use flate2::{Compress, Compression, FlushCompress};

use super::symbols::WINDOW;

/// Room that is made for what comes out, until all did.
const ROOM: usize = 64 << 10;

/// Deflates `data` from `start` on, and ends on a byte.
pub fn deflate(level: u32, data: &[u8], start: usize, out: &mut Vec<u8>) {
    // A fresh stream each time: after `reset`, what it compressed before may decide which of two
    // equal matches is taken, and the bytes would depend on how blocks fell to threads.
    let mut stream = Compress::new(Compression::new(level), false);
    if start > 0 {
        stream
            .set_dictionary(&data[start.saturating_sub(WINDOW)..start])
            .expect("a raw deflate stream takes a dictionary at its start");
    }
    let before = stream.total_in();
    loop {
        out.reserve(ROOM);
        let taken = (stream.total_in() - before) as usize;
        stream
            .compress_vec(&data[start + taken..], out, FlushCompress::Sync)
            .expect("deflate of bytes in memory");
        // A sync flush is complete once it left room in the buffer.
        let taken = (stream.total_in() - before) as usize;
        if start + taken == data.len() && out.len() < out.capacity() {
            return;
        }
    }
}
