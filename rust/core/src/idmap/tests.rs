//! Tests of `idmap`.

#![allow(clippy::unwrap_used)]
use super::*;

const SUBUID: &str = "root:1:1\nalice:100000:65536\nbob:300000:65536\n1001:500000:10\n";

#[test]
fn ranges_are_found_by_name_and_by_number() {
    let ranges = parse_ranges(SUBUID, Some("alice"), 1001);
    assert_eq!(ranges, [(100_000, 65536), (500_000, 10)]);
    assert_eq!(parse_ranges(SUBUID, None, 1001), [(500_000, 10)]);
    assert_eq!(parse_ranges(SUBUID, Some("carol"), 7), []);
}

#[test]
fn a_range_that_overlaps_another_or_the_user_is_left_out() {
    let text = "a:100:50\na:149:10\na:1000:10\na:150:10\n";
    assert_eq!(parse_ranges(text, Some("a"), 1005), [(100, 50), (150, 10)]);
}

#[test]
fn broken_and_overflowing_lines_are_skipped() {
    let text = "a\na:x:1\na:1:\na:4294967295:2\na:-1:5\na:10:0\n# a:1:1\n:::\na:7:1:more\n";
    assert_eq!(parse_ranges(text, Some("a"), 5000), [(7, 1)]);
}

#[test]
fn ranges_are_laid_one_after_another_from_id_1() {
    let words = map_words(42, 1000, &[(100_000, 65536), (500_000, 10)]).join(" ");
    assert_eq!(words, "42 0 1000 1 1 100000 65536 65537 500000 10");
}

#[test]
fn more_ids_than_there_are_do_not_overflow() {
    let words = map_words(1, 0, &[(1, u32::MAX - 1), (0, 5)]);
    assert_eq!(words[4..], ["1", "1", "4294967293"]);
}

#[test]
fn a_missing_range_says_how_to_get_one() {
    let sentence = ranges_of("/nonexistent/subuid", Some("alice"), 1000).unwrap_err();
    assert!(sentence.contains("no range for alice in /nonexistent/subuid"));
    assert!(sentence.contains("usermod --add-subuids"));
}

#[test]
fn a_process_with_threads_is_refused() {
    let (end, wait) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || wait.recv().is_ok());
    assert!(matches!(enter(false), Err(Error::Sandbox { .. })));
    drop(end);
    thread.join().unwrap();
}
