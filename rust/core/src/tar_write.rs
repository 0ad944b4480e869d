//! Writes tar entries: ustar headers, with a PAX header before those that ustar cannot say.
//!
//! [`append_header`] is called by `pack` for every entry; content and [`padding`] follow, and
//! [`END`] closes the archive. The bytes depend on the entry alone: no user names, no access
//! times, no process ids, so the same entry gives the same header on every machine.
//! Modification times are whole seconds, rounded down, but for [`append_exact_header`].
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

/// The same, with the time to the nanosecond: what a folder has is said as it is.
pub fn append_exact_header(out: &mut Vec<u8>, entry: &Entry) {
    let mut fields = Fields::of(entry);
    let mut records = fields.pax_records(entry);
    if entry.mtime_nanos != 0 {
        records.retain(|(key, _)| key != b"mtime");
        records.push((
            b"mtime".to_vec(),
            exact_time(entry.mtime, entry.mtime_nanos),
        ));
        records.sort();
    }
    if !records.is_empty() {
        append_pax(out, &records);
    }
    fields.write(out);
}

/// A time as PAX has it: `[-]seconds.fraction`, without the zeros at its end.
fn exact_time(seconds: i64, nanos: u32) -> Vec<u8> {
    let (sign, whole, fraction) = if seconds < 0 {
        (
            "-",
            seconds.saturating_add(1).unsigned_abs(),
            1_000_000_000 - nanos,
        )
    } else {
        ("", seconds.unsigned_abs(), nanos)
    };
    let text = format!("{sign}{whole}.{fraction:09}");
    text.trim_end_matches('0').as_bytes().to_vec()
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
mod tests;
