//! [`disk_usage`]: what a whole tree holds, on several threads; and what whoever walks trees shares.
//!
//! Trees are walked by descriptors and never out of their root, so a tree that was made to be a
//! trap leads nowhere else. A path may be missing, or vanish meanwhile. `remove` takes trees away.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rustix::fs::{
    chmodat, fchmod, fstat, openat, statat, AtFlags, Dir, FileType, Mode, OFlags, Stat, CWD,
};
use rustix::io::Errno;

use crate::error::{Error, IoContext, Result};
use crate::root::{join, Missing, Root};

const FOLDER: OFlags = OFlags::DIRECTORY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
/// Threads of one walk; more gain nothing on one disk.
const THREADS: usize = 4;
/// Folders that the calling thread does before it asks for help: most trees have no more.
const ALONE: usize = 16;

/// Bytes of disk that a tree holds: 512-byte blocks, each inode once. A missing path holds none.
pub fn disk_usage(path: &Path, stop: &AtomicBool) -> Result<u64> {
    usage(path, &Mutex::default(), stop)
}

/// Bytes of disk that each tree holds beside those before it: a file that several of them have
/// counts with the first.
pub fn disk_usages<P: AsRef<Path>>(paths: &[P], stop: &AtomicBool) -> Result<Vec<u64>> {
    let linked = Mutex::default();
    let each = paths.iter();
    each.map(|path| usage(path.as_ref(), &linked, stop))
        .collect()
}

fn usage(path: &Path, linked: &Mutex<HashSet<(u64, u64)>>, stop: &AtomicBool) -> Result<u64> {
    let Some(stat) = stat_of(path)? else {
        return Ok(0);
    };
    let sum = AtomicU64::new(blocks(&stat));
    if is_folder(&stat) {
        each_folder(path, stop, |root, folder| {
            usage_of(root, folder, &sum, linked)
        })?;
    }
    Ok(sum.into_inner())
}

/// Adds up one folder's children; gives those that are folders.
fn usage_of(
    root: &mut Root,
    path: &[u8],
    sum: &AtomicU64,
    linked: &Mutex<HashSet<(u64, u64)>>,
) -> Result<Vec<Vec<u8>>> {
    let mut below = Vec::new();
    let Some(folder) = root.folder(path, Missing::Tell)? else {
        return Ok(below);
    };
    for name in names_of(folder.as_fd()).at("read", root.display(path))? {
        let Ok(stat) = statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW) else {
            continue; // it went meanwhile
        };
        if is_folder(&stat) {
            below.push(join(path, name.as_bytes()));
        } else if stat.st_nlink > 1 && !lock(linked).insert((stat.st_dev, stat.st_ino)) {
            continue;
        }
        sum.fetch_add(blocks(&stat), Ordering::Relaxed);
    }
    Ok(below)
}

/// Folders waiting for a thread, by path below the root.
struct Queue {
    state: Mutex<QueueState>,
    wake: Condvar,
}

struct QueueState {
    /// A stack: deep first keeps it short.
    waiting: Vec<Vec<u8>>,
    busy: usize,
    failed: Option<Error>,
}

/// Calls `work` for every folder of a tree, the root first; `work` gives the folders below.
fn each_folder(
    path: &Path,
    stop: &AtomicBool,
    work: impl Fn(&mut Root, &[u8]) -> Result<Vec<Vec<u8>>> + Sync,
) -> Result<()> {
    let queue = Queue {
        state: Mutex::new(QueueState {
            waiting: vec![Vec::new()],
            busy: 0,
            failed: None,
        }),
        wake: Condvar::new(),
    };
    let run = |root: &mut Root, folders: usize| {
        for _ in 0..folders {
            let Some(folder) = queue.take() else {
                return;
            };
            queue.give(if stop.load(Ordering::Relaxed) {
                Err(Error::Interrupted)
            } else {
                work(root, &folder)
            });
        }
    };
    let mut own = Root::open(path)?;
    run(&mut own, ALONE);
    if !lock(&queue.state).waiting.is_empty() {
        let others = (1..THREADS)
            .map(|_| Root::open(path))
            .collect::<Result<Vec<_>>>()?;
        std::thread::scope(|scope| {
            for mut root in others {
                let run = &run;
                scope.spawn(move || run(&mut root, usize::MAX));
            }
            run(&mut own, usize::MAX);
        });
    }
    let state = queue
        .state
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    state.failed.map_or(Ok(()), Err)
}

impl Queue {
    /// The next folder; None when all is done or something failed.
    fn take(&self) -> Option<Vec<u8>> {
        let mut state = lock(&self.state);
        loop {
            if state.failed.is_some() {
                return None;
            }
            if let Some(folder) = state.waiting.pop() {
                state.busy += 1;
                return Some(folder);
            }
            if state.busy == 0 {
                return None;
            }
            state = self
                .wake
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn give(&self, done: Result<Vec<Vec<u8>>>) {
        let mut state = lock(&self.state);
        state.busy -= 1;
        match done {
            Ok(below) => state.waiting.extend(below),
            Err(error) => state.failed = state.failed.take().or(Some(error)),
        }
        drop(state);
        self.wake.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A path's stat, no symlink followed; None where nothing stands.
pub fn stat_of(path: &Path) -> Result<Option<Stat>> {
    match statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno).at("stat", path),
    }
}

/// Tells a folder.
pub fn is_folder(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// Bytes of disk that an inode takes.
pub fn blocks(stat: &Stat) -> u64 {
    stat.st_blocks.max(0) as u64 * 512
}

/// The names in an open folder, `.` and `..` left out, in the file system's order.
pub fn names_of(folder: BorrowedFd<'_>) -> io::Result<Vec<OsString>> {
    let open = reopen(folder)?;
    let mut names = Vec::new();
    for entry in Dir::new(open)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsStr::from_bytes(name).to_os_string());
        }
    }
    Ok(names)
}

/// Opens a folder anew: reading moves a descriptor's position, and a path descriptor has none.
pub fn reopen(folder: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    openat(folder, ".", FOLDER, Mode::empty())
}

/// Opens a folder for reading; `force` gives its owner the bits that takes, and those to remove
/// what is in it.
pub fn open_folder(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    force: bool,
) -> rustix::io::Result<OwnedFd> {
    let opened = openat(parent, name, FOLDER, Mode::empty());
    if !force {
        return opened;
    }
    let opened = match opened {
        Err(Errno::ACCESS) => {
            chmodat(parent, name, Mode::from_raw_mode(0o700), AtFlags::empty())?;
            openat(parent, name, FOLDER, Mode::empty())?
        }
        other => other?,
    };
    let stat = fstat(&opened)?;
    if stat.st_mode & 0o700 != 0o700 {
        // With real privilege it is not needed, and it may not be ours.
        let _ = fchmod(&opened, Mode::from_raw_mode(0o700));
    }
    Ok(opened)
}

/// What is gone already need not be removed.
pub fn missing_is_fine(done: rustix::io::Result<()>) -> rustix::io::Result<()> {
    match done {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests;
