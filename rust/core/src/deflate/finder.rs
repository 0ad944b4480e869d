//! [`Finder`]: where the bytes at a place have been before.
//!
//! A row of the table keeps the last places of one hash, each with a tag of further bits of the
//! hash: most places without a match are told by their tags alone, and the row's words are
//! shifted to add one. Where a tag fits, the candidates are compared without branches, which a
//! processor could not foretell. Places are kept modulo 65536. One that is too old stands for
//! another place then, whose bytes are compared like those of any: nothing need be removed, and
//! nothing is taken on trust.

use super::symbols::{MAX_LENGTH, MIN_LENGTH, WINDOW};

/// Rows of the table, as a power of two.
const ROWS_LOG: u32 = 13;
const ROWS: usize = 1 << ROWS_LOG;
/// Bytes that are read at a place.
pub const READ: usize = 8;
/// The tag in an entry; the place is below.
const TAG: u32 = 0xffff_0000;

/// A match; of length zero, none.
#[derive(Clone, Copy, Default, Debug)]
pub struct Match {
    pub length: usize,
    pub distance: usize,
}

/// The places of the last 32 KiB, two times `PAIRS` for each hash of four bytes.
pub struct Finder<const PAIRS: usize> {
    rows: Box<[[u64; PAIRS]; ROWS]>,
}

impl<const PAIRS: usize> Finder<PAIRS> {
    pub fn new() -> Self {
        Self {
            rows: Box::new([[0; PAIRS]; ROWS]),
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.rows.fill([0; PAIRS]);
    }

    /// Adds the places `from` until `to`; eight bytes must follow each.
    #[inline(always)]
    pub fn add(&mut self, data: &[u8], from: usize, to: usize) {
        let mut at = from;
        while at + 4 <= to {
            let bytes = read(data, at);
            self.put(hash(bytes), at);
            self.put(hash(bytes >> 16), at + 2);
            at += 4;
        }
        if at < to {
            self.put(hash(read(data, at)), at);
        }
    }

    /// Adds a place, and gives the row as it was.
    #[inline(always)]
    fn put(&mut self, hash: u32, at: usize) -> [u64; PAIRS] {
        let row = &mut self.rows[(hash >> (32 - ROWS_LOG)) as usize];
        let before = *row;
        for pair in (1..PAIRS).rev() {
            row[pair] = row[pair] << 32 | row[pair - 1] >> 32;
        }
        row[0] = row[0] << 32 | u64::from(tag(hash) | u32::from(at as u16));
        before
    }

    /// Adds place `at`, and gives the longest match there, the nearest of equal ones. Eight bytes
    /// must follow `at`, and one precede it.
    #[inline(always)]
    pub fn find(&mut self, data: &[u8], at: usize) -> Match {
        let here = read(data, at);
        let hash = hash(here);
        let row = self.put(hash, at);
        let tags = u64::from(tag(hash)) << 32 | u64::from(tag(hash));
        let mut fits = false;
        for pair in row {
            let differ = pair ^ tags;
            fits |= (differ as u32) & TAG == 0 || differ >> 48 == 0;
        }
        if !fits {
            return Match::default();
        }
        Self::longest(data, at, here, row)
    }

    #[inline(always)]
    fn longest(data: &[u8], at: usize, here: u64, row: [u64; PAIRS]) -> Match {
        let reach = at.min(WINDOW);
        let mut best = 0;
        let mut distances = [[0; 2]; PAIRS];
        for (pair, kept) in row.iter().zip(&mut distances) {
            for (place, kept) in [*pair as u16, (*pair >> 32) as u16].into_iter().zip(kept) {
                let distance = (at as u16).wrapping_sub(place) as usize;
                // What is out of reach is replaced by the byte before, as good a candidate as any.
                let distance = if distance.wrapping_sub(1) < reach {
                    distance
                } else {
                    1
                };
                *kept = distance;
                let differ = here ^ read(data, at - distance);
                let length = differ.trailing_zeros() >> 3;
                best = best.max(length << 16 | (0xffff - distance as u32));
            }
        }
        let mut found = Match {
            length: (best >> 16) as usize,
            distance: (0xffff - (best & 0xffff)) as usize,
        };
        if found.length == READ {
            for distance in distances.into_iter().flatten() {
                let length = extend(data, at, distance);
                if length > found.length {
                    found = Match { length, distance };
                }
            }
        } else if found.length <= MIN_LENGTH {
            found.length = 0;
        }
        found
    }
}

/// A hash of the first four bytes: a row's number in the upper bits, a tag below.
#[inline(always)]
fn hash(bytes: u64) -> u32 {
    (bytes as u32).wrapping_mul(0x9e37_79b1)
}

#[inline(always)]
fn tag(hash: u32) -> u32 {
    hash << ROWS_LOG & TAG
}

/// The eight bytes at a place.
#[inline(always)]
fn read(data: &[u8], at: usize) -> u64 {
    // Blocks are shorter than 4 GiB: without the cast it would be checked twice.
    let at = at as u32 as usize;
    let bytes = data[at..at + READ].try_into();
    u64::from_le_bytes(bytes.expect("so many bytes"))
}

/// Length of the match, of which eight bytes are known to be equal.
fn extend(data: &[u8], at: usize, distance: usize) -> usize {
    let here = &data[at..data.len().min(at + MAX_LENGTH)];
    let there = &data[at - distance..][..here.len()];
    let mut length = 0;
    while let (Some(a), Some(b)) = (here[length..].first_chunk(), there[length..].first_chunk()) {
        let differ = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if differ != 0 {
            return length + (differ.trailing_zeros() >> 3) as usize;
        }
        length += READ;
    }
    let ends = here[length..].iter().zip(&there[length..]);
    length + ends.take_while(|(a, b)| a == b).count()
}
