//! Tests of `tar_write`.

#![allow(clippy::unwrap_used)]

use std::process::Command;

use super::*;

fn entry(path: &str, kind: Kind) -> Entry {
    Entry {
        path: path.as_bytes().to_vec(),
        kind,
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: 1_700_000_000,
        mtime_nanos: 0,
        size: 0,
        xattrs: Vec::new(),
    }
}

fn archive(entries: &[(Entry, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (entry, content) in entries {
        append_header(&mut out, entry);
        out.extend_from_slice(content);
        out.resize(out.len() + padding(content.len() as u64), 0);
    }
    out.extend_from_slice(&END);
    out
}

/// What GNU tar says about an archive.
fn listed(bytes: &[u8]) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let output = Command::new("tar")
        .args([
            "--numeric-owner",
            "--utc",
            "--full-time",
            "--xattrs",
            "-tvf",
        ])
        .arg(file.path())
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && errors.is_empty(), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_plain_entry_takes_one_block() {
    let mut out = Vec::new();
    append_header(&mut out, &entry("etc/hosts", Kind::File));
    assert_eq!(out.len(), BLOCK);
}

#[test]
fn gnu_tar_reads_every_kind() {
    let mut file = entry("a/file", Kind::File);
    (file.size, file.mode, file.uid, file.gid) = (5, 0o4755, 1000, 33);
    let listing = listed(&archive(&[
        (entry("a", Kind::Directory), b""),
        (file, b"hello"),
        (entry("a/hard", Kind::Hardlink(b"a/file".to_vec())), b""),
        (entry("a/link", Kind::Symlink(b"../x".to_vec())), b""),
        (
            entry("a/null", Kind::CharDevice { major: 1, minor: 3 }),
            b"",
        ),
        (
            entry("a/sda", Kind::BlockDevice { major: 8, minor: 0 }),
            b"",
        ),
        (entry("a/fifo", Kind::Fifo), b""),
    ]));
    let lines: Vec<Vec<&str>> = listing
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let names: Vec<&str> = lines.iter().map(|line| line[5]).collect();
    let wanted = [
        "a/", "a/file", "a/hard", "a/link", "a/null", "a/sda", "a/fifo",
    ];
    assert_eq!(names, wanted);
    assert_eq!(lines[1][..3], ["-rwsr-xr-x", "1000/33", "5"]);
    assert_eq!(lines[1][3..5], ["2023-11-14", "22:13:20"]);
    assert_eq!(lines[2][6..], ["link", "to", "a/file"]);
    assert_eq!(lines[3][6..], ["->", "../x"]);
    assert_eq!(lines[4][2], "1,3");
    assert_eq!(lines[5][2], "8,0");
}

#[test]
fn long_names_split_or_go_to_pax() {
    let splits = format!("{}/{}", "p".repeat(150), "n".repeat(100));
    let long = format!("{}/{}", "p".repeat(90), "n".repeat(200));
    let deep = "d/".repeat(300) + "x";
    let mut out = Vec::new();
    append_header(&mut out, &entry(&splits, Kind::File));
    assert_eq!(out.len(), BLOCK);
    let link = Kind::Symlink(long.clone().into_bytes());
    let listing = listed(&archive(&[
        (entry(&splits, Kind::File), b""),
        (entry(&long, Kind::Directory), b""),
        (entry(&deep, Kind::File), b""),
        (entry("link", link), b""),
    ]));
    assert!(listing.contains(&format!("{splits}\n")));
    assert!(listing.contains(&format!("{long}/\n")));
    assert!(listing.contains(&format!("{deep}\n")));
    assert!(listing.contains(&format!("link -> {long}\n")));
}

#[test]
fn names_of_every_length_survive() {
    for length in 95..=260 {
        for slash in [1, 50, 99, 154, 155, 156] {
            if slash + 1 >= length {
                continue;
            }
            let name = format!("{}/{}", "a".repeat(slash), "b".repeat(length - slash - 1));
            if let Some((prefix, rest)) = split(name.as_bytes()) {
                assert!(prefix.len() <= PREFIX_MAX && rest.len() <= NAME_MAX);
                let joined = [prefix, b"/", rest].concat();
                let whole = if prefix.is_empty() { rest } else { &joined };
                assert_eq!(whole, name.as_bytes());
            }
        }
    }
}

#[test]
fn numbers_beyond_ustar_go_to_pax() {
    let mut big = entry("big", Kind::File);
    (big.uid, big.gid, big.mtime) = (4_000_000_000, 3_000_000, -86_400);
    let listing = listed(&archive(&[(big, b"")]));
    assert!(listing.contains("4000000000/3000000"), "{listing}");
    assert!(listing.contains("1969-12-31 00:00:00"), "{listing}");
    let mut huge = entry("huge", Kind::File);
    huge.size = OCTAL_11_MAX + 1;
    let mut out = Vec::new();
    append_header(&mut out, &huge);
    let text = String::from_utf8_lossy(&out).into_owned();
    assert!(text.contains("19 size=8589934592\n"), "{text}");
}

#[test]
fn names_beyond_ascii_go_to_pax_as_they_are() {
    let listing = listed(&archive(&[(entry("caf\u{e9}/\u{5b57}", Kind::File), b"")]));
    assert!(listing.contains("caf\\303\\251/"), "{listing}");
    let mut raw = entry("", Kind::File);
    raw.path = b"bad\xffname".to_vec();
    assert!(listed(&archive(&[(raw, b"")])).contains("bad\\377name"));
}

#[test]
fn xattrs_are_sorted_binary_records() {
    let mut with = entry("x", Kind::File);
    with.xattrs = vec![
        (b"user.b".to_vec(), b"line\nbreak=\0".to_vec()),
        (b"security.capability".to_vec(), vec![1, 0, 0, 2]),
    ];
    let mut out = Vec::new();
    append_header(&mut out, &with);
    let find = |needle: &[u8]| out.windows(needle.len()).position(|part| part == needle);
    let capability = find(b"SCHILY.xattr.security.capability=\x01\x00\x00\x02\n").unwrap();
    let user = find(b"SCHILY.xattr.user.b=line\nbreak=\0\n").unwrap();
    assert!(capability < user);
    assert!(listed(&archive(&[(with, b"")])).ends_with(" x\n"));
}

#[test]
fn record_lengths_count_their_own_digits() {
    for length in 0..1200 {
        let mut out = Vec::new();
        append_record(&mut out, b"k", &vec![b'v'; length]);
        let text = String::from_utf8(out.clone()).unwrap();
        let number: usize = text.split(' ').next().unwrap().parse().unwrap();
        assert_eq!(number, out.len());
    }
}

#[test]
fn an_exact_time_is_said_to_the_nanosecond() {
    for (mtime, nanos, said) in [
        (1_700_000_000, 123_456_789, Some("1700000000.123456789")),
        (1_700_000_000, 500_000_000, Some("1700000000.5")),
        (-1, 500_000_000, Some("-0.5")),
        (-1_000, 250_000_000, Some("-999.75")),
        (1_700_000_000, 0, None),
    ] {
        let mut timed = entry("f", Kind::File);
        (timed.mtime, timed.mtime_nanos) = (mtime, nanos);
        let mut out = Vec::new();
        append_exact_header(&mut out, &timed);
        let text = String::from_utf8_lossy(&out).into_owned();
        match said {
            Some(said) => assert!(text.contains(&format!("mtime={said}\n")), "{text}"),
            None => assert_eq!(out.len(), BLOCK),
        }
        out.extend_from_slice(&END);
        let mut read = crate::tar_read::Archive::new(&out[..]);
        let found = read.next_entry().unwrap().unwrap();
        assert_eq!((found.mtime, found.mtime_nanos), (mtime, nanos));
    }
}
