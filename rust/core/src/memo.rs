//! [`DigestMemo`]: file digests remembered across builds, so that an unchanged file is not read.
//!
//! `select` asks it for a file's BLAKE3 by what `stat` says and tells it what it read. It never
//! answers for a file whose identity moved, and never records one that could still change within
//! the same tick of the clock. It is a cache: a missing, old, broken or foreign file is an empty
//! memo, two processes saving at once lose one another's news and nothing else.
//!
//! Format, version 1, little-endian: magic, generation `u32`, count `u32`, `count` records of
//! [`RECORD`] bytes sorted by key, BLAKE3 of all before it.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{IoContext, Result};

const MAGIC: &[u8; 8] = b"imgmemo1";
const HEAD: usize = MAGIC.len() + 8;
const RECORD: usize = 5 * 8 + 32 + 8;
const SUM: usize = 32;
/// Saves that an entry survives without having been asked for.
const KEPT_SAVES: u32 = 64;
/// An entry this old is marked as used again, at the cost of a save.
const REFRESH_SAVES: u32 = 16;
/// More entries than this are not kept: some 80 MB of file.
const MAX_ENTRIES: usize = 1_000_000;
/// Coarsest tick of the kernel's file times (100 Hz), doubled.
const TICK_NANOS: i64 = 20_000_000;
const SECOND_NANOS: i64 = 1_000_000_000;
/// Coarsest tick of a file system that counts in whole seconds (two, on FAT), doubled.
const WHOLE_SECONDS_NANOS: i64 = 4 * SECOND_NANOS;
/// Of a file system whose clock may be another machine's, and so behind ours.
const FOREIGN_NANOS: i64 = 60 * SECOND_NANOS;

/// File systems whose times are of this kernel's clock, by their number in `linux/magic.h` (those
/// of zfs and bcachefs in their own sources).
const LOCAL: [i64; 11] = [
    0xEF53,      // ext2, ext3, ext4
    0x5846_5342, // xfs
    0x9123_683E, // btrfs
    0x0102_1994, // tmpfs
    0x8584_58F6, // ramfs
    0x794C_7630, // overlay
    0xF2F5_2010, // f2fs
    0x2FC1_2FC1, // zfs
    0xCA45_1A4E, // bcachefs
    0x7371_7368, // squashfs
    0xE0F5_E1E2, // erofs
];

/// What identifies a file's content as unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Stamp {
    /// Device of the file system.
    pub dev: u64,
    /// Inode.
    pub ino: u64,
    /// Length in bytes.
    pub size: u64,
    /// Modification time in nanoseconds since the epoch.
    pub mtime: i64,
    /// Change time in nanoseconds since the epoch: no program can set it back.
    pub ctime: i64,
}

impl Stamp {
    /// Takes it from the kernel's answer.
    pub fn of(stat: &rustix::fs::Stat) -> Self {
        let nanos = |seconds: i64, nanos: u64| {
            seconds
                .saturating_mul(1_000_000_000)
                .saturating_add(nanos as i64)
        };
        Self {
            dev: stat.st_dev,
            ino: stat.st_ino,
            size: stat.st_size as u64,
            mtime: nanos(stat.st_mtime, stat.st_mtime_nsec),
            ctime: nanos(stat.st_ctime, stat.st_ctime_nsec),
        }
    }
}

/// What is remembered of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// BLAKE3 of its content.
    pub digest: [u8; 32],
    /// Whether it has extended attributes (a change of them moves ctime).
    pub has_xattrs: bool,
}

/// File digests by identity. All calls may come from any thread.
#[derive(Debug)]
pub struct DigestMemo {
    path: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// What the file held, sorted as it stands there: nothing is built of it but this.
    kept: Vec<(Stamp, Value)>,
    /// What was learned since, and the file lacks.
    learned: HashMap<Stamp, Value, BuildHasherDefault<Mix>>,
    generation: u32,
    changed: bool,
}

#[derive(Debug, Clone, Copy)]
struct Value {
    known: Known,
    used: u32,
}

/// How far the times of a tree's files can be trusted to tell one change from the next.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    dev: u64,
    is_local: bool,
}

impl Clock {
    /// Asks the file system of an open folder.
    pub fn of(folder: impl AsFd) -> rustix::io::Result<Self> {
        let known = rustix::fs::fstatfs(&folder)?.f_type;
        #[allow(clippy::unnecessary_cast)] // narrower on some architectures
        let known = known as i64;
        Ok(Self {
            dev: rustix::fs::fstat(&folder)?.st_dev,
            is_local: LOCAL.contains(&known),
        })
    }

    /// Could the file change once more, and its times stay as they are? Not where its last change
    /// was a tick before `began` ([`now_nanos`]), when it was looked at: this is not about memory
    /// that a process has mapped, whose writes show in no time until the kernel writes them out.
    pub fn settled(&self, stamp: &Stamp, began: i64) -> bool {
        let tick = if !self.is_local || stamp.dev != self.dev {
            FOREIGN_NANOS
        } else if stamp.ctime % SECOND_NANOS == 0 {
            WHOLE_SECONDS_NANOS
        } else {
            TICK_NANOS
        };
        stamp.ctime.saturating_add(tick) < began
    }
}

/// The clock now, as [`Stamp`]'s times count.
pub fn now_nanos() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as i64)
}

impl DigestMemo {
    /// Reads the memo; a missing, old or broken file is an empty memo.
    pub fn open(path: &Path) -> Self {
        let inner = std::fs::read(path)
            .ok()
            .and_then(|bytes| Inner::decode(&bytes))
            .unwrap_or_default();
        Self {
            path: path.to_path_buf(),
            inner: Mutex::new(inner),
        }
    }

    /// The number of files known.
    pub fn len(&self) -> usize {
        let inner = self.lock();
        inner.kept.len() + inner.learned.len()
    }

    /// True where no file is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Looks many files up at once; the answers are in the order of the questions.
    pub fn find(&self, stamps: impl Iterator<Item = Stamp>) -> Vec<Option<Known>> {
        let stamps: Vec<Stamp> = stamps.collect();
        let mut inner = self.lock();
        let now = inner.generation;
        let mut refreshed = false;
        let mut found = vec![None; stamps.len()];
        inner.with_each(&stamps, |at, value| {
            refreshed |= now.saturating_sub(value.used) > REFRESH_SAVES;
            value.used = now;
            found[at] = Some(value.known);
        });
        inner.changed |= refreshed;
        found
    }

    /// Remembers files whose reading began at `began` ([`now_nanos`]).
    ///
    /// A file changed within the clock's tick before that is left out: another write in the same
    /// tick would leave its times as they are. One that is written to while it is read has other
    /// times from then on, and what is remembered is never asked for. Where the clock was set back,
    /// files of what is now the future are left out until it has come.
    pub fn record(&self, began: i64, clock: Clock, files: impl Iterator<Item = (Stamp, Known)>) {
        let mut inner = self.lock();
        let used = inner.generation;
        for (stamp, known) in files {
            if clock.settled(&stamp, began) {
                inner.learn(stamp, Value { known, used });
                inner.changed = true;
            }
        }
    }

    /// Writes it atomically, if anything changed. Entries not seen for long are dropped.
    pub fn save(&self) -> Result<()> {
        let mut inner = self.lock();
        if !inner.changed {
            return Ok(());
        }
        let bytes = inner.encode();
        let mut name = self.path.as_os_str().to_owned();
        name.push(format!(".{}.tmp", std::process::id()));
        let temporary = PathBuf::from(name);
        let written = std::fs::File::create(&temporary)
            .and_then(|mut file| file.write_all(&bytes))
            .at("write", &temporary)
            .and_then(|()| std::fs::rename(&temporary, &self.path).at("rename", &self.path));
        if written.is_err() {
            // Best effort: the error that matters is the one returned.
            let _ = std::fs::remove_file(&temporary);
        } else {
            inner.changed = false;
        }
        written
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic between two map operations leaves a usable map.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn decode(bytes: &[u8]) -> Option<Self> {
        let body = bytes.len().checked_sub(SUM)?;
        let (body, sum) = bytes.split_at(body);
        if blake3::hash(body).as_bytes() != sum || body.len() < HEAD || !body.starts_with(MAGIC) {
            return None;
        }
        let number = |at: usize| {
            let bytes = body.get(at..at + 4)?;
            Some(u32::from_le_bytes(bytes.try_into().ok()?))
        };
        let generation = number(MAGIC.len())?;
        let count = number(MAGIC.len() + 4)? as usize;
        let records = &body[HEAD..];
        if count > MAX_ENTRIES || records.len() != count * RECORD {
            return None;
        }
        let kept: Option<Vec<_>> = records.chunks_exact(RECORD).map(decode_record).collect();
        let kept = kept?;
        let sorted = kept.windows(2).all(|pair| pair[0].0 < pair[1].0);
        sorted.then(|| Self {
            kept,
            generation,
            ..Self::default()
        })
    }

    /// Calls `seen` with each question that is known, by its place, and what is known.
    ///
    /// The questions are walked in the order of what is kept, so that a hundred thousand of them
    /// read it once, from its beginning to its end.
    fn with_each(&mut self, stamps: &[Stamp], mut seen: impl FnMut(usize, &mut Value)) {
        let mut order: Vec<(u64, u64, usize)> = stamps
            .iter()
            .enumerate()
            .map(|(at, stamp)| (stamp.dev, stamp.ino, at))
            .collect();
        order.sort_unstable();
        let mut next = 0;
        for (dev, ino, at) in order {
            let before = |entry: &(Stamp, Value)| (entry.0.dev, entry.0.ino) < (dev, ino);
            while self.kept.get(next).is_some_and(before) {
                next += 1;
            }
            let same = self.kept[next..]
                .iter_mut()
                .take_while(|entry| (entry.0.dev, entry.0.ino) == (dev, ino))
                .find(|entry| entry.0 == stamps[at]);
            if let Some((_, value)) = same {
                seen(at, value);
            } else if let Some(value) = self.learned.get_mut(&stamps[at]) {
                seen(at, value);
            }
        }
    }

    fn learn(&mut self, stamp: Stamp, value: Value) {
        match self.kept.binary_search_by(|entry| entry.0.cmp(&stamp)) {
            Ok(at) => self.kept[at].1 = value,
            Err(_) => {
                self.learned.insert(stamp, value);
            }
        }
    }

    fn encode(&mut self) -> Vec<u8> {
        let now = self.generation;
        let mut sorted = std::mem::take(&mut self.kept);
        sorted.extend(self.learned.drain());
        sorted.retain(|(_, value)| now.saturating_sub(value.used) <= KEPT_SAVES);
        if sorted.len() > MAX_ENTRIES {
            let mut ages: Vec<u32> = sorted.iter().map(|(_, value)| value.used).collect();
            let surplus = ages.len() - MAX_ENTRIES;
            let (_, &mut oldest, _) = ages.select_nth_unstable(surplus);
            sorted.retain(|(_, value)| value.used > oldest);
        }
        sorted.sort_unstable_by_key(|(stamp, _)| *stamp);
        let mut bytes = Vec::with_capacity(HEAD + sorted.len() * RECORD + SUM);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&now.saturating_add(1).to_le_bytes());
        bytes.extend_from_slice(&(sorted.len() as u32).to_le_bytes());
        for (stamp, value) in &sorted {
            for number in [
                stamp.dev,
                stamp.ino,
                stamp.size,
                stamp.mtime as u64,
                stamp.ctime as u64,
            ] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
            bytes.extend_from_slice(&value.known.digest);
            bytes.extend_from_slice(&value.used.to_le_bytes());
            bytes.extend_from_slice(&u32::from(value.known.has_xattrs).to_le_bytes());
        }
        let sum = blake3::hash(&bytes);
        bytes.extend_from_slice(sum.as_bytes());
        self.generation = now.saturating_add(1);
        self.kept = sorted;
        bytes
    }
}

fn decode_record(record: &[u8]) -> Option<(Stamp, Value)> {
    let long = |index: usize| {
        let bytes = record.get(index * 8..index * 8 + 8)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    };
    let last = long(9)?;
    Some((
        Stamp {
            dev: long(0)?,
            ino: long(1)?,
            size: long(2)?,
            mtime: long(3)? as i64,
            ctime: long(4)? as i64,
        },
        Value {
            known: Known {
                digest: record.get(40..72)?.try_into().ok()?,
                has_xattrs: last >> 32 != 0,
            },
            used: last as u32,
        },
    ))
}

/// A hasher for keys that are numbers the kernel made: a multiplication per word is enough.
#[derive(Debug, Default)]
struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_i64(&mut self, number: i64) {
        self.write_u64(number as u64);
    }
}

#[cfg(test)]
mod tests;
