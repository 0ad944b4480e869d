//! [`Cutter`]: says where a stream is cut, by its content alone.
//!
//! A hash rolls over the last 64 bytes; where its upper bits are zero, a chunk ends. So a change
//! moves the cuts near it and no others, and the same bytes are cut alike wherever they stand. The
//! mask is harder before the mean length and easier after it, which keeps most lengths near it.
//! Everything here is part of the format: another number, and no chunk is found again.
//! Source: Xia et al., `FastCDC`, USENIX ATC 2016 (the gear hash, normalised chunking).

/// The shortest chunk, but for the one before a cut that was asked for, and the last one.
pub const MIN: usize = 256 << 10;
/// The length that most chunks are near.
pub const MEAN: usize = 1 << 20;
/// The longest chunk.
pub const MAX: usize = 4 << 20;

/// 22 bits before the mean length, 18 after it: 2 harder and 2 easier than the mean's own 20.
const HARD: u64 = !0 << (64 - 22);
const EASY: u64 = !0 << (64 - 18);

/// One number for each byte.
static GEAR: [u64; 256] = gear();

/// The numbers: splitmix64 from a fixed seed, so that none has to be written down.
const fn gear() -> [u64; 256] {
    let mut table = [0; 256];
    let mut state: u64 = 0x696d_6763_6875_6e6b; // "imgchunk"
    let mut place = 0;
    while place < 256 {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = state;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        table[place] = value ^ (value >> 31);
        place += 1;
    }
    table
}

/// The state within one chunk. Pieces may be of any length: the cuts are the same.
#[derive(Debug, Default)]
pub struct Cutter {
    hash: u64,
    length: usize,
}

impl Cutter {
    /// Takes the next bytes up to the chunk's end.
    ///
    /// Returns:
    ///     How many of them are in the chunk that ends there; None where all are and it goes on.
    pub fn take(&mut self, bytes: &[u8]) -> Option<usize> {
        // What is in a chunk of the shortest length has no say, so it is not looked at.
        let mut at = MIN.saturating_sub(self.length).min(bytes.len());
        self.length += at;
        for (end, mask) in [(MEAN, HARD), (MAX, EASY)] {
            let until = at + end.saturating_sub(self.length).min(bytes.len() - at);
            for (passed, &byte) in bytes[at..until].iter().enumerate() {
                self.hash = (self.hash << 1).wrapping_add(GEAR[byte as usize]);
                if self.hash & mask == 0 {
                    self.restart();
                    return Some(at + passed + 1);
                }
            }
            self.length += until - at;
            at = until;
        }
        if self.length == MAX {
            self.restart();
            return Some(at);
        }
        None
    }

    /// Begins a new chunk with the next byte.
    pub fn restart(&mut self) {
        *self = Self::default();
    }
}
