//! [`DigestMemo`]: file digests remembered across builds, so that an unchanged file is not read.
//!
//! `select` asks it for a file's BLAKE3 by what `stat` says and tells it what it read. It never
//! answers for a file whose identity moved, and never records one that could still change within
//! the same tick of the clock. It is a cache: a missing, old, broken or foreign file is an empty
//! memo, two processes saving at once lose one another's news and nothing else. Its memory does
//! not grow with what it knows: questions come in the order of inodes and are answered from
//! [`Sorted`] files, and what is learned is written to such a file before it is much.

mod sorted;

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{IoContext, Result};

use sorted::{Sorted, Writing};

/// Saves that an entry survives without having been asked for.
const KEPT_SAVES: u32 = 64;
/// An entry this old is marked as used again, at the cost of a save.
const REFRESH_SAVES: u32 = 16;
/// More entries than this are not kept: some 80 MB of file.
const MAX_ENTRIES: usize = 1_000_000;
/// What was learned is written down when it is this many: some 2 MB of memory.
const RUN: usize = 1 << 15;
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
    /// What the file holds.
    kept: Option<Sorted>,
    /// What was learned since and written down, the earliest first.
    runs: Vec<Sorted>,
    /// What was learned since then, a later entry for the same file behind an earlier one.
    learned: Vec<(Stamp, Value)>,
    generation: u32,
    changed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// Opens the memo; a missing, old or broken file is an empty memo.
    pub fn open(path: &Path) -> Self {
        let kept = Sorted::open(path);
        Self {
            path: path.to_path_buf(),
            inner: Mutex::new(Inner {
                generation: kept.as_ref().map_or(0, Sorted::generation),
                kept,
                ..Inner::default()
            }),
        }
    }

    /// The number of files known; one that was learned anew since the last save counts again.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// True where no file is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Looks many files up at once: `stamp` gives the identity of each of the numbers `asked`,
    /// which are in the order of their devices and inodes; `seen` gets what is known of some.
    pub fn find(
        &self,
        asked: &[u32],
        stamp: impl Fn(u32) -> Stamp,
        mut seen: impl FnMut(u32, Known),
    ) {
        let mut inner = self.lock();
        let now = inner.generation;
        // What was learned later stands, so it is asked first.
        let mut left = None;
        if !inner.learned.is_empty() {
            inner.sort_learned();
            left = Some(inner.ask_learned(asked, &stamp, &mut seen));
        }
        let Inner { kept, runs, .. } = &mut *inner;
        let mut refreshed = false;
        for file in runs.iter_mut().rev().chain(kept) {
            let asked = left.as_deref().unwrap_or(asked);
            left = Some(file.find(asked, &stamp, |number, value| {
                refreshed |= now.saturating_sub(value.used) > REFRESH_SAVES;
                seen(number, value.known);
            }));
        }
        inner.changed |= refreshed;
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
                inner.learned.push((stamp, Value { known, used }));
                inner.changed = true;
            }
        }
        if inner.learned.len() >= RUN {
            inner.write_down(&self.path);
        }
    }

    /// Writes it atomically, if anything changed. Entries not seen for long are dropped.
    pub fn save(&self) -> Result<()> {
        let mut inner = self.lock();
        if !inner.changed {
            return Ok(());
        }
        let mut name = self.path.as_os_str().to_owned();
        name.push(format!(".{}.tmp", std::process::id()));
        let temporary = PathBuf::from(name);
        let written = inner
            .write(&temporary)
            .at("write", &temporary)
            .and_then(|()| std::fs::rename(&temporary, &self.path).at("rename", &self.path));
        if written.is_err() {
            // Best effort: the error that matters is the one returned.
            let _ = std::fs::remove_file(&temporary);
            return written;
        }
        let kept = Sorted::open(&self.path);
        *inner = Inner {
            generation: kept.as_ref().map_or(0, Sorted::generation),
            kept,
            ..Inner::default()
        };
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic between two operations leaves a usable memo.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn len(&self) -> usize {
        let files = self.runs.iter().chain(&self.kept);
        files.map(Sorted::len).sum::<usize>() + self.learned.len()
    }

    /// Sorts what was learned; of two entries for a file the later one stays.
    fn sort_learned(&mut self) {
        self.learned.reverse();
        self.learned.sort_by_key(|(stamp, _)| *stamp);
        self.learned.dedup_by_key(|(stamp, _)| *stamp);
    }

    /// Answers from what was learned last; gives the numbers that it does not know.
    fn ask_learned(
        &self,
        asked: &[u32],
        stamp: impl Fn(u32) -> Stamp,
        mut seen: impl FnMut(u32, Known),
    ) -> Vec<u32> {
        let mut left = Vec::with_capacity(asked.len());
        for &number in asked {
            let found = self
                .learned
                .binary_search_by_key(&stamp(number), |(stamp, _)| *stamp);
            match found {
                Ok(at) => seen(number, self.learned[at].1.known),
                Err(_) => left.push(number),
            }
        }
        left
    }

    /// Writes what was learned to a file without a name beside the memo. Where that fails it is
    /// forgotten: files will be read again.
    fn write_down(&mut self, beside: &Path) {
        self.sort_learned();
        let run = Sorted::unnamed(beside).and_then(|file| {
            let mut writing = Writing::new(file)?;
            for (stamp, value) in &self.learned {
                writing.add(stamp, value)?;
            }
            writing.finish(self.generation)
        });
        self.runs.extend(run.ok());
        self.learned.clear();
    }

    /// Writes everything that is still wanted to a new file.
    fn write(&mut self, path: &Path) -> std::io::Result<()> {
        self.sort_learned();
        let now = self.generation;
        let oldest = if self.len() > MAX_ENTRIES {
            self.oldest_kept()
        } else {
            KEPT_SAVES
        };
        let mut options = std::fs::File::options();
        let file = options.read(true).write(true).create(true).truncate(true);
        let mut writing = Writing::new(file.open(path)?)?;
        self.merge(|stamp, value| {
            if now.saturating_sub(value.used) > oldest {
                return Ok(());
            }
            writing.add(stamp, value)
        })?;
        writing.finish(now.saturating_add(1)).map(|_| ())
    }

    /// The age in saves of the oldest entries that there is room for.
    fn oldest_kept(&self) -> u32 {
        let now = self.generation;
        let mut of_age = [0_usize; KEPT_SAVES as usize + 1];
        // Where a file cannot be read, writing will tell.
        let _ = self.merge(|_, value| {
            let age = now.saturating_sub(value.used) as usize;
            if let Some(count) = of_age.get_mut(age) {
                *count += 1;
            }
            Ok(())
        });
        let mut sum = 0;
        let fitting = of_age.iter().take_while(|&&count| {
            sum += count;
            sum <= MAX_ENTRIES
        });
        // The newest are never all dropped: a tree may be larger than the memo.
        (fitting.count() as u32).saturating_sub(1)
    }

    /// Shows all entries in their order, each file once.
    fn merge(
        &self,
        mut show: impl FnMut(&Stamp, &Value) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        let learned: Box<dyn Iterator<Item = (Stamp, Value)>> =
            Box::new(self.learned.iter().copied());
        let files = self.runs.iter().rev().chain(&self.kept);
        // Those that stand come first.
        let mut sources = vec![learned.peekable()];
        sources.extend(files.map(|file| {
            let entries: Box<dyn Iterator<Item = (Stamp, Value)>> =
                Box::new(file.entries(self.generation));
            entries.peekable()
        }));
        loop {
            let mut least: Option<Stamp> = None;
            for source in &mut sources {
                if let Some((stamp, _)) = source.peek() {
                    least = Some(least.map_or(*stamp, |least| least.min(*stamp)));
                }
            }
            let Some(least) = least else {
                return Ok(());
            };
            let mut first = None;
            for source in &mut sources {
                let next = source.next_if(|(stamp, _)| *stamp == least);
                first = first.or(next);
            }
            if let Some((stamp, value)) = first {
                show(&stamp, &value)?;
            }
        }
    }
}

#[cfg(test)]
mod tests;
