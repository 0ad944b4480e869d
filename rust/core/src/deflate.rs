//! [`Encoder`]: deflates blocks of bytes, faster than zlib at about its size; noise, much faster.
//!
//! `compress` calls it. `parse` walks through the bytes and asks `finder` for matches; `collect`
//! takes the sequences, ends blocks where the statistics change, and stores noise; `block` writes
//! each in its shortest form, with codes made by `huffman` from the counts of `tally`. What comes
//! out depends on the level and the bytes alone, never on what the encoder has seen before, nor on
//! the machine. The slowest levels are zlib's. It never writes a last block, nor gzip's frame.
//! Source: RFC 1951.

// What runs for each byte must become one loop, whose state stays in registers.
#![allow(clippy::inline_always)]

mod bits;
mod block;
mod collect;
mod finder;
mod huffman;
mod noise;
mod parse;
mod symbols;
mod tally;
mod zlib;

use self::collect::{Collector, Memory};
use self::finder::Finder;
use self::parse::parse;

pub use self::symbols::WINDOW;

/// Bytes as they are, and a match behind them.
#[derive(Clone, Copy, Debug)]
struct Sequence {
    literals: u32,
    /// Zero: no match.
    length: u16,
    /// Less one.
    distance: u16,
}

/// An encoder, with the tables and the memory it uses again.
pub struct Encoder {
    search: Search,
    memory: Memory,
}

/// Where matches are looked for: at two, four or eight places for each hash. A match of `good`
/// bytes is taken without a look at the next byte.
enum Search {
    Two { finder: Finder<1>, good: usize },
    Four { finder: Finder<2>, good: usize },
    Eight { finder: Finder<4>, good: usize },
    Zlib { level: u32 },
}

impl Search {
    fn of(level: u32) -> Self {
        let two = |good| Self::Two {
            finder: Finder::new(),
            good,
        };
        let four = |good| Self::Four {
            finder: Finder::new(),
            good,
        };
        match level {
            ..=1 => two(0),
            2 => two(8),
            3 => two(16),
            4 => two(48),
            5 => four(32),
            6 => Self::Eight {
                finder: Finder::new(),
                good: 64,
            },
            level => Self::Zlib {
                level: level.min(9),
            },
        }
    }
}

impl Encoder {
    /// An encoder of a level from 1, the fastest, to 9, the smallest.
    pub fn new(level: u32) -> Self {
        Self {
            search: Search::of(level),
            memory: Memory::new(),
        }
    }

    /// Deflates the bytes of `data` from `start` on; the 32 KiB before them may be referred to.
    ///
    /// Appends whole bytes to `out`, which are blocks of which none is the last one; they are at
    /// most a thousandth and a few bytes longer than what they stand for.
    pub fn encode(&mut self, data: &[u8], start: usize, out: &mut Vec<u8>) {
        if start == data.len() {
            return;
        }
        let memory = &mut self.memory;
        match &mut self.search {
            Search::Zlib { level } => zlib::deflate(*level, data, start, out),
            Search::Two { finder, good } => {
                parse(
                    finder,
                    *good,
                    data,
                    start,
                    Collector::new(memory, data, start, out),
                );
            }
            Search::Four { finder, good } => {
                parse(
                    finder,
                    *good,
                    data,
                    start,
                    Collector::new(memory, data, start, out),
                );
            }
            Search::Eight { finder, good } => {
                parse(
                    finder,
                    *good,
                    data,
                    start,
                    Collector::new(memory, data, start, out),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests;
