//! [`is_noise`]: whether bytes are spread so evenly that Huffman codes win nothing.

/// Fewer bytes than this cannot be judged.
pub const FEWEST: usize = 1024;

/// True where codes for single bytes would win less than about one per cent.
pub fn is_noise(bytes: &[u8]) -> bool {
    if bytes.len() < FEWEST {
        return false;
    }
    let mut counts = [[0_u32; 256]; 4];
    let fours = bytes.chunks_exact(4);
    let rest = fours.remainder();
    for four in fours {
        counts[0][four[0] as usize] += 1;
        counts[1][four[1] as usize] += 1;
        counts[2][four[2] as usize] += 1;
        counts[3][four[3] as usize] += 1;
    }
    for &byte in rest {
        counts[0][byte as usize] += 1;
    }
    // Collision entropy, in integers: evenly spread bytes meet themselves n*n/256 times.
    let total = bytes.len() as u64;
    let squares: u64 = (0..256)
        .map(|byte| {
            let count: u32 = counts.iter().map(|counts| counts[byte]).sum();
            u64::from(count).pow(2)
        })
        .sum();
    // n*n/256 plus the n that chance adds, and 4 % more.
    let even = total * total / 256 + total;
    squares <= even + even / 25
}
