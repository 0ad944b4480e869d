//! [`parse`]: cuts bytes into sequences, greedily, and with a look at the next byte.

use super::collect::Collector;
use super::finder::{Finder, Match, READ};
use super::symbols::{MAX_LENGTH, WINDOW};

/// Literals after which they are handed on although no match ends them.
const LONGEST_RUN: usize = 8 << 10;
/// Without a match, steps grow by one for every so many bytes, as a power of two, up to a bound:
/// noise is crossed quickly, and what begins in such a step is found again backwards.
const PATIENCE: u32 = 7;
const LONGEST_STEP: usize = 64;
/// Bytes of a match that are made known, at most.
const INSIDE: usize = 128;

/// Parses `data` from `start` on. A match of `good` bytes is taken without a look at the next one.
pub fn parse<const PAIRS: usize>(
    finder: &mut Finder<PAIRS>,
    good: usize,
    data: &[u8],
    start: usize,
    mut out: Collector,
) {
    finder.clear();
    // Places from here on are not looked at: too few bytes follow.
    let end = data.len().saturating_sub(READ);
    finder.add(data, start.saturating_sub(WINDOW).min(end), start.min(end));
    let mut anchor = start;
    let mut calm = start;
    let mut at = start.max(1);
    while at < end {
        let mut found = finder.find(data, at);
        if found.length == 0 {
            at += 1 + ((at - calm) >> PATIENCE).min(LONGEST_STEP);
            if at - anchor >= LONGEST_RUN {
                let run = at.min(data.len()) - anchor;
                out.push_literals(run);
                anchor += run;
            }
            continue;
        }
        let mut searched = at + 1;
        while found.length < good && searched < end {
            let next = finder.find(data, searched);
            searched += 1;
            if gain(next) <= gain(found) {
                break;
            }
            found = next;
            at = searched - 1;
        }
        let behind = at + found.length;
        let back = backwards(data, anchor, at, found.distance).min(MAX_LENGTH - found.length);
        out.push(at - back - anchor, found.length + back, found.distance);
        finder.add(data, searched, behind.min(searched + INSIDE).min(end));
        at = behind;
        anchor = at;
        calm = at;
    }
    out.push_literals(data.len() - anchor);
    out.finish();
}

/// How many bytes before `at` belong to the match there: with long steps it may have been missed.
#[inline(always)]
fn backwards(data: &[u8], anchor: usize, at: usize, distance: usize) -> usize {
    let most = (at - anchor).min(at - distance);
    let mut back = 0;
    while back < most && data[at - back - 1] == data[at - back - 1 - distance] {
        back += 1;
    }
    back
}

/// About how many bits a match saves, over five; with a bonus for the one that came first.
#[inline(always)]
fn gain(found: Match) -> usize {
    if found.length == 0 {
        return 0;
    }
    4 * found.length + found.distance.leading_zeros() as usize
}
