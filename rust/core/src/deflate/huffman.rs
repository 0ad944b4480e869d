//! [`lengths`]: how long each symbol's code is; [`codes`]: the codes. Source: RFC 1951, 3.2.2.

use super::bits::Code;

/// Symbols that [`lengths`] takes at most.
const MOST: usize = 288;
/// The longest code that deflate can describe.
const LONGEST: usize = 15;

/// Gives each symbol that occurs the length of its code, and the others zero.
///
/// The code is complete: where fewer than two symbols occur, others get a code that is not used,
/// as some decoders refuse anything else. No code is longer than `limit`; where Huffman's would
/// be, the result is at most a few bits off the best.
pub fn lengths(counts: &[u32], limit: usize, lengths: &mut [u8]) {
    let mut leaves = [0_u32; MOST];
    let mut used = 0;
    for (symbol, &count) in counts.iter().enumerate() {
        if count > 0 {
            // Symbols of equal counts stand in their own order: nothing is left to chance.
            leaves[used] = count << 9 | symbol as u32;
            used += 1;
        }
    }
    lengths.fill(0);
    if used < 2 {
        let only = if used == 1 { leaves[0] & 511 } else { 0 };
        lengths[only as usize] = 1;
        lengths[usize::from(only == 0)] = 1;
        return;
    }
    let leaves = &mut leaves[..used];
    leaves.sort_unstable();
    let mut of_length = count_depths(leaves, limit);
    let mut left = leaves.iter();
    for length in (1..=limit).rev() {
        for leaf in left.by_ref().take(of_length[length] as usize) {
            lengths[(leaf & 511) as usize] = length as u8;
        }
        of_length[length] = 0;
    }
}

/// Builds Huffman's tree over sorted leaves, and counts the leaves of each depth up to `limit`.
fn count_depths(leaves: &[u32], limit: usize) -> [u32; LONGEST + 1] {
    let inner = leaves.len() - 1;
    let mut weights = [0_u32; MOST];
    let mut parents = [0_u16; MOST];
    let mut leaf_parents = [0_u16; MOST];
    let (mut leaf, mut node) = (0, 0);
    for made in 0..inner {
        let mut weight = 0;
        for _ in 0..2 {
            if leaf < leaves.len() && (node == made || leaves[leaf] >> 9 <= weights[node]) {
                weight += leaves[leaf] >> 9;
                leaf_parents[leaf] = made as u16;
                leaf += 1;
            } else {
                weight += weights[node];
                parents[node] = made as u16;
                node += 1;
            }
        }
        weights[made] = weight;
    }
    let mut depths = [0_u16; MOST];
    for node in (0..inner - 1).rev() {
        depths[node] = depths[parents[node] as usize] + 1;
    }
    let mut of_length = [0_u32; LONGEST + 1];
    for &parent in &leaf_parents[..leaves.len()] {
        let depth = depths[parent as usize] as usize + 1;
        of_length[depth.min(limit)] += 1;
    }
    shorten(&mut of_length, limit);
    of_length
}

/// Makes a complete code again of one whose longest codes were cut to `limit`.
fn shorten(of_length: &mut [u32; LONGEST + 1], limit: usize) {
    let space = |length: usize| 1_u32 << (limit - length);
    let taken: u32 = (1..=limit).map(|n| of_length[n] * space(n)).sum();
    // Each turn frees the space of one longest code: a shorter leaf becomes a node, which takes
    // one of the longest beside it.
    for _ in space(0)..taken {
        let shorter = (1..limit).rev().find(|&n| of_length[n] > 0).unwrap_or(1);
        of_length[shorter] -= 1;
        of_length[shorter + 1] += 2;
        of_length[limit] -= 1;
    }
}

/// Gives the codes of these lengths, in the order of their symbols.
pub fn codes(lengths: &[u8], codes: &mut [Code]) {
    let mut of_length = [0_u32; LONGEST + 1];
    for &length in lengths {
        of_length[length as usize & LONGEST] += 1;
    }
    of_length[0] = 0;
    let mut next = [0_u32; LONGEST + 1];
    for length in 1..=LONGEST {
        next[length] = (next[length - 1] + of_length[length - 1]) << 1;
    }
    for (code, &length) in codes.iter_mut().zip(lengths) {
        *code = Code::default();
        if length > 0 {
            let place = &mut next[length as usize & LONGEST];
            let bits = place.reverse_bits() >> (32 - u32::from(length));
            *code = Code::new(bits, u32::from(length));
            *place += 1;
        }
    }
}
