//! [`remove_tree`] and [`disk_usage`]: whole trees, on several threads.
//!
//! Trees are walked by descriptors and never out of their root, so a tree that was made to be a
//! trap leads nowhere else. A folder that may not be read or written is given its owner's bits
//! first: layers hold folders of mode 000. A path may be missing, or vanish meanwhile.

use std::collections::{HashMap, HashSet};
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rustix::fs::{
    chmodat, fchmod, fstat, openat, statat, unlinkat, AtFlags, Dir, FileType, Mode, OFlags, Stat,
    CWD,
};
use rustix::io::Errno;

use crate::error::{Error, IoContext, Result};
use crate::root::{join, split, Missing, Root};

const FOLDER: OFlags = OFlags::DIRECTORY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
/// Threads of one walk; more gain nothing on one disk.
const THREADS: usize = 4;
/// Folders that the calling thread does before it asks for help: most trees have no more.
const ALONE: usize = 16;

/// Removes a tree, whatever its modes. A missing path is no error.
///
/// Returns:
///     Bytes of disk given back: the blocks of every file whose last link went.
pub fn remove_tree(path: &Path, stop: &AtomicBool) -> Result<u64> {
    let Some(stat) = stat_of(path)? else {
        return Ok(0);
    };
    let removal = Removal::default();
    if !is_folder(&stat) {
        removal.count(&stat);
        missing_is_fine(unlinkat(CWD, path, AtFlags::empty())).at("unlink", path)?;
        return Ok(removal.freed.into_inner());
    }
    open_folder(CWD, path.as_os_str(), true).at("open", path)?;
    each_folder(path, stop, |root, folder| removal.empty(root, folder))?;
    let mut folders = removal
        .folders
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    // A folder sorts before what is in it; backwards, each is empty when its turn comes.
    folders.sort_unstable();
    let mut root = Root::open(path)?;
    for folder in folders.iter().rev().filter(|folder| !folder.is_empty()) {
        let (parent, name) = split(folder);
        if let Some(parent) = root.folder(parent, Missing::Tell)? {
            let removed = missing_is_fine(unlinkat(&parent, name, AtFlags::REMOVEDIR));
            removed.at("rmdir", root.display(folder))?;
        }
    }
    missing_is_fine(unlinkat(CWD, path, AtFlags::REMOVEDIR)).at("rmdir", path)?;
    Ok(removal.freed.into_inner())
}

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

/// What a removal has done so far.
#[derive(Default)]
struct Removal {
    freed: AtomicU64,
    /// Folders emptied but for their folders.
    folders: Mutex<Vec<Vec<u8>>>,
    /// Links left of files that had several when they were first met.
    links: Mutex<HashMap<(u64, u64), u64>>,
}

impl Removal {
    /// Removes all of one folder's children but the folders, and gives those.
    fn empty(&self, root: &mut Root, path: &[u8]) -> Result<Vec<Vec<u8>>> {
        let mut below = Vec::new();
        let Some(folder) = self.open(root, path)? else {
            return Ok(below);
        };
        for name in names_of(folder.as_fd()).at("read", root.display(path))? {
            let shown = || root.display(&join(path, name.as_bytes()));
            let stat = match statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(errno).at("stat", shown()),
            };
            if is_folder(&stat) {
                self.freed.fetch_add(blocks(&stat), Ordering::Relaxed);
                below.push(join(path, name.as_bytes()));
            } else {
                self.count(&stat);
                missing_is_fine(unlinkat(&folder, &name, AtFlags::empty()))
                    .at("unlink", shown())?;
            }
        }
        lock(&self.folders).push(path.to_vec());
        Ok(below)
    }

    fn open(&self, root: &mut Root, path: &[u8]) -> Result<Option<OwnedFd>> {
        let opened = if path.is_empty() {
            let stat = fstat(root.top()).at("stat", root.display(path))?;
            self.freed.fetch_add(blocks(&stat), Ordering::Relaxed);
            openat(root.top(), ".", FOLDER, Mode::empty())
        } else {
            let (parent, name) = split(path);
            let Some(parent) = root.folder(parent, Missing::Tell)? else {
                return Ok(None);
            };
            open_folder(parent.as_fd(), OsStr::from_bytes(name), true)
        };
        match opened {
            Ok(folder) => Ok(Some(folder)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno).at("open", root.display(path)),
        }
    }

    /// Counts a file that is about to lose a link.
    fn count(&self, stat: &Stat) {
        let last = stat.st_nlink <= 1 || {
            let mut links = lock(&self.links);
            let left = links
                .entry((stat.st_dev, stat.st_ino))
                .or_insert(links_of(stat));
            *left = left.saturating_sub(1);
            *left == 0
        };
        if last {
            self.freed.fetch_add(blocks(stat), Ordering::Relaxed);
        }
    }
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

fn stat_of(path: &Path) -> Result<Option<Stat>> {
    match statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno).at("stat", path),
    }
}

fn is_folder(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

#[allow(clippy::useless_conversion)] // st_nlink is 32 bits wide on some architectures
fn links_of(stat: &Stat) -> u64 {
    u64::from(stat.st_nlink)
}

fn blocks(stat: &Stat) -> u64 {
    stat.st_blocks.max(0) as u64 * 512
}

/// Removes `name` of a folder and all below it, on this thread.
pub fn remove_at(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    // Folders on the way down, so that depth costs memory and not stack.
    let mut trail: Vec<(OwnedFd, OsString, Vec<CString>)> = Vec::new();
    let enter = |parent: BorrowedFd<'_>, name: &OsStr| -> io::Result<_> {
        let folder = open_folder(parent, name, true)?;
        let names = names_of(folder.as_fd())?;
        let names = names
            .into_iter()
            .filter_map(|name| CString::new(name.as_bytes()).ok());
        Ok((folder, name.to_os_string(), names.collect()))
    };
    match unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => trail.push(enter(parent, name)?),
        done => return Ok(missing_is_fine(done)?),
    }
    while let Some((folder, _, names)) = trail.last_mut() {
        if let Some(child) = names.pop() {
            let child = OsStr::from_bytes(child.as_bytes());
            match unlinkat(&*folder, child, AtFlags::empty()) {
                Err(Errno::ISDIR | Errno::PERM) => {
                    let next = enter(folder.as_fd(), child)?;
                    trail.push(next);
                }
                done => missing_is_fine(done)?,
            }
        } else {
            let Some((_, name, _)) = trail.pop() else {
                break;
            };
            let above = trail.last().map_or(parent, |(folder, _, _)| folder.as_fd());
            missing_is_fine(unlinkat(above, &name, AtFlags::REMOVEDIR))?;
        }
    }
    Ok(())
}

/// The names in an open folder, `.` and `..` left out, in the file system's order.
pub fn names_of(folder: BorrowedFd<'_>) -> io::Result<Vec<OsString>> {
    // Reading moves a descriptor's position, and a path descriptor has none: open it anew.
    let open = openat(folder, ".", FOLDER, Mode::empty())?;
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

/// Opens a folder for reading; `force` gives its owner the bits that takes, and those to remove
/// what is in it.
fn open_folder(parent: BorrowedFd<'_>, name: &OsStr, force: bool) -> rustix::io::Result<OwnedFd> {
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

fn missing_is_fine(done: rustix::io::Result<()>) -> rustix::io::Result<()> {
    match done {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests;
