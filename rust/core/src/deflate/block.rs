//! [`write_block`]: sequences as one block, in whichever of deflate's forms is shortest.
//!
//! Source: RFC 1951, 3.2.3 to 3.2.7.

use std::sync::LazyLock;

use super::bits::{Bits, Code, Sink};
use super::huffman::{codes, lengths};
use super::symbols::{
    distance_symbol, DISTANCES, DISTANCE_BASE, DISTANCE_EXTRA, END, FIRST_LENGTH, LENGTH_BASE,
    LENGTH_EXTRA, LENGTH_SYMBOL, LITLENS, MIN_LENGTH,
};
use super::tally::Tally;
use super::Sequence;

/// The longest stored block.
const STORED_MAX: usize = 0xffff;
/// Four literals of codes so long, and the loose bits before them, fit into 64 bits.
const LITLEN_LIMIT: usize = 14;
const DISTANCE_LIMIT: usize = 15;
/// Order in which a header names the lengths of the code for lengths.
const HEADER_ORDER: [usize; 19] = [
    16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15,
];
const HEADER_LIMIT: usize = 7;
/// Extra bits of the header's symbols from 16: repeat, few zeros, many zeros.
const HEADER_EXTRA: [u8; 3] = [2, 3, 7];
/// A block of at most so many bits in fixed codes is not worth codes of its own, whose
/// description alone is about as long.
const SMALL: u64 = 400;

/// The lengths of a block's two codes.
struct Lengths {
    litlens: [u8; LITLENS],
    distances: [u8; DISTANCES],
}

/// RFC 1951, 3.2.6.
const FIXED: Lengths = {
    let mut litlens = [8; LITLENS];
    let mut symbol = 144;
    while symbol < 280 {
        litlens[symbol] = if symbol < 256 { 9 } else { 7 };
        symbol += 1;
    }
    Lengths {
        litlens,
        distances: [5; DISTANCES],
    }
};

/// Appends `bytes`, which the sequences stand for and `tally` has counted, as one block or, where
/// nothing is gained, as stored ones.
pub fn write_block(bits: &mut Bits, sequences: &[Sequence], bytes: &[u8], tally: &Tally) {
    let extra = extra_bits(tally);
    let fixed = 3 + FIXED.bits(tally) + extra;
    let stored = stored_bits(bits.loose(), bytes.len());
    if fixed <= SMALL {
        if stored < fixed {
            write_stored(bits, bytes);
        } else {
            write_fixed(bits, fixed, sequences, bytes);
        }
        return;
    }
    let own = Lengths::of(tally);
    let header = Header::of(&own);
    let dynamic = 3 + header.bits() + own.bits(tally) + extra;
    if stored <= dynamic.min(fixed) {
        write_stored(bits, bytes);
    } else if fixed <= dynamic {
        write_fixed(bits, fixed, sequences, bytes);
    } else {
        bits.write(dynamic, |mut sink| {
            sink.put(0b100, 3);
            sink = header.write(sink);
            write_sequences(sink, sequences, bytes, &Words::of(&own))
        });
    }
}

fn write_fixed(bits: &mut Bits, length: u64, sequences: &[Sequence], bytes: &[u8]) {
    static WORDS: LazyLock<Words> = LazyLock::new(|| Words::of(&FIXED));
    bits.write(length, |mut sink| {
        sink.put(0b010, 3);
        write_sequences(sink, sequences, bytes, &WORDS)
    });
}

/// Appends stored blocks, after which the stream stands on a byte. RFC 1951, 3.2.4.
pub fn write_stored(bits: &mut Bits, bytes: &[u8]) {
    for part in bytes.chunks(STORED_MAX) {
        write_stored_mark(bits);
        let length = part.len() as u16;
        bits.out.extend_from_slice(&length.to_le_bytes());
        bits.out.extend_from_slice(&(!length).to_le_bytes());
        bits.out.extend_from_slice(part);
    }
}

/// Brings the stream to a byte, with an empty stored block where it is needed.
pub fn write_alignment(bits: &mut Bits) {
    if bits.loose() > 0 {
        write_stored_mark(bits);
        bits.out.extend_from_slice(&[0, 0, 0xff, 0xff]);
    }
}

/// The three bits before a stored block, and those that fill the byte.
fn write_stored_mark(bits: &mut Bits) {
    bits.write(3, |mut sink| {
        sink.put(0, 3);
        sink
    });
    bits.align();
}

fn stored_bits(loose: u32, length: usize) -> u64 {
    let first = u64::from((loose + 3).next_multiple_of(8) - loose) + 32;
    let blocks = length.div_ceil(STORED_MAX).max(1) as u64;
    first + (blocks - 1) * 40 + 8 * length as u64
}

fn extra_bits(tally: &Tally) -> u64 {
    let of = |counts: &[u32], extra: &[u8]| -> u64 {
        let pairs = counts.iter().zip(extra);
        pairs
            .map(|(&n, &bits)| u64::from(n) * u64::from(bits))
            .sum()
    };
    of(&tally.litlens[FIRST_LENGTH..], &LENGTH_EXTRA) + of(&tally.distances, &DISTANCE_EXTRA)
}

impl Lengths {
    fn of(tally: &Tally) -> Self {
        let mut own = Self {
            litlens: [0; LITLENS],
            distances: [0; DISTANCES],
        };
        lengths(&tally.litlens, LITLEN_LIMIT, &mut own.litlens);
        lengths(&tally.distances, DISTANCE_LIMIT, &mut own.distances);
        own
    }

    /// Bits of these symbols, without extra ones.
    fn bits(&self, tally: &Tally) -> u64 {
        let of = |counts: &[u32], lengths: &[u8]| -> u64 {
            let pairs = counts.iter().zip(lengths);
            pairs
                .map(|(&n, &bits)| u64::from(n) * u64::from(bits))
                .sum()
        };
        of(&tally.litlens, &self.litlens) + of(&tally.distances, &self.distances)
    }
}

/// The description of a block's codes. RFC 1951, 3.2.7.
struct Header {
    litlens: usize,
    distances: usize,
    /// Symbols of the code for lengths, each with the value of its extra bits.
    symbols: [(u8, u8); LITLENS + DISTANCES],
    count: usize,
    lengths: [u8; 19],
    /// How many of `lengths` are named.
    named: usize,
}

impl Header {
    fn of(own: &Lengths) -> Self {
        let used = |lengths: &[u8], least: usize| {
            let last = lengths.iter().rposition(|&length| length > 0);
            last.map_or(least, |last| least.max(last + 1))
        };
        let mut header = Self {
            litlens: used(&own.litlens, FIRST_LENGTH),
            distances: used(&own.distances, 1),
            symbols: [(0, 0); LITLENS + DISTANCES],
            count: 0,
            lengths: [0; 19],
            named: 4,
        };
        let mut all = [0; LITLENS + DISTANCES];
        let total = header.litlens + header.distances;
        all[..header.litlens].copy_from_slice(&own.litlens[..header.litlens]);
        all[header.litlens..total].copy_from_slice(&own.distances[..header.distances]);
        header.shorten(&all[..total]);
        let mut counts = [0; 19];
        for (symbol, _) in &header.symbols[..header.count] {
            counts[*symbol as usize] += 1;
        }
        lengths(&counts, HEADER_LIMIT, &mut header.lengths);
        let last = HEADER_ORDER.iter().rposition(|&n| header.lengths[n] > 0);
        header.named = last.map_or(4, |last| 4.max(last + 1));
        header
    }

    /// Writes runs of equal lengths in short.
    fn shorten(&mut self, all: &[u8]) {
        for run in all.chunk_by(|a, b| a == b) {
            let mut left = run.len();
            if run[0] == 0 {
                while left >= 11 {
                    let now = left.min(138);
                    self.push(18, now - 11);
                    left -= now;
                }
                if left >= 3 {
                    self.push(17, left - 3);
                    left = 0;
                }
            } else {
                self.push(run[0], 0);
                left -= 1;
                while left >= 3 {
                    // Seven are four and three: six and one would cost more.
                    let now = if left == 7 { 4 } else { left.min(6) };
                    self.push(16, now - 3);
                    left -= now;
                }
            }
            for _ in 0..left {
                self.push(run[0], 0);
            }
        }
    }

    fn push(&mut self, symbol: u8, extra: usize) {
        self.symbols[self.count] = (symbol, extra as u8);
        self.count += 1;
    }

    fn extra_of(symbol: u8) -> u32 {
        let place = (symbol as usize).checked_sub(16);
        place.map_or(0, |place| u32::from(HEADER_EXTRA[place]))
    }

    fn bits(&self) -> u64 {
        let symbols = self.symbols[..self.count].iter();
        let bits = symbols.map(|&(symbol, _)| {
            u64::from(self.lengths[symbol as usize]) + u64::from(Self::extra_of(symbol))
        });
        14 + 3 * self.named as u64 + bits.sum::<u64>()
    }

    fn write<'a>(&self, mut sink: Sink<'a>) -> Sink<'a> {
        sink.put((self.litlens - FIRST_LENGTH) as u64, 5);
        sink.put((self.distances - 1) as u64, 5);
        sink.put((self.named - 4) as u64, 4);
        sink.flush();
        for &place in &HEADER_ORDER[..self.named] {
            sink.put(u64::from(self.lengths[place]), 3);
            sink.flush();
        }
        let mut words = [Code::default(); 19];
        codes(&self.lengths, &mut words);
        for &(symbol, extra) in &self.symbols[..self.count] {
            sink.put_code(words[symbol as usize].then(u32::from(extra), Self::extra_of(symbol)));
            sink.flush();
        }
        sink
    }
}

/// The codes of a block as they are written.
struct Words {
    literals: [Code; 256],
    end: Code,
    /// By the length less three, extra bits included.
    matches: [Code; 256],
    distances: [Code; DISTANCES],
}

impl Words {
    fn of(own: &Lengths) -> Self {
        let mut litlens = [Code::default(); LITLENS];
        let mut words = Self {
            literals: [Code::default(); 256],
            end: Code::default(),
            matches: [Code::default(); 256],
            distances: [Code::default(); DISTANCES],
        };
        codes(&own.litlens, &mut litlens);
        codes(&own.distances, &mut words.distances);
        words.literals.copy_from_slice(&litlens[..256]);
        words.end = litlens[END];
        for (length, word) in words.matches.iter_mut().enumerate() {
            let symbol = LENGTH_SYMBOL[length] as usize;
            let extra = length as u32 - u32::from(LENGTH_BASE[symbol]);
            *word = litlens[FIRST_LENGTH + symbol].then(extra, u32::from(LENGTH_EXTRA[symbol]));
        }
        words
    }
}

fn write_sequences<'a>(
    mut sink: Sink<'a>,
    sequences: &[Sequence],
    bytes: &[u8],
    words: &Words,
) -> Sink<'a> {
    let mut rest = bytes;
    for sequence in sequences {
        let (literals, behind) = rest.split_at(sequence.literals as usize);
        let mut fours = literals.chunks_exact(4);
        for four in &mut fours {
            for &literal in four {
                sink.put_code(words.literals[literal as usize]);
            }
            sink.flush();
        }
        for &literal in fours.remainder() {
            sink.put_code(words.literals[literal as usize]);
        }
        sink.flush();
        if sequence.length > 0 {
            sink.put_code(words.matches[(sequence.length as usize - MIN_LENGTH) & 255]);
            let symbol = distance_symbol(sequence.distance);
            sink.put_code(words.distances[symbol]);
            let extra = u64::from(sequence.distance - DISTANCE_BASE[symbol]);
            sink.put(extra, u32::from(DISTANCE_EXTRA[symbol]));
            sink.flush();
        }
        rest = &behind[sequence.length as usize..];
    }
    sink.put_code(words.end);
    sink.flush();
    sink
}
