//! [`Tally`]: how often each symbol occurs, and about how many bits they will take.

use super::symbols::{
    distance_symbol, DISTANCES, END, FIRST_LENGTH, LENGTH_SYMBOL, LITLENS, MIN_LENGTH,
};
use super::Sequence;

/// Counts of symbols.
#[derive(Clone)]
pub struct Tally {
    pub litlens: [u32; LITLENS],
    pub distances: [u32; DISTANCES],
}

impl Tally {
    pub const fn new() -> Self {
        Self {
            litlens: [0; LITLENS],
            distances: [0; DISTANCES],
        }
    }

    pub fn clear(&mut self) {
        self.litlens.fill(0);
        self.distances.fill(0);
    }

    /// Counts sequences, which stand for `bytes`.
    pub fn count(&mut self, sequences: &[Sequence], bytes: &[u8]) {
        let mut rest = bytes;
        for sequence in sequences {
            let (literals, behind) = rest.split_at(sequence.literals as usize);
            for &literal in literals {
                self.litlens[literal as usize] += 1;
            }
            if sequence.length > 0 {
                let length = (sequence.length as usize - MIN_LENGTH) & 255;
                self.litlens[FIRST_LENGTH + (LENGTH_SYMBOL[length] as usize & 31)] += 1;
                self.distances[distance_symbol(sequence.distance)] += 1;
            }
            rest = &behind[sequence.length as usize..];
        }
    }

    /// Counts the end of a block.
    pub fn count_end(&mut self) {
        self.litlens[END] += 1;
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: &Self) {
        for (here, there) in self.litlens.iter_mut().zip(&other.litlens) {
            *here += there;
        }
        for (here, there) in self.distances.iter_mut().zip(&other.distances) {
            *here += there;
        }
    }

    /// Bits of the symbols in a code made for these counts, in 256ths.
    pub fn estimate(&self) -> u64 {
        estimate(&self.litlens) + estimate(&self.distances)
    }

    /// Bits of the symbols in one code made for these counts and another's, in 256ths.
    pub fn estimate_with(&self, other: &Self) -> u64 {
        let mut both = self.clone();
        both.add(other);
        both.estimate()
    }
}

/// Shannon's entropy: n log n less every symbol's c log c.
fn estimate(counts: &[u32]) -> u64 {
    let mut total = 0;
    let mut known = 0;
    for &count in counts {
        total += count;
        known += n_log_n(count);
    }
    n_log_n(total).saturating_sub(known)
}

/// n log2 n in 256ths, to about one in a thousand. In integers, as what is made of it decides
/// where blocks end, and must be the same on every machine.
fn n_log_n(n: u32) -> u64 {
    let whole = (n | 1).ilog2();
    let mantissa = ((u64::from(n) << 8 >> whole) & 255) as usize;
    u64::from(n) * u64::from(whole << 8 | u32::from(LOG[mantissa]))
}

/// 256 log2(1 + n/256).
static LOG: [u8; 256] = logarithms();

const fn logarithms() -> [u8; 256] {
    let mut table = [0; 256];
    let mut n = 0;
    while n < 256 {
        // Squaring a number of [1, 2) gives the next binary place of its logarithm.
        let mut x = ((256 + n as u64) << 22) | 1 << 21;
        let mut places = 0;
        while places < 8 {
            x = (x * x) >> 30;
            table[n] <<= 1;
            if x >> 31 == 1 {
                table[n] |= 1;
                x >>= 1;
            }
            places += 1;
        }
        n += 1;
    }
    table
}
