//! Listings: the files that a COPY took, kept so that the next miss can say what changed of them.
//!
//! [`write`] makes one out of selections whose digests are known already, so no file is read for
//! it; [`compare`] tells two apart. A listing is named by the BLAKE3 of what is in it: it is
//! written once, and a damaged one is as good as none. Both go through it from its beginning to
//! its end, and hold one object at a time. Nothing here is part of a cache key.
//!
//! Format, version 1, one zstd frame: magic, then for each object, in the order of the paths, the
//! fields of [`Fact`] in order, numbers little-endian, bytes with their length (`u32`) before
//! them. One of several sources may be in another order, if an earlier version wrote it.

use std::cmp::Ordering;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering as Order};

use crate::error::{IoContext, Result};
use crate::inventory::At;
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
/// Bytes that are packed, or unpacked, at once.
const PIECE: usize = 64 << 10;
/// A path is longer than what the kernel takes at once only where folders were entered one by one.
const FIELD_MAX: usize = 1 << 20;

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
    let number = COUNT.fetch_add(1, Order::Relaxed);
    let temporary = folder.join(format!("new.{}-{number}.tmp", std::process::id()));
    let written = fill(selections, &temporary)
        .at("write", &temporary)
        .and_then(|name| {
            let path = folder.join(&name);
            std::fs::rename(&temporary, &path).at("rename", &path)?;
            Ok(name)
        });
    if written.is_err() {
        // Best effort: the error that matters is the one returned.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

/// Writes a listing to a file; gives its name.
fn fill(selections: &[&Selection], path: &Path) -> io::Result<String> {
    let mut packed = zstd::stream::write::Encoder::new(File::create(path)?, LEVEL)?;
    let mut hasher = blake3::Hasher::new();
    let mut bytes = MAGIC.to_vec();
    each(selections, |path, size, record| {
        append(&mut bytes, path, size, record);
        if bytes.len() > PIECE {
            hasher.update(&bytes);
            packed.write_all(&bytes)?;
            bytes.clear();
        }
        Ok(())
    })?;
    hasher.update(&bytes);
    packed.write_all(&bytes)?;
    packed.finish()?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// Shows all objects of some selections in the order of their paths.
fn each(
    selections: &[&Selection],
    mut show: impl FnMut(&[u8], u64, &Record<'_>) -> io::Result<()>,
) -> io::Result<()> {
    let records: Vec<_> = selections.iter().map(|one| one.records()).collect();
    if let ([selection], [records]) = (selections, &records[..]) {
        if selection.inventory().is_in_order() {
            let mut tour = selection.tour();
            while let Some(at) = tour.next() {
                records.show(at, tour.dest(), |size, record| {
                    show(tour.path(), size, record)
                })?;
            }
            return Ok(());
        }
    }
    let mut all: Vec<(u32, At)> = Vec::new();
    for (number, selection) in (0..).zip(selections) {
        let mut tour = selection.tour();
        while let Some(at) = tour.next() {
            all.push((number, at));
        }
    }
    let path_of = |&(number, at): &(u32, At), path: &mut Vec<u8>| {
        path.clear();
        let inventory = selections[number as usize].inventory();
        inventory.append_path(at, path);
    };
    let (mut path, mut other) = (Vec::new(), Vec::new());
    all.sort_by(|a, b| {
        path_of(a, &mut path);
        path_of(b, &mut other);
        order(&path, &other)
    });
    for one in all {
        path_of(&one, &mut path);
        let (number, at) = one;
        records[number as usize].show(at, &path, |size, record| show(&path, size, record))?;
    }
    Ok(())
}

/// Compares two listings, the earlier one first; None where one is missing or damaged.
///
/// No more than `limit` differences are told one by one; all are counted.
pub fn compare(old: &Path, new: &Path, limit: usize) -> Option<Compared> {
    let mut found = Found::new(limit);
    let outcome = Facts::open(old).and_then(|mut before| {
        let mut after = Facts::open(new)?;
        merge(&mut || before.next(), &mut || after.next(), &mut found)
    });
    match outcome {
        Ok(()) => Some(found.finish()),
        Err(Flaw::Damaged) => None,
        Err(Flaw::Unsorted) => {
            let (before, after) = (read(old)?, read(new)?);
            let (mut before, mut after) = (before.into_iter(), after.into_iter());
            let mut found = Found::new(limit);
            merge(
                &mut || Ok(before.next()),
                &mut || Ok(after.next()),
                &mut found,
            )
            .ok()?;
            Some(found.finish())
        }
    }
}

/// Goes through two listings side by side.
fn merge(
    before: &mut dyn FnMut() -> Result<Option<Fact>, Flaw>,
    after: &mut dyn FnMut() -> Result<Option<Fact>, Flaw>,
    found: &mut Found,
) -> Result<(), Flaw> {
    let (mut one, mut other) = (before()?, after()?);
    loop {
        let next = match (&one, &other) {
            (None, None) => return Ok(()),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(one), Some(other)) => order(&one.path, &other.path),
        };
        match (&one, &other) {
            (Some(one), Some(other)) if next.is_eq() => found.both(one, other),
            (Some(one), _) if next.is_lt() => found.alone(one, Change::Removed),
            (_, Some(other)) => found.alone(other, Change::Added),
            _ => {}
        }
        if next.is_le() {
            one = before()?;
        }
        if next.is_ge() {
            other = after()?;
        }
    }
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

/// Why a listing cannot be gone through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    /// It is missing, or not what its name says.
    Damaged,
    /// Its paths are in another order.
    Unsorted,
}

impl From<io::Error> for Flaw {
    fn from(_: io::Error) -> Self {
        Self::Damaged
    }
}

/// Goes through a listing, object by object, in the order of its paths, each path once. That it is
/// what its name says is known when it has come to the end, and told then.
struct Facts {
    name: String,
    reader: BufReader<Hashing<zstd::stream::read::Decoder<'static, BufReader<File>>>>,
    /// The path before.
    last: Option<Vec<u8>>,
}

impl Facts {
    fn open(path: &Path) -> Result<Self, Flaw> {
        let name = path.file_name().and_then(|name| name.to_str());
        let decoder = zstd::stream::read::Decoder::new(File::open(path)?)?;
        let hashing = Hashing {
            inner: decoder,
            hasher: blake3::Hasher::new(),
        };
        let mut reader = BufReader::with_capacity(PIECE, hashing);
        let mut magic = [0; MAGIC.len()];
        reader.read_exact(&mut magic)?;
        if &magic != MAGIC {
            return Err(Flaw::Damaged);
        }
        Ok(Self {
            name: name.ok_or(Flaw::Damaged)?.to_owned(),
            reader,
            last: None,
        })
    }

    fn next(&mut self) -> Result<Option<Fact>, Flaw> {
        loop {
            if self.reader.fill_buf()?.is_empty() {
                let sum = self.reader.get_ref().hasher.finalize();
                let is_right = sum.to_hex().as_str() == self.name;
                return if is_right {
                    Ok(None)
                } else {
                    Err(Flaw::Damaged)
                };
            }
            let fact = fact(&mut self.reader)?;
            let sorted = self.last.as_ref().map(|last| order(last, &fact.path));
            match sorted {
                Some(Ordering::Greater) => return Err(Flaw::Unsorted),
                Some(Ordering::Equal) => {}
                Some(Ordering::Less) | None => {
                    self.last = Some(fact.path.clone());
                    return Ok(Some(fact));
                }
            }
        }
    }
}

/// Digests what is read through it.
struct Hashing<R> {
    inner: R,
    hasher: blake3::Hasher,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

/// Reads all of a listing that is in no order into that of its paths, each path once.
fn read(path: &Path) -> Option<Vec<Fact>> {
    let file = File::open(path).ok()?;
    let mut bytes = Vec::new();
    let decoder = zstd::stream::read::Decoder::new(file).ok()?;
    decoder.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
    let name = path.file_name()?.to_str()?;
    if blake3::hash(&bytes).to_hex().as_str() != name {
        return None;
    }
    let mut rest = bytes.strip_prefix(MAGIC)?;
    let mut facts = Vec::new();
    while !rest.is_empty() {
        facts.push(fact(&mut rest).ok()?);
    }
    facts.sort_by(|a, b| order(&a.path, &b.path));
    facts.dedup_by(|later, first| later.path == first.path);
    Some(facts)
}

fn array<const N: usize>(from: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn number(from: &mut impl Read) -> io::Result<u32> {
    Ok(u32::from_le_bytes(array(from)?))
}

/// Reads bytes with their length before them; no path and no target is longer than the kernel's.
fn field(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let length = number(from)? as usize;
    if length > FIELD_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn fact(from: &mut impl Read) -> io::Result<Fact> {
    Ok(Fact {
        path: field(from)?,
        tag: array::<1>(from)?[0],
        mode: number(from)?,
        uid: number(from)?,
        gid: number(from)?,
        device: (number(from)?, number(from)?),
        size: u64::from_le_bytes(array(from)?),
        digest: array(from)?,
        xattrs: array(from)?,
        target: field(from)?,
    })
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
