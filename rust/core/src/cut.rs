//! [`Cutter`]: says where a tar is cut, by its content alone.
//!
//! Whatever is in a tar begins on a multiple of 512 bytes, so only there may a chunk end: after a
//! sector in whose hash the upper bits are zero. So a file more, or one of another length, moves
//! the cuts near it and no others; within one file, what stands elsewhere in its sector than before
//! is cut anew. The mask is harder before the mean length and easier after it, which keeps most
//! lengths near it. Sectors of zeros end no chunk.
//! Everything here is part of the format: another number, and no chunk is found again.
//! Source: Xia et al., `FastCDC`, USENIX ATC 2016 (normalised chunking).

use crate::tar_write::BLOCK as SECTOR;

/// The shortest chunk, but for the one before a cut that was asked for, and the last one.
pub const MIN: usize = 256 << 10;
/// The length that most chunks are near.
pub const MEAN: usize = 1 << 20;
/// The longest chunk.
pub const MAX: usize = 4 << 20;

/// 13 bits before the mean length, 9 after it: 2 harder and 2 easier than the mean's own 11.
const HARD: u64 = !0 << (64 - 13);
const EASY: u64 = !0 << (64 - 9);

/// How much of a sector's beginning has a say: of a header the name, the time and the sum of all
/// that it says.
const SAID: usize = 160;

/// A number without a pattern.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// The state within one chunk. Pieces may be of any length: the cuts are the same.
#[derive(Debug)]
pub struct Cutter {
    length: usize,
    /// The beginning of a sector that comes in several pieces.
    said: [u8; SAID],
}

impl Default for Cutter {
    fn default() -> Self {
        Self {
            length: 0,
            said: [0; SAID],
        }
    }
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
        while at < bytes.len() {
            let place = self.length % SECTOR;
            let part = &bytes[at..][..(SECTOR - place).min(bytes.len() - at)];
            self.length += part.len();
            at += part.len();
            let is_end = if part.len() == SECTOR {
                self.is_end(part)
            } else {
                self.keep(place, part);
                self.length % SECTOR == 0 && self.is_end(&self.said)
            };
            if is_end {
                self.restart();
                return Some(at);
            }
        }
        None
    }

    /// Keeps what a part of a sector, from `place` on, has of its beginning.
    fn keep(&mut self, place: usize, part: &[u8]) {
        let until = SAID.min(place + part.len());
        if place < until {
            self.said[place..until].copy_from_slice(&part[..until - place]);
        }
    }

    /// Does the chunk end after the sector that begins so?
    fn is_end(&self, said: &[u8]) -> bool {
        let mask = if self.length <= MEAN { HARD } else { EASY };
        self.length == MAX || hash(said) & mask == 0
    }

    /// Begins a new chunk with the next byte, which has to begin a sector.
    pub fn restart(&mut self) {
        self.length = 0;
    }
}

/// A hash whose upper bits depend on every byte: two words are multiplied, and the product folded.
fn hash(said: &[u8]) -> u64 {
    let word = |bytes: &[u8]| {
        bytes
            .first_chunk()
            .map_or(0, |word| u64::from_le_bytes(*word))
    };
    let mut sum = FACTOR;
    for pair in said[..SAID].chunks_exact(16) {
        let (one, other) = (word(pair) ^ sum, word(&pair[8..]) ^ FACTOR);
        let product = u128::from(one) * u128::from(other);
        sum = (product ^ (product >> 64)) as u64;
    }
    sum
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;
    use crate::entry::Entry;
    use crate::tar_write::append_header;

    /// Bytes that neither repeat nor compress.
    fn noise(seed: u8, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[seed]).finalize_xof().fill(&mut bytes);
        bytes
    }

    /// The places after which a chunk ends, the last one too, in bytes that come in pieces.
    fn cuts<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<usize> {
        let mut cutter = Cutter::default();
        let (mut cuts, mut passed) = (Vec::new(), 0);
        for mut piece in pieces {
            while let Some(end) = cutter.take(piece) {
                passed += end;
                cuts.push(passed);
                piece = &piece[end..];
            }
            passed += piece.len();
        }
        cuts.push(passed);
        cuts.dedup();
        cuts
    }

    fn lengths(cuts: &[usize]) -> Vec<usize> {
        let starts = std::iter::once(&0).chain(cuts);
        starts.zip(cuts).map(|(start, end)| end - start).collect()
    }

    #[test]
    fn chunks_are_of_the_lengths_that_they_should_be() {
        let bytes = noise(1, (64 << 20) + 77);
        let found = lengths(&cuts([&bytes[..]]));
        let (last, others) = found.split_last().unwrap();
        assert!(*last <= MAX && others.iter().all(|size| (MIN..=MAX).contains(size)));
        assert!(others.iter().all(|size| size % SECTOR == 0));
        let mean = bytes.len() / found.len();
        assert!((MEAN * 3 / 4..MEAN * 3 / 2).contains(&mean), "{mean}");
    }

    #[test]
    fn zeros_are_cut_into_the_longest_chunks() {
        let zeros = vec![0; 9 << 20];
        let found = lengths(&cuts(zeros.chunks(1000)));
        assert_eq!(found, [MAX, MAX, 1 << 20]);
    }

    #[test]
    fn headers_alone_are_cut_as_well_though_their_names_begin_alike() {
        let folder = "a/folder/so/deep/that/all/names/in/it/begin/with/the/same/bytes/";
        let mut headers = Vec::new();
        for number in 0..40_000 {
            let entry = Entry {
                path: format!("{folder}{number}").into_bytes(),
                ..Entry::default()
            };
            append_header(&mut headers, &entry);
        }
        let found = lengths(&cuts([&headers[..]]));
        assert!((10..30).contains(&found.len()), "{found:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn cuts_do_not_depend_on_how_the_bytes_come(
            pieces in prop::collection::vec(prop_oneof![1_usize..700, 1_usize..300_000], 1..40),
        ) {
            let bytes = noise(2, 9 << 20);
            let (mut rest, mut come) = (&bytes[..], Vec::new());
            for length in pieces.into_iter().cycle() {
                let (piece, later) = rest.split_at(length.min(rest.len()));
                come.push(piece);
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(cuts(come), cuts([&bytes[..]]));
        }

        #[test]
        fn a_file_more_moves_the_cuts_near_it_and_no_others(
            place in 0_usize..(16 << 20) / SECTOR,
            sectors in 1_usize..4000,
        ) {
            let bytes = noise(3, 32 << 20);
            let place = place * SECTOR;
            let mut longer = bytes.clone();
            longer.splice(place..place, noise(4, sectors * SECTOR));
            let (before, after) = (cuts([&bytes[..]]), cuts([&longer[..]]));
            let from_end = |cuts: &[usize], end: usize, from: usize| -> Vec<usize> {
                cuts.iter().filter(|cut| **cut >= from).map(|cut| end - cut).collect()
            };
            let near = place + 2 * MAX;
            prop_assert_eq!(
                from_end(&before, bytes.len(), near),
                from_end(&after, longer.len(), near + sectors * SECTOR)
            );
            let early = |cuts: &[usize]| cuts.iter().filter(|cut| **cut <= place).count();
            prop_assert_eq!(&before[..early(&before)], &after[..early(&after)]);
        }
    }
}
