//! [`remove_tree`]: a whole tree goes, on several threads, in memory that does not depend on its size.
//!
//! The store's trash, failed steps and work folders come here. A folder is read as it is emptied: files go
//! at once, a batch of a wide folder to whichever thread is free, folders become items of a stack that all
//! threads share; whoever takes the last thing out of a folder removes it. Folders are opened relative to
//! the one above and stay open until they are empty, so a tree that was made to be a trap leads nowhere
//! else; one that lies deep is moved up to the root first, so that depth costs no descriptors. A folder that
//! may not be read or written is given its owner's bits: layers hold folders of mode 000. A path may be
//! missing, or vanish meanwhile.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::fs::{
    fstat, renameat, statat, unlinkat, AtFlags, FileType, RawDir, RawDirEntry, Stat, CWD,
};
use rustix::io::Errno;

use crate::error::{Error, IoContext, Result};
use crate::tree::{blocks, is_folder, missing_is_fine, names_of, open_folder, stat_of};

/// Threads of one removal, at most: one journal takes what they do.
const THREADS: usize = 8;
/// Items that the calling thread does before it asks for help: most trees have no more.
const ALONE: usize = 16;
/// Names that are read from a folder before they are dealt with, in bytes.
const BUFFER: usize = 32 << 10;
/// Files of one folder that another thread takes at once.
const BATCH: usize = 512;
/// Folders of one folder that may wait; the rest is read again when they are gone.
const WAITING: usize = 1024;
/// Batches that may wait before whoever reads removes files itself.
const BATCHES: usize = 16;
/// How deep below the root a folder may lie; each level keeps a descriptor for every thread.
const DEEP: usize = 32;
/// How often a folder is read again that should be empty and is not.
const ROUNDS: u32 = 16;

/// Removes a tree, whatever its modes. A missing path is no error.
///
/// Returns:
///     Bytes of disk given back: the blocks of every file whose last link went.
/// Raises:
///     `Error::Io`, `Error::Interrupted`; a part of the tree is left, perhaps with folders moved up.
pub fn remove_tree(path: &Path, stop: &AtomicBool) -> Result<u64> {
    let Some(stat) = stat_of(path)? else {
        return Ok(0);
    };
    if !is_folder(&stat) {
        missing_is_fine(unlinkat(CWD, path, AtFlags::empty())).at("unlink", path)?;
        return Ok(if stat.st_nlink <= 1 { blocks(&stat) } else { 0 });
    }
    let top = open_folder(CWD, path.as_os_str(), true).at("open", path)?;
    let removal = Removal::new(path, top, stop);
    removal.freed.fetch_add(blocks(&stat), Ordering::Relaxed);
    removal.run()?;
    missing_is_fine(unlinkat(CWD, path, AtFlags::REMOVEDIR)).at("rmdir", path)?;
    Ok(removal.freed.into_inner())
}

/// A folder that is being emptied.
struct Folder {
    fd: OwnedFd,
    name: CString,
    /// None for the root.
    above: Option<Arc<Folder>>,
    depth: usize,
    /// What has to be done before it is empty: its folders, batches of its files, and its reading.
    left: AtomicUsize,
    /// Its reading ended early.
    unread: AtomicBool,
    rounds: AtomicU32,
}

/// Something for a thread to do. Each is counted in `left` of its folder.
enum Item {
    /// A folder by name.
    Enter(Arc<Folder>, CString),
    /// A folder to read on.
    Read(Arc<Folder>),
    /// Files of a folder.
    Files(Arc<Folder>, Vec<CString>),
}

/// One removal, shared by its threads.
struct Removal<'a> {
    path: &'a Path,
    top: Arc<Folder>,
    stop: &'a AtomicBool,
    freed: AtomicU64,
    /// Links left of files that had several when they were first met, by inode: a tree is on one device.
    links: Mutex<HashMap<u64, u64>>,
    moved: AtomicU64,
    queue: Mutex<Queue>,
    wake: Condvar,
}

struct Queue {
    /// A stack: deep first keeps it short.
    waiting: Vec<Item>,
    batches: usize,
    busy: usize,
    failed: Option<Error>,
}

impl<'a> Removal<'a> {
    fn new(path: &'a Path, top: OwnedFd, stop: &'a AtomicBool) -> Self {
        let top = Arc::new(Folder::new(top, CString::default(), None));
        Self {
            path,
            stop,
            freed: AtomicU64::new(0),
            links: Mutex::default(),
            moved: AtomicU64::new(0),
            queue: Mutex::new(Queue {
                waiting: vec![Item::Read(top.clone())],
                batches: 0,
                busy: 0,
                failed: None,
            }),
            wake: Condvar::new(),
            top,
        }
    }

    fn run(&self) -> Result<()> {
        self.work(ALONE);
        if !lock(&self.queue).waiting.is_empty() {
            let cores = std::thread::available_parallelism().map_or(2, usize::from);
            std::thread::scope(|scope| {
                for _ in 1..cores.clamp(2, THREADS) {
                    scope.spawn(|| self.work(usize::MAX));
                }
                self.work(usize::MAX);
            });
        }
        lock(&self.queue).failed.take().map_or(Ok(()), Err)
    }

    /// Does so many items, or all there are.
    fn work(&self, items: usize) {
        let mut buffer = Vec::with_capacity(BUFFER);
        for _ in 0..items {
            let Some(item) = self.take() else {
                return;
            };
            let done = if self.stop.load(Ordering::Relaxed) {
                Err(Error::Interrupted)
            } else {
                self.do_item(item, buffer.spare_capacity_mut())
            };
            let mut queue = lock(&self.queue);
            queue.busy -= 1;
            if let Err(error) = done {
                queue.failed = queue.failed.take().or(Some(error));
            }
            // Others wait for work, or for the end.
            if queue.failed.is_some() || (queue.busy == 0 && queue.waiting.is_empty()) {
                self.wake.notify_all();
            }
        }
    }

    /// The next item; None when all is done or something failed.
    fn take(&self) -> Option<Item> {
        let mut queue = lock(&self.queue);
        loop {
            if queue.failed.is_some() {
                return None;
            }
            if let Some(item) = queue.waiting.pop() {
                queue.busy += 1;
                queue.batches -= usize::from(matches!(item, Item::Files(..)));
                return Some(item);
            }
            if queue.busy == 0 {
                return None;
            }
            queue = self
                .wake
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn give(&self, items: impl IntoIterator<Item = Item>) {
        let mut queue = lock(&self.queue);
        let before = queue.waiting.len();
        queue.waiting.extend(items);
        let new = &queue.waiting[before..];
        let many = new.len() > 1;
        let batches = new.iter().filter(|item| matches!(item, Item::Files(..)));
        let batches = batches.count();
        queue.batches += batches;
        drop(queue);
        if many {
            self.wake.notify_all();
        } else {
            self.wake.notify_one();
        }
    }

    fn do_item(&self, item: Item, buffer: &mut [MaybeUninit<u8>]) -> Result<()> {
        match item {
            Item::Enter(above, name) => match self.enter(&above, name)? {
                Some(folder) => self.read(folder, buffer),
                None => self.finish(above),
            },
            Item::Read(folder) => self.read(folder, buffer),
            Item::Files(folder, names) => {
                for name in &names {
                    self.remove_file(&folder, name)?;
                }
                self.finish(folder)
            }
        }
    }

    /// Opens a folder, and moves it up where it lies deep.
    fn enter(&self, above: &Arc<Folder>, name: CString) -> Result<Option<Arc<Folder>>> {
        let shown = || above.shown(self.path, &name);
        let fd = match open_folder(above.fd.as_fd(), OsStr::from_bytes(name.as_bytes()), true) {
            Err(Errno::NOENT) => return Ok(None),
            opened => opened.at("open", shown())?,
        };
        let stat = fstat(&fd).at("stat", shown())?;
        self.freed.fetch_add(blocks(&stat), Ordering::Relaxed);
        if above.depth < DEEP {
            return Ok(Some(Arc::new(Folder::new(fd, name, Some(above.clone())))));
        }
        let new = self.move_up(above, &name).at("rename", shown())?;
        self.top.left.fetch_add(1, Ordering::AcqRel);
        self.finish(above.clone())?;
        Ok(Some(Arc::new(Folder::new(fd, new, Some(self.top.clone())))))
    }

    /// Gives a folder a name of its own in the root.
    fn move_up(&self, above: &Folder, name: &CStr) -> rustix::io::Result<CString> {
        loop {
            let number = self.moved.fetch_add(1, Ordering::Relaxed);
            let new = CString::new(format!(".img-removed-{number}")).unwrap_or_default();
            match renameat(&above.fd, name, &self.top.fd, &new) {
                // The tree has such a name itself.
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR | Errno::ISDIR) => {}
                done => return done.map(|()| new),
            }
        }
    }

    /// Empties a folder of its files, and leaves its folders to whoever is free.
    fn read(&self, folder: Arc<Folder>, buffer: &mut [MaybeUninit<u8>]) -> Result<()> {
        let shown = || folder.shown(self.path, c"");
        let mut below = Vec::new();
        let mut files = Vec::new();
        let mut met = 0_usize;
        // Opened anew, since an earlier reading has moved this one's position.
        let open = crate::tree::reopen(folder.fd.as_fd()).at("open", shown())?;
        let mut entries = RawDir::new(open, buffer);
        while let Some(entry) = entries.next() {
            let entry = entry.at("read", shown())?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            if self.is_folder(&folder, &entry)? {
                below.push(Item::Enter(folder.clone(), name.to_owned()));
                if below.len() >= WAITING {
                    folder.unread.store(true, Ordering::Release);
                    break;
                }
                continue;
            }
            met += 1;
            if met <= BATCH {
                self.remove_file(&folder, name)?;
            } else {
                files.push(name.to_owned());
                if files.len() >= BATCH {
                    self.hand_on(&folder, std::mem::take(&mut files))?;
                }
            }
        }
        for name in &files {
            self.remove_file(&folder, name)?;
        }
        if !below.is_empty() {
            folder.left.fetch_add(below.len(), Ordering::AcqRel);
            self.give(below);
        }
        self.finish(folder)
    }

    /// Has another thread remove files, unless all are busy as it is.
    fn hand_on(&self, folder: &Arc<Folder>, names: Vec<CString>) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        if lock(&self.queue).batches < BATCHES {
            folder.left.fetch_add(1, Ordering::AcqRel);
            self.give([Item::Files(folder.clone(), names)]);
            return Ok(());
        }
        names
            .iter()
            .try_for_each(|name| self.remove_file(folder, name))
    }

    fn is_folder(&self, folder: &Folder, entry: &RawDirEntry<'_>) -> Result<bool> {
        match entry.file_type() {
            FileType::Unknown => {
                let name = entry.file_name();
                match statat(&folder.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => Ok(is_folder(&stat)),
                    Err(Errno::NOENT) => Ok(false),
                    Err(errno) => Err(errno).at("stat", folder.shown(self.path, name)),
                }
            }
            kind => Ok(kind == FileType::Directory),
        }
    }

    fn remove_file(&self, folder: &Folder, name: &CStr) -> Result<()> {
        match statat(&folder.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => self.count(&stat),
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(errno).at("stat", folder.shown(self.path, name)),
        }
        missing_is_fine(unlinkat(&folder.fd, name, AtFlags::empty()))
            .map_err(io::Error::from)
            .or_else(|error| Err(error).at("unlink", folder.shown(self.path, name)))
    }

    /// Counts a file that is about to lose a link.
    #[allow(clippy::useless_conversion)] // st_nlink is 32 bits wide on some architectures
    fn count(&self, stat: &Stat) {
        let last = stat.st_nlink <= 1 || {
            let mut links = lock(&self.links);
            let left = links.entry(stat.st_ino).or_insert(u64::from(stat.st_nlink));
            *left = left.saturating_sub(1);
            *left == 0
        };
        if last {
            self.freed.fetch_add(blocks(stat), Ordering::Relaxed);
        }
    }

    /// Takes one thing off a folder's list; the last one removes the folder, and so on upwards.
    fn finish(&self, folder: Arc<Folder>) -> Result<()> {
        let mut folder = folder;
        while folder.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            if folder.unread.swap(false, Ordering::AcqRel) {
                self.read_again(folder);
                return Ok(());
            }
            let Some(above) = folder.above.clone() else {
                return Ok(());
            };
            match unlinkat(&above.fd, &folder.name, AtFlags::REMOVEDIR) {
                // Reading a folder that is being emptied may miss a name.
                Err(Errno::NOTEMPTY | Errno::EXIST)
                    if folder.rounds.fetch_add(1, Ordering::Relaxed) < ROUNDS =>
                {
                    self.read_again(folder);
                    return Ok(());
                }
                done => missing_is_fine(done).at("rmdir", above.shown(self.path, &folder.name))?,
            }
            folder = above;
        }
        Ok(())
    }

    fn read_again(&self, folder: Arc<Folder>) {
        folder.left.store(1, Ordering::Release);
        self.give([Item::Read(folder)]);
    }
}

impl Folder {
    fn new(fd: OwnedFd, name: CString, above: Option<Arc<Folder>>) -> Self {
        Self {
            fd,
            name,
            depth: above.as_ref().map_or(0, |above| above.depth + 1),
            above,
            left: AtomicUsize::new(1),
            unread: AtomicBool::new(false),
            rounds: AtomicU32::new(0),
        }
    }

    /// Where something in it is, for messages.
    fn shown(&self, root: &Path, name: &CStr) -> PathBuf {
        let mut names = vec![name.to_owned()];
        let mut folder = self;
        while let Some(above) = &folder.above {
            names.push(folder.name.clone());
            folder = above;
        }
        let names = names.iter().rev();
        let named = names.filter(|name| !name.is_empty());
        named.fold(root.to_path_buf(), |path, name| {
            path.join(OsStr::from_bytes(name.as_bytes()))
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes `name` of a folder and all below it, on this thread.
pub fn remove_at(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    // Folders on the way down, so that depth costs memory and not stack.
    let mut trail: Vec<(OwnedFd, OsString, Vec<OsString>)> = Vec::new();
    let enter = |parent: BorrowedFd<'_>, name: OsString| -> io::Result<_> {
        let folder = open_folder(parent, &name, true)?;
        let names = names_of(folder.as_fd())?;
        Ok((folder, name, names))
    };
    match unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => trail.push(enter(parent, name.to_owned())?),
        done => return Ok(missing_is_fine(done)?),
    }
    let mut moved = 0_u64;
    loop {
        let deep = trail.len() >= DEEP;
        let Some((folder, _, names)) = trail.last_mut() else {
            return Ok(());
        };
        if let Some(child) = names.pop() {
            match unlinkat(&*folder, &child, AtFlags::empty()) {
                Err(Errno::ISDIR | Errno::PERM) if deep => {
                    move_to_first(&mut trail, &child, &mut moved)?;
                }
                Err(Errno::ISDIR | Errno::PERM) => {
                    let next = enter(folder.as_fd(), child)?;
                    trail.push(next);
                }
                done => missing_is_fine(done)?,
            }
        } else {
            let Some((_, name, _)) = trail.pop() else {
                return Ok(());
            };
            let above = trail.last().map_or(parent, |(folder, _, _)| folder.as_fd());
            missing_is_fine(unlinkat(above, &name, AtFlags::REMOVEDIR))?;
        }
    }
}

/// Moves a folder that lies deep to the first of the trail: depth shall cost no descriptors.
fn move_to_first(
    trail: &mut [(OwnedFd, OsString, Vec<OsString>)],
    child: &OsStr,
    moved: &mut u64,
) -> io::Result<()> {
    let [first, .., (last, ..)] = trail else {
        return Ok(());
    };
    // To be moved, a folder must be writable itself.
    drop(open_folder(last.as_fd(), child, true)?);
    loop {
        let new = OsString::from(format!(".img-removed-{moved}"));
        *moved += 1;
        match renameat(&*last, child, &first.0, &new) {
            Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR | Errno::ISDIR) => {}
            done => {
                first.2.push(new);
                return Ok(done?);
            }
        }
    }
}

#[cfg(test)]
mod tests;
