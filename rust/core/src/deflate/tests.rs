//! Tests of `deflate`: what goes in comes out of decoders that others wrote.

#![allow(clippy::unwrap_used)]

use std::io::Write as _;
use std::process::{Command, Stdio};

use flate2::{Decompress, FlushDecompress, Status};
use proptest::prelude::*;

use super::*;

/// An empty last block.
const LAST: [u8; 2] = [3, 0];

fn encode(level: u32, data: &[u8], start: usize) -> Vec<u8> {
    let mut out = Vec::new();
    Encoder::new(level).encode(data, start, &mut out);
    out
}

/// What zlib-rs makes of it, with `window` before it.
fn inflate(stream: &[u8], window: &[u8], length: usize) -> Vec<u8> {
    let mut decoder = Decompress::new(false);
    if !window.is_empty() {
        decoder
            .set_dictionary(&window[window.len().saturating_sub(WINDOW)..])
            .unwrap();
    }
    let stream = [stream, &LAST].concat();
    let mut back = Vec::with_capacity(length + 1);
    let status = decoder.decompress_vec(&stream, &mut back, FlushDecompress::Finish);
    assert_eq!(status.unwrap(), Status::StreamEnd);
    assert_eq!(decoder.total_in(), stream.len() as u64);
    back
}

/// Encodes, decodes, and holds the length against that of stored blocks.
fn check(level: u32, data: &[u8], start: usize) {
    let stream = encode(level, data, start);
    let block = &data[start..];
    let back = inflate(&stream, &data[..start], block.len());
    assert!(
        back == block,
        "level {level}, {} bytes from {start}",
        data.len()
    );
    assert!(stream.len() <= bound(block.len()), "{}", stream.len());
}

/// The most that `encode` promises.
fn bound(length: usize) -> usize {
    length + length / 1000 + 16
}

fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

/// Lines that resemble each other.
fn text(lines: usize) -> Vec<u8> {
    let line = |n: usize| format!("line {n} of {} is {:x}\n", n % 7, n * n * 31);
    (0..lines).map(line).collect::<String>().into_bytes()
}

/// Every word of `width` letters of an alphabet, once.
fn de_bruijn(letters: u8, width: usize) -> Vec<u8> {
    fn walk(word: &mut [u8], at: usize, period: usize, letters: u8, out: &mut Vec<u8>) {
        let width = word.len() - 1;
        if at > width {
            if width % period == 0 {
                out.extend_from_slice(&word[1..=period]);
            }
            return;
        }
        word[at] = word[at - period];
        walk(word, at + 1, period, letters, out);
        for letter in word[at - period] + 1..letters {
            word[at] = letter;
            walk(word, at + 1, at, letters, out);
        }
    }
    let mut out = Vec::new();
    walk(&mut vec![0; width + 1], 1, 1, letters, &mut out);
    out
}

#[test]
fn hard_inputs_come_back_at_every_level() {
    let far = |distance: usize| {
        let mut bytes = noise(distance);
        bytes.extend_from_within(..600);
        bytes
    };
    let inputs = [
        vec![7; 300_000],
        [1, 2].repeat(50_000),
        [1, 2, 3].repeat(257),
        noise(200_000),
        de_bruijn(2, 16),
        de_bruijn(4, 8),
        (0..=255).collect(),
        (0..40_000_u32).flat_map(u32::to_le_bytes).collect(),
        text(20_000),
        [
            noise(2_457),
            text(60),
            noise(1_500),
            vec![0; 70_000],
            text(9),
        ]
        .concat(),
        [text(2_000), noise(100_000), text(2_000)].concat(),
        far(32_767),
        far(32_768),
        far(32_769),
        far(65_535),
        far(65_536),
        far(65_537),
    ];
    for bytes in &inputs {
        for level in 1..=9 {
            check(level, bytes, 0);
        }
    }
}

#[test]
fn small_blocks_come_back() {
    let inputs = [vec![9; 300], noise(300), text(20)[..300].to_vec()];
    for bytes in &inputs {
        for length in 0..=300 {
            for level in [1, 4, 5, 6, 9] {
                check(level, &bytes[..length], 0);
            }
        }
    }
}

#[test]
fn an_empty_block_is_nothing() {
    for level in 1..=9 {
        assert!(encode(level, b"", 0).is_empty());
        assert!(encode(level, b"window", 6).is_empty());
    }
}

#[test]
fn matches_reach_over_the_window_and_no_further() {
    let again = noise(1000);
    for (between, is_short) in [(31_768, true), (31_769, false)] {
        let mut data = again.clone();
        data.extend(vec![0; between]);
        let start = data.len();
        data.extend_from_slice(&again);
        for level in 1..=6 {
            check(level, &data, start);
            // At distance 32768 it is four matches. zlib does not reach so far.
            let length = encode(level, &data, start).len();
            assert_eq!(length < 100, is_short, "level {level}: {length}");
        }
    }
}

#[test]
fn windows_of_every_kind_are_used() {
    let data = text(6_000);
    for start in [
        1, 2, 3, 7, 8, 9, 100, 32_767, 32_768, 32_769, 65_536, 100_000,
    ] {
        for level in 1..=9 {
            check(level, &data, start);
            check(level, &data[..start + 5], start);
        }
    }
}

#[test]
fn noise_costs_next_to_nothing_and_hides_nothing() {
    // As some files have it: 2,457 bytes of noise, then words that were there before.
    let words = text(80);
    let random = noise(100 * 2_457);
    let mut data = Vec::new();
    for part in random.chunks(2_457) {
        data.extend_from_slice(part);
        data.extend_from_slice(&words[..1_639]);
    }
    for level in 1..=6 {
        check(level, &data, 0);
        let length = encode(level, &data, 0).len();
        assert!(length < random.len() * 105 / 100, "level {level}: {length}");
    }
}

#[test]
fn more_places_find_more() {
    let data = text(30_000);
    let [few, some, most] = [1, 4, 6].map(|level| encode(level, &data, 0).len());
    assert!(few > some && some > most, "{few} {some} {most}");
}

#[test]
fn bytes_do_not_depend_on_what_was_encoded_before() {
    let inputs = [text(20_000), noise(70_000), vec![0; 100_000], text(3)];
    for level in 1..=9 {
        let mut encoder = Encoder::new(level);
        for _ in 0..2 {
            for bytes in &inputs {
                for start in [0, bytes.len() / 2] {
                    let mut out = b"before".to_vec();
                    encoder.encode(bytes, start, &mut out);
                    assert!(out[6..] == encode(level, bytes, start));
                }
            }
        }
    }
}

#[test]
fn other_programs_take_blocks_one_after_another() {
    let data = [text(30_000), noise(50_000), vec![0; 300_000], text(500)].concat();
    let programs: [&[&str]; 4] = [
        &["gzip", "-dc"],
        &["busybox", "gunzip", "-c"],
        &["pigz", "-dc"],
        &[
            "python3",
            "-c",
            "import gzip,sys;sys.stdout.buffer.write(gzip.decompress(sys.stdin.buffer.read()))",
        ],
    ];
    for level in 1..=9 {
        let mut stream = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
        let mut encoder = Encoder::new(level);
        for start in (0..data.len()).step_by(100_000) {
            let end = data.len().min(start + 100_000);
            let from = start.saturating_sub(WINDOW);
            encoder.encode(&data[from..end], start - from, &mut stream);
        }
        stream.extend_from_slice(&LAST);
        stream.extend_from_slice(&crc32fast::hash(&data).to_le_bytes());
        stream.extend_from_slice(&(data.len() as u32).to_le_bytes());
        for program in programs {
            assert!(pipe(program, &stream) == data, "level {level}: {program:?}");
        }
    }
}

fn pipe(program: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program[0])
        .args(&program[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).unwrap());
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success());
    output.stdout
}

/// Pieces as files have them: runs, copies of what came before, noise, letters of few kinds.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        (any::<u8>(), 1..2_000_usize).prop_map(|(byte, n)| vec![byte; n]),
        prop::collection::vec(any::<u8>(), 1..3_000),
        prop::collection::vec(0..4_u8, 1..3_000),
        prop::collection::vec(prop::sample::select(b"etaoin ".to_vec()), 1..3_000),
        (1..400_usize).prop_map(text),
    ];
    let copy = (any::<prop::sample::Index>(), 1..600_usize);
    prop::collection::vec((piece, copy), 0..12).prop_map(|parts| {
        let mut bytes = Vec::new();
        for (part, (place, length)) in parts {
            bytes.extend_from_slice(&part);
            let from = place.index(bytes.len());
            bytes.extend_from_within(from..bytes.len().min(from + length));
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_block_comes_back(
        data in pieces(),
        start in any::<prop::sample::Index>(),
        level in 1..=9_u32,
    ) {
        let start = start.index(data.len() + 1);
        check(level, &data, start);
    }

    #[test]
    fn codes_are_complete_and_bounded(
        counts in prop::collection::vec(prop_oneof![Just(0), 1..5_u32, 1..5_000_000_u32], 2..286),
        limit in 9..=15_usize,
    ) {
        let mut lengths = vec![0; counts.len()];
        huffman::lengths(&counts, limit, &mut lengths);
        let used = lengths.iter().filter(|length| **length > 0);
        let space: u32 = used.map(|length| 1 << (limit - *length as usize)).sum();
        prop_assert_eq!(space, 1 << limit);
        for (count, length) in counts.iter().zip(&lengths) {
            prop_assert!(*count == 0 || *length > 0);
        }
    }
}

#[test]
fn codes_of_fibonacci_counts_are_cut_to_the_limit() {
    let mut counts = vec![1_u32, 1];
    while counts.len() < 30 {
        counts.push(counts[counts.len() - 1] + counts[counts.len() - 2]);
    }
    for limit in [7, 14, 15] {
        let mut lengths = vec![0; counts.len()];
        huffman::lengths(&counts, limit, &mut lengths);
        let space: u32 = lengths.iter().map(|n| 1 << (limit - *n as usize)).sum();
        assert_eq!(space, 1 << limit);
        assert!(lengths.is_sorted_by(|a, b| a >= b));
    }
}

#[test]
fn every_length_and_distance_has_its_symbol() {
    use super::symbols::*;
    for length in 0..256_u16 {
        let symbol = LENGTH_SYMBOL[length as usize] as usize;
        let extra = length - LENGTH_BASE[symbol];
        assert!(extra < 1 << LENGTH_EXTRA[symbol]);
    }
    for distance in 0..WINDOW as u16 {
        let symbol = distance_symbol(distance);
        let extra = distance - DISTANCE_BASE[symbol];
        assert!(extra < 1 << DISTANCE_EXTRA[symbol]);
    }
}

#[test]
fn noise_is_told_from_what_can_be_coded() {
    use super::noise::is_noise;
    let bytes = noise(64 << 10);
    assert!(is_noise(&bytes) && is_noise(&bytes[..2_457]));
    assert!(!is_noise(&bytes[..1_000]));
    assert!(!is_noise(&text(2_000)));
    let nearly: Vec<u8> = bytes.iter().map(|byte| byte % 200).collect();
    assert!(!is_noise(&nearly));
}
