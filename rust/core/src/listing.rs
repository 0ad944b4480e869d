//! Listings: the files that a COPY took, kept so that the next miss can say what changed of them.
//!
//! [`write`] makes one out of selections whose digests are known already, so no file is read for
//! it; [`compare`] tells two apart. A listing is named by the BLAKE3 of what is in it: it is
//! written once, and a damaged one is as good as none. Nothing here is part of a cache key.
//!
//! Format, version 1, one zstd frame: magic, then for each object the fields of [`Fact`] in
//! order, numbers little-endian, bytes with their length (`u32`) before them.

use std::cmp::Ordering;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering as Order};

use crate::error::{IoContext, Result};
use crate::pipeline::Record;
use crate::place::order;
use crate::select::Selection;

const MAGIC: &[u8; 8] = b"imglist1";
/// Of a BLAKE3: enough to tell two files apart for people.
const DIGEST: usize = 16;
/// A listing is longer than this for no tree that a build can hold.
const MAX_BYTES: u64 = 1 << 31;
/// Digests do not compress, and the rest does at any level.
const LEVEL: i32 = 1;

/// What a listing says of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fact {
    /// Relative to the root of the tree.
    path: Vec<u8>,
    /// One letter for the type, as in a content digest; `h` is one more name of a file.
    tag: u8,
    mode: u32,
    uid: u32,
    gid: u32,
    device: (u32, u32),
    size: u64,
    /// Of a file's content, else zeros.
    digest: [u8; DIGEST],
    /// Of the extended attributes, else zeros.
    xattrs: [u8; DIGEST],
    /// Of a link, or the first name of the same file.
    target: Vec<u8>,
}

/// What was done to one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// A file, a folder or a link became another of these.
    Type,
    /// Its content, in bytes before and after.
    Content,
    /// Its permission bits, in octal.
    Mode,
    /// `uid:gid`.
    Owner,
    /// Where the link leads.
    Target,
    /// The extended attributes.
    Xattrs,
    /// The device's numbers.
    Device,
}

impl Change {
    /// Its name at the door.
    pub fn name(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Type => "type",
            Self::Content => "content",
            Self::Mode => "mode",
            Self::Owner => "owner",
            Self::Target => "target",
            Self::Xattrs => "xattrs",
            Self::Device => "device",
        }
    }
}

/// One difference between two listings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Relative to the root of the tree; ends in `/` for a folder.
    pub path: Vec<u8>,
    /// What was done.
    pub change: Change,
    /// What there was; empty where nothing can be shown.
    pub old: String,
    /// What there is. Of a folder that came or went, how many objects came or went with it.
    pub new: String,
}

/// How two listings differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compared {
    /// The first of the differences, in the order of the paths. What lies in a folder that came or
    /// went is not among them.
    pub differences: Vec<Difference>,
    /// All differences that there are.
    pub total: usize,
    /// Objects that came, those in new folders included.
    pub added: usize,
    /// Objects that went.
    pub removed: usize,
    /// Objects that are in both, and differ.
    pub changed: usize,
}

/// Writes the listing of some selections into a folder, unless it is there; gives its name.
///
/// Files that no [`Selection::content_digest`] has read count with their size alone.
pub fn write(selections: &[&Selection], folder: &Path) -> Result<String> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut bytes = MAGIC.to_vec();
    for selection in selections {
        selection.each_record(|path, size, record| append(&mut bytes, path, size, record));
    }
    let name = blake3::hash(&bytes).to_hex().to_string();
    let path = folder.join(&name);
    if path.exists() {
        return Ok(name);
    }
    let number = COUNT.fetch_add(1, Order::Relaxed);
    let temporary = folder.join(format!("{name}.{}-{number}.tmp", std::process::id()));
    let packed = zstd::bulk::compress(&bytes, LEVEL).at("compress", &temporary)?;
    let written = File::create(&temporary)
        .and_then(|mut file| file.write_all(&packed))
        .at("write", &temporary)
        .and_then(|()| std::fs::rename(&temporary, &path).at("rename", &path));
    if written.is_err() {
        // Best effort: the error that matters is the one returned.
        let _ = std::fs::remove_file(&temporary);
    }
    written.map(|()| name)
}

/// Compares two listings, the earlier one first; None where one is missing or damaged.
///
/// No more than `limit` differences are told one by one; all are counted.
pub fn compare(old: &Path, new: &Path, limit: usize) -> Option<Compared> {
    let (old, new) = (read(old)?, read(new)?);
    let mut found = Found::new(limit);
    let (mut before, mut after) = (old.iter().peekable(), new.iter().peekable());
    loop {
        let next = match (before.peek(), after.peek()) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(one), Some(other)) => order(&one.path, &other.path),
        };
        let one = next.is_le().then(|| before.next()).flatten();
        let other = next.is_ge().then(|| after.next()).flatten();
        match (one, other) {
            (Some(one), Some(other)) => found.both(one, other),
            (Some(one), None) => found.alone(one, Change::Removed),
            (None, Some(other)) => found.alone(other, Change::Added),
            (None, None) => {}
        }
    }
    Some(found.finish())
}

fn append(out: &mut Vec<u8>, path: &[u8], size: u64, record: &Record<'_>) {
    let field = |out: &mut Vec<u8>, bytes: &[u8]| {
        out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        out.extend_from_slice(bytes);
    };
    field(out, path);
    out.push(record.tag);
    let (major, minor) = record.device;
    for number in [record.mode & 0o7777, record.uid, record.gid, major, minor] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    let is_file = record.tag == b'f';
    out.extend_from_slice(&(if is_file { size } else { 0 }).to_le_bytes());
    let digest = record.digest.filter(|_| is_file);
    out.extend_from_slice(digest.map_or(&[0; DIGEST][..], |digest| &digest[..DIGEST]));
    let xattrs = if record.xattrs.is_empty() {
        [0; DIGEST]
    } else {
        let mut all = Vec::new();
        for (name, value) in record.xattrs {
            field(&mut all, name);
            field(&mut all, value);
        }
        first_bytes(blake3::hash(&all).as_bytes())
    };
    out.extend_from_slice(&xattrs);
    field(out, record.target);
}

fn first_bytes(digest: &[u8; 32]) -> [u8; DIGEST] {
    let mut first = [0; DIGEST];
    first.copy_from_slice(&digest[..DIGEST]);
    first
}

/// Reads a listing in the order of its paths, each path once.
fn read(path: &Path) -> Option<Vec<Fact>> {
    let file = File::open(path).ok()?;
    let mut bytes = Vec::new();
    let decoder = zstd::stream::read::Decoder::new(file).ok()?;
    decoder.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
    let name = path.file_name()?.to_str()?;
    if blake3::hash(&bytes).to_hex().as_str() != name {
        return None;
    }
    let mut reader = Reader(bytes.strip_prefix(MAGIC)?);
    let mut facts = Vec::new();
    while !reader.0.is_empty() {
        facts.push(reader.fact()?);
    }
    facts.sort_by(|a, b| order(&a.path, &b.path));
    facts.dedup_by(|later, first| later.path == first.path);
    Some(facts)
}

/// What is left to read of a listing.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn field(&mut self) -> Option<Vec<u8>> {
        let length = self.number()? as usize;
        Some(self.take(length)?.to_vec())
    }

    fn fact(&mut self) -> Option<Fact> {
        Some(Fact {
            path: self.field()?,
            tag: self.take(1)?[0],
            mode: self.number()?,
            uid: self.number()?,
            gid: self.number()?,
            device: (self.number()?, self.number()?),
            size: u64::from_le_bytes(self.take(8)?.try_into().ok()?),
            digest: self.take(DIGEST)?.try_into().ok()?,
            xattrs: self.take(DIGEST)?.try_into().ok()?,
            target: self.field()?,
        })
    }
}

/// Differences as they are found, in the order of the paths.
struct Found {
    limit: usize,
    compared: Compared,
    /// The folder that came or went last, with its slash; what that was; its place among the
    /// differences, where it has one; and how many objects lie in it.
    whole: Option<(Vec<u8>, Change, Option<usize>, usize)>,
}

impl Found {
    fn new(limit: usize) -> Self {
        Self {
            limit,
            compared: Compared::default(),
            whole: None,
        }
    }

    fn alone(&mut self, fact: &Fact, change: Change) {
        match change {
            Change::Added => self.compared.added += 1,
            _ => self.compared.removed += 1,
        }
        if let Some((folder, last, _, count)) = &mut self.whole {
            if *last == change && fact.path.starts_with(folder) {
                *count += 1;
                return;
            }
        }
        let at = self.tell(fact, change, String::new(), String::new());
        if fact.tag == b'd' {
            self.close();
            self.whole = Some((shown(fact), change, at, 0));
        }
    }

    fn both(&mut self, one: &Fact, other: &Fact) {
        if one == other {
            return;
        }
        self.compared.changed += 1;
        let mut tell = |change, old: String, new: String| {
            self.tell(other, change, old, new);
        };
        if kind(one.tag) != kind(other.tag) {
            tell(
                Change::Type,
                kind(one.tag).to_owned(),
                kind(other.tag).to_owned(),
            );
            self.close();
            if one.tag == b'd' {
                self.whole = Some((shown(one), Change::Removed, None, 0));
            } else if other.tag == b'd' {
                self.whole = Some((shown(other), Change::Added, None, 0));
            }
            return;
        }
        if (one.size, one.digest) != (other.size, other.digest) && one.tag == other.tag {
            tell(
                Change::Content,
                one.size.to_string(),
                other.size.to_string(),
            );
        }
        if one.mode != other.mode {
            tell(Change::Mode, octal(one.mode), octal(other.mode));
        }
        if (one.uid, one.gid) != (other.uid, other.gid) {
            let owner = |fact: &Fact| format!("{}:{}", fact.uid, fact.gid);
            tell(Change::Owner, owner(one), owner(other));
        }
        if one.target != other.target || one.tag != other.tag {
            tell(Change::Target, text(&one.target), text(&other.target));
        }
        if one.xattrs != other.xattrs {
            tell(Change::Xattrs, String::new(), String::new());
        }
        if one.device != other.device {
            let numbers = |fact: &Fact| format!("{}:{}", fact.device.0, fact.device.1);
            tell(Change::Device, numbers(one), numbers(other));
        }
    }

    /// Adds one difference; gives its place, where there is room for it.
    fn tell(&mut self, fact: &Fact, change: Change, old: String, new: String) -> Option<usize> {
        self.compared.total += 1;
        let place = self.compared.differences.len();
        if place >= self.limit {
            return None;
        }
        self.compared.differences.push(Difference {
            path: shown(fact),
            change,
            old,
            new,
        });
        Some(place)
    }

    /// Says of the last folder that came or went how much came or went with it.
    fn close(&mut self) {
        if let Some((_, _, Some(at), count)) = self.whole.take() {
            if count > 0 {
                self.compared.differences[at].new = count.to_string();
            }
        }
    }

    fn finish(mut self) -> Compared {
        self.close();
        self.compared
    }
}

fn shown(fact: &Fact) -> Vec<u8> {
    let mut path = fact.path.clone();
    if fact.tag == b'd' {
        path.push(b'/');
    }
    path
}

fn kind(tag: u8) -> &'static str {
    match tag {
        b'd' => "folder",
        b'l' => "link",
        b'c' => "character device",
        b'b' => "block device",
        b'p' => "pipe",
        // A further name of a file is a file.
        _ => "file",
    }
}

fn octal(mode: u32) -> String {
    format!("{mode:03o}")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests;
