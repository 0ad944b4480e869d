//! [`Collector`]: takes the sequences that a parser finds, and ends blocks where it pays.

use super::bits::Bits;
use super::block::{write_alignment, write_block, write_stored};
use super::noise::{is_noise, FEWEST};
use super::tally::Tally;
use super::Sequence;

/// Sequences, and bytes, after which it is asked whether the block should have ended before them.
const PART_SEQUENCES: usize = 1024;
const PART_BYTES: usize = 8 << 10;
/// Sequences of a block at most.
const BLOCK_SEQUENCES: usize = 32 << 10;
/// About what the description of a block's codes costs, in 256ths of a bit.
const HEADER: u64 = 600 << 8;

/// What the collector keeps from one block to the next, for its memory's sake alone.
pub struct Memory {
    sequences: Vec<Sequence>,
    /// Of the sequences that surely belong to this block.
    whole: Tally,
    /// Of those after them.
    part: Tally,
}

impl Memory {
    pub fn new() -> Self {
        Self {
            sequences: Vec::with_capacity(BLOCK_SEQUENCES + PART_SEQUENCES),
            whole: Tally::new(),
            part: Tally::new(),
        }
    }
}

/// Writes `data` from some place on as it is parsed.
pub struct Collector<'a> {
    memory: &'a mut Memory,
    data: &'a [u8],
    bits: Bits<'a>,
    /// What is stored and not written yet ends where the block begins.
    stored: usize,
    /// Where the block begins, its last part, and what is to come.
    block: usize,
    part: usize,
    at: usize,
    /// Sequences of the block that are before its last part.
    settled: usize,
    whole_bits: u64,
}

impl<'a> Collector<'a> {
    pub fn new(memory: &'a mut Memory, data: &'a [u8], start: usize, out: &'a mut Vec<u8>) -> Self {
        memory.sequences.clear();
        memory.whole.clear();
        Self {
            memory,
            data,
            bits: Bits::new(out),
            stored: start,
            block: start,
            part: start,
            at: start,
            settled: 0,
            whole_bits: 0,
        }
    }

    /// Takes literals and the match behind them.
    #[inline(always)]
    pub fn push(&mut self, literals: usize, length: usize, distance: usize) {
        if literals >= FEWEST {
            self.push_literals(literals);
        }
        let literals = if literals >= FEWEST { 0 } else { literals };
        self.memory.sequences.push(Sequence {
            literals: literals as u32,
            length: length as u16,
            distance: distance.wrapping_sub(1) as u16,
        });
        self.at += literals + length;
        let count = self.memory.sequences.len() - self.settled;
        if count >= PART_SEQUENCES || self.at - self.part >= PART_BYTES {
            self.end_part();
        }
    }

    /// Takes literals alone. Noise is stored, in a block of its own.
    #[cold]
    pub fn push_literals(&mut self, literals: usize) {
        if is_noise(&self.data[self.at..self.at + literals]) {
            self.end_part();
            self.end_block();
            self.at += literals;
            (self.block, self.part) = (self.at, self.at);
        } else if literals > 0 {
            self.memory.sequences.push(Sequence {
                literals: literals as u32,
                length: 0,
                distance: 0,
            });
            self.at += literals;
            if self.at - self.part >= PART_BYTES {
                self.end_part();
            }
        }
    }

    /// Writes what is left, and brings the stream to a byte.
    pub fn finish(mut self) {
        self.end_part();
        self.end_block();
        self.write_stored();
        write_alignment(&mut self.bits);
    }

    /// Adds the last part to the block, or ends the block before it where that is shorter.
    fn end_part(&mut self) {
        let sequences = &self.memory.sequences[self.settled..];
        if sequences.is_empty() {
            return;
        }
        self.memory.part.clear();
        self.memory
            .part
            .count(sequences, &self.data[self.part..self.at]);
        let part_bits = self.memory.part.estimate();
        let mut both = self.memory.whole.estimate_with(&self.memory.part);
        if self.settled > 0 && both > self.whole_bits + part_bits + HEADER {
            self.end_block();
            both = part_bits;
        }
        self.memory.whole.add(&self.memory.part);
        self.whole_bits = both;
        self.settled = self.memory.sequences.len();
        self.part = self.at;
        if self.settled >= BLOCK_SEQUENCES {
            self.end_block();
        }
    }

    /// Writes the sequences before the last part as a block.
    fn end_block(&mut self) {
        if self.settled == 0 {
            return;
        }
        self.write_stored();
        let sequences = &self.memory.sequences[..self.settled];
        self.memory.whole.count_end();
        let bytes = &self.data[self.block..self.part];
        write_block(&mut self.bits, sequences, bytes, &self.memory.whole);
        self.memory.whole.clear();
        self.memory.sequences.drain(..self.settled);
        (self.settled, self.whole_bits) = (0, 0);
        (self.block, self.stored) = (self.part, self.part);
    }

    fn write_stored(&mut self) {
        write_stored(&mut self.bits, &self.data[self.stored..self.block]);
        self.stored = self.block;
    }
}
