//! Writes tar entries: ustar headers, with a PAX header before those that ustar cannot say.
//!
//! [`append_header`] is called by `pack` for every entry; content and [`padding`] follow, and
//! [`END`] closes the archive. The bytes depend on the entry alone: no user names, no access
//! times, no process ids, so the same entry gives the same header on every machine.
//! Modification times are whole seconds, rounded down.
//! Source: POSIX.1-2024, pax, "ustar Interchange Format" and "pax Extended Header"; OCI
//! image-spec v1.1, layer.md.

use crate::entry::{Entry, Kind};

/// The unit that everything in a tar is padded to.
pub const BLOCK: usize = 512;
/// The two zero blocks that end an archive.
pub const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

const NAME_MAX: usize = 100;
const PREFIX_MAX: usize = 155;
/// Eleven octal digits: sizes and times.
const OCTAL_11_MAX: u64 = 0o777_7777_7777;
/// Seven octal digits: ids and device numbers.
const OCTAL_7_MAX: u64 = 0o777_7777;

/// Zero bytes that follow `size` bytes of content.
pub const fn padding(size: u64) -> usize {
    (BLOCK - (size % BLOCK as u64) as usize) % BLOCK
}

/// Appends the header of `entry` to `out`, and a PAX header before it where one is needed.
pub fn append_header(out: &mut Vec<u8>, entry: &Entry) {
    let mut fields = Fields::of(entry);
    let records = fields.pax_records(entry);
    if !records.is_empty() {
        append_pax(out, &records);
    }
    fields.write(out);
}

/// What goes into one ustar header, as numbers and bytes.
struct Fields {
    name: Vec<u8>,
    link: Vec<u8>,
    type_flag: u8,
    mode: u32,
    uid: u64,
    gid: u64,
    size: u64,
    mtime: i64,
    major: u32,
    minor: u32,
}

impl Fields {
    fn of(entry: &Entry) -> Self {
        let mut name = entry.path.clone();
        let (mut link, mut major, mut minor) = (Vec::new(), 0, 0);
        let type_flag = match &entry.kind {
            Kind::File => b'0',
            Kind::Hardlink(target) => {
                link.clone_from(target);
                b'1'
            }
            Kind::Symlink(target) => {
                link.clone_from(target);
                b'2'
            }
            Kind::CharDevice { major: a, minor: b } => {
                (major, minor) = (*a, *b);
                b'3'
            }
            Kind::BlockDevice { major: a, minor: b } => {
                (major, minor) = (*a, *b);
                b'4'
            }
            Kind::Directory => {
                name.push(b'/');
                b'5'
            }
            Kind::Fifo => b'6',
        };
        Self {
            name,
            link,
            type_flag,
            mode: entry.mode & 0o7777,
            uid: u64::from(entry.uid),
            gid: u64::from(entry.gid),
            size: if entry.kind == Kind::File {
                entry.size
            } else {
                0
            },
            mtime: entry.mtime,
            major,
            minor,
        }
    }

    /// Collects what ustar cannot say, and zeroes those numbers in the ustar header.
    fn pax_records(&mut self, entry: &Entry) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut records: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let mut say = |key: &str, value: Vec<u8>| records.push((key.as_bytes().to_vec(), value));
        if !self.name.is_ascii() || split(&self.name).is_none() {
            say("path", self.name.clone());
        }
        if !self.link.is_ascii() || self.link.len() > NAME_MAX {
            say("linkpath", self.link.clone());
        }
        for (key, value, limit) in [
            ("size", &mut self.size, OCTAL_11_MAX),
            ("uid", &mut self.uid, OCTAL_7_MAX),
            ("gid", &mut self.gid, OCTAL_7_MAX),
        ] {
            if *value > limit {
                say(key, value.to_string().into_bytes());
                *value = 0;
            }
        }
        if self.mtime < 0 || self.mtime as u64 > OCTAL_11_MAX {
            say("mtime", self.mtime.to_string().into_bytes());
            self.mtime = 0;
        }
        for (name, value) in &entry.xattrs {
            records.push(([b"SCHILY.xattr.", name.as_slice()].concat(), value.clone()));
        }
        records.sort();
        records
    }

    fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + BLOCK, 0);
        let header = &mut out[start..];
        match split(&self.name) {
            Some((prefix, name)) => {
                header[..name.len()].copy_from_slice(name);
                header[345..345 + prefix.len()].copy_from_slice(prefix);
            }
            None => header[..NAME_MAX].copy_from_slice(&self.name[..NAME_MAX]),
        }
        octal(&mut header[100..108], u64::from(self.mode));
        octal(&mut header[108..116], self.uid);
        octal(&mut header[116..124], self.gid);
        octal(&mut header[124..136], self.size);
        octal(&mut header[136..148], self.mtime as u64);
        header[156] = self.type_flag;
        let link = &self.link[..self.link.len().min(NAME_MAX)];
        header[157..157 + link.len()].copy_from_slice(link);
        header[257..265].copy_from_slice(b"ustar\x0000");
        octal(&mut header[329..337], u64::from(self.major));
        octal(&mut header[337..345], u64::from(self.minor));
        // The checksum is taken with its own field blank; six digits, NUL, blank.
        header[148..156].fill(b' ');
        let sum: u64 = header.iter().map(|&byte| u64::from(byte)).sum();
        octal(&mut header[148..155], sum);
    }
}

/// Splits a name into ustar's prefix and name fields; None where it fits into neither way.
fn split(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= NAME_MAX {
        return Some((&[], name));
    }
    // The earliest slash that leaves a short enough name; the trailing one of a folder is no split.
    let earliest = name.len() - NAME_MAX - 1;
    let slash = earliest
        + name[earliest..name.len() - 1]
            .iter()
            .position(|&b| b == b'/')?;
    (slash > 0 && slash <= PREFIX_MAX).then(|| (&name[..slash], &name[slash + 1..]))
}

/// Fills a field with octal digits and a closing NUL. The value is known to fit.
fn octal(field: &mut [u8], mut value: u64) {
    for digit in field.iter_mut().rev().skip(1) {
        *digit = b'0' + (value & 7) as u8;
        value >>= 3;
    }
    if let Some(last) = field.last_mut() {
        *last = 0;
    }
}

fn append_pax(out: &mut Vec<u8>, records: &[(Vec<u8>, Vec<u8>)]) {
    let mut body = Vec::new();
    for (key, value) in records {
        append_record(&mut body, key, value);
    }
    let size = body.len() as u64;
    let header = Fields {
        // A fixed name: it is seen by readers that know no PAX only.
        name: b"PaxHeaders/entry".to_vec(),
        link: Vec::new(),
        type_flag: b'x',
        mode: 0o644,
        uid: 0,
        gid: 0,
        size,
        mtime: 0,
        major: 0,
        minor: 0,
    };
    header.write(out);
    out.extend_from_slice(&body);
    out.resize(out.len() + padding(size), 0);
}

/// One record, `"%d %s=%s\n"`, whose number counts its own digits.
fn append_record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
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
}
