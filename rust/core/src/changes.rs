//! [`Before`]: a plain tree as it stood, and what was changed in it since, as a layer directory.
//!
//! For machines that refuse overlay: `flatten` makes a root, `Before` records it, a container
//! changes it, and [`Before::changes`] moves what is new into an upper folder that says the same
//! as overlay's would. No content is read: a file is told by its inode and its change time, which
//! no program can set, so that not even a change that restores size and mtime is missed.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{
    mkdirat, openat, renameat, statat, statx, unlinkat, AtFlags, FileType, Mode, OFlags, Stat,
    StatxFlags,
};
use rustix::time::{clock_gettime, ClockId};

use crate::attrs::{self, Owners, Writer};
use crate::cancel::Cancel;
use crate::entry::Entry;
use crate::error::{IoContext, Result};
use crate::explore::{explore, thread_count};
use crate::root::{join, split};
use crate::stack::{is_whiteout, Stack};
use crate::tree::names_of;

/// How often, and how long each time, the clock is waited for.
const CLOCK_TRIES: u32 = 50;
const CLOCK_SLICE: Duration = Duration::from_millis(1);
const PIECE: usize = 64 << 10;

/// Seconds and nanoseconds.
type Time = (i64, u32);

/// A tree as it stood.
#[derive(Debug)]
pub struct Before {
    root: PathBuf,
    folders: HashMap<Vec<u8>, Seen>,
}

/// What identifies one object and its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    ino: u64,
    file_type: FileType,
    rdev: u64,
    nlink: u64,
    ctime: Time,
    /// When a folder came to be, where the file system knows: inode numbers are used again.
    born: Option<Time>,
}

/// One folder as a walk saw it.
#[derive(Debug)]
struct Seen {
    path: Vec<u8>,
    entry: Entry,
    names: HashMap<Vec<u8>, Stamp>,
}

/// What a walk has to do in a folder.
enum Job {
    /// It was there before: compare.
    Known(Vec<u8>),
    /// All of it is new.
    New(Vec<u8>),
}

/// What became of one name.
enum Change {
    /// A new object, or another one than before.
    New,
    /// A new folder where something else, or another folder, stood.
    Replaced,
    /// A folder that was there; the index of its node.
    Below(usize),
    /// The name is gone.
    Gone,
}

/// What became of a folder that was there before.
struct Node {
    path: Vec<u8>,
    /// Its attributes now.
    entry: Entry,
    touched: bool,
    changes: Vec<(Vec<u8>, Change)>,
}

impl Before {
    /// Walks the tree `root` once. What changes later has a later change time than anything here.
    pub fn record(root: &Path, cancel: &Cancel) -> Result<Self> {
        let tree = Tree::open(root)?;
        let folders = explore(thread_count(), cancel, Vec::new(), |path, found| {
            let seen = tree.look(path)?;
            for (name, stamp) in &seen.names {
                if stamp.file_type == FileType::Directory {
                    found.folder(join(&seen.path, name));
                }
            }
            Ok(seen)
        })?;
        let times = folders.iter().flat_map(|seen| seen.names.values());
        let newest = times.map(|stamp| stamp.ctime).max();
        outlast(newest.unwrap_or_default());
        let folders = folders.into_iter().map(|seen| (seen.path.clone(), seen));
        Ok(Self {
            root: root.to_path_buf(),
            folders: folders.collect(),
        })
    }

    /// Fills the empty folder `upper` with what was changed, as overlay would have: new and changed
    /// objects, folders with changes in them, whiteouts for names that are gone, and the opaque
    /// mark on a folder that took another object's place.
    ///
    /// Changed objects are moved out of the tree, which is of no further use. A device 0:0, which
    /// overlay would refuse to make, is left out.
    ///
    /// Args:
    ///     layers: What the tree was flattened from, base first.
    ///     upper: On the file system of the tree.
    pub fn changes(&self, layers: &[PathBuf], upper: &Path, cancel: &Cancel) -> Result<()> {
        let tree = Tree::open(&self.root)?;
        let below = Stack::new(layers.to_vec());
        let first = Job::Known(Vec::new());
        let nodes = explore(thread_count(), cancel, first, |job, found| match job {
            Job::Known(path) => {
                let mut node = self.compare(&tree, &below, path)?;
                for (name, change) in &mut node.changes {
                    let path = join(&node.path, name);
                    match change {
                        Change::Below(index) => *index = found.folder(Job::Known(path)),
                        Change::New | Change::Replaced if tree.is_folder(&path)? => {
                            found.folder(Job::New(path));
                        }
                        _ => {}
                    }
                }
                Ok(Some(node))
            }
            Job::New(path) => {
                for folder in tree.clear_devices(path)? {
                    found.folder(Job::New(folder));
                }
                Ok(None)
            }
        })?;
        Filling::start(&tree, upper)?.fill(&nodes)
    }

    /// Compares one folder with what it was.
    fn compare(&self, tree: &Tree, below: &Stack, path: Vec<u8>) -> Result<Node> {
        let now = tree.look(path)?;
        let then = self.folders.get(&now.path);
        let mut changes = Vec::new();
        for (name, stamp) in &now.names {
            let known = then.and_then(|then| then.names.get(name));
            let change = match known {
                Some(known) if stamp.is_folder() && stamp.same_folder(known) => Change::Below(0),
                Some(known) if stamp == known => continue,
                Some(known) if stamp.lost_a_name(known) => {
                    if tree.same_as_layers(below, &join(&now.path, name))? {
                        continue;
                    }
                    Change::New
                }
                Some(_) if stamp.is_folder() => Change::Replaced,
                _ if is_whiteout(stamp.file_type, stamp.rdev) => match known {
                    Some(_) => Change::Gone,
                    None => continue,
                },
                _ => Change::New,
            };
            changes.push((name.clone(), change));
        }
        let gone = then.into_iter().flat_map(|then| then.names.keys());
        for name in gone.filter(|name| !now.names.contains_key(*name)) {
            changes.push((name.clone(), Change::Gone));
        }
        Ok(Node {
            touched: then.is_none_or(|then| then.entry != now.entry),
            path: now.path,
            entry: now.entry,
            changes,
        })
    }
}

impl Stamp {
    fn of(stat: &Stat, born: Option<Time>) -> Self {
        Self {
            ino: stat.st_ino,
            file_type: FileType::from_raw_mode(stat.st_mode),
            rdev: stat.st_rdev,
            #[allow(clippy::useless_conversion)] // 32 bits wide on some architectures
            nlink: u64::from(stat.st_nlink),
            ctime: (stat.st_ctime, stat.st_ctime_nsec as u32),
            born,
        }
    }

    fn is_folder(&self) -> bool {
        self.file_type == FileType::Directory
    }

    /// Tells whether a folder is the one that it was, whatever was done to it.
    fn same_folder(&self, then: &Self) -> bool {
        then.is_folder() && self.ino == then.ino && self.born == then.born
    }

    /// Tells whether a file may have changed only in that another name of it was removed.
    fn lost_a_name(&self, then: &Self) -> bool {
        // A folder's links are its subfolders.
        let same = self.ino == then.ino && self.file_type == then.file_type;
        same && !self.is_folder() && self.nlink < then.nlink
    }
}

/// Waits until the clock that stamps files has passed `newest`: it ticks only every few
/// milliseconds, and a change within the same tick could not be told.
fn outlast(newest: Time) {
    for _ in 0..CLOCK_TRIES {
        let now = clock_gettime(ClockId::RealtimeCoarse);
        if (now.tv_sec, now.tv_nsec as u32) > newest {
            return;
        }
        std::thread::sleep(CLOCK_SLICE);
    }
}

/// A tree that no other process changes now. Paths in it are real: no symlink among the folders.
struct Tree {
    path: PathBuf,
    fd: OwnedFd,
}

impl Tree {
    fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty()).at("open", path)?;
        Ok(Self {
            path: path.to_path_buf(),
            fd,
        })
    }

    fn display(&self, path: &[u8]) -> PathBuf {
        self.path.join(OsStr::from_bytes(path))
    }

    fn folder(&self, path: &[u8]) -> Result<OwnedFd> {
        let name = if path.is_empty() { b"." } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(&self.fd, name, flags, Mode::empty()).at("open", self.display(path))
    }

    fn is_folder(&self, path: &[u8]) -> Result<bool> {
        let stat = statat(&self.fd, path, AtFlags::SYMLINK_NOFOLLOW);
        let stat = stat.at("stat", self.display(path))?;
        Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    }

    /// Reads one folder: its attributes, and the stamps of what is in it.
    fn look(&self, path: Vec<u8>) -> Result<Seen> {
        let folder = self.folder(&path)?;
        let shown = self.display(&path);
        let attrs = attrs::read_open(folder.as_fd()).at("stat", &shown)?;
        let entry = attrs.ok_or(rustix::io::Errno::NOTDIR).at("stat", &shown)?;
        let mut names = HashMap::new();
        for name in names_of(folder.as_fd()).at("read", &shown)? {
            let stat = statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW);
            let stat = stat.at("stat", shown.join(&name))?;
            let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            let born = is_folder.then(|| born(&folder, &name)).flatten();
            names.insert(name.as_bytes().to_vec(), Stamp::of(&stat, born));
        }
        Ok(Seen {
            path,
            entry: entry.entry,
            names,
        })
    }

    /// Removes the devices 0:0 of a folder, which would be whiteouts; gives its folders.
    fn clear_devices(&self, path: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        let seen = self.look(path)?;
        let mut folders = Vec::new();
        for (name, stamp) in seen.names {
            let path = join(&seen.path, &name);
            if stamp.is_folder() {
                folders.push(path);
            } else if is_whiteout(stamp.file_type, stamp.rdev) {
                unlinkat(&self.fd, &path[..], AtFlags::empty())
                    .at("unlink", self.display(&path))?;
            }
        }
        Ok(folders)
    }

    /// Compares an object with the layers' in all that a layer holds; contents are read.
    fn same_as_layers(&self, below: &Stack, path: &[u8]) -> Result<bool> {
        let Some(found) = below.lookup(Path::new(OsStr::from_bytes(path)))? else {
            return Ok(false);
        };
        let shown = self.display(path);
        let ours = attrs::read(self.fd.as_fd(), OsStr::from_bytes(path)).at("stat", &shown)?;
        let theirs =
            attrs::read(rustix::fs::CWD, found.path.as_os_str()).at("stat", &found.path)?;
        let (Some(ours), Some(theirs)) = (ours, theirs) else {
            return Ok(false);
        };
        if ours.entry != theirs.entry {
            return Ok(false);
        }
        if ours.entry.size == 0 {
            return Ok(true);
        }
        same_content(&shown, &found.path)
    }
}

fn born(folder: &OwnedFd, name: &OsStr) -> Option<Time> {
    let found = statx(folder, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BTIME).ok()?;
    let known = found.stx_mask & StatxFlags::BTIME.bits() != 0;
    known.then_some((found.stx_btime.tv_sec, found.stx_btime.tv_nsec))
}

fn same_content(one: &Path, two: &Path) -> Result<bool> {
    let (mut left, mut right) = (open_file(one)?, open_file(two)?);
    let (mut left_piece, mut right_piece) = (vec![0; PIECE], vec![0; PIECE]);
    loop {
        let read = read_full(&mut left, &mut left_piece).at("read", one)?;
        let other = read_full(&mut right, &mut right_piece).at("read", two)?;
        if left_piece[..read] != right_piece[..other] {
            return Ok(false);
        }
        if read == 0 {
            return Ok(true);
        }
    }
}

fn open_file(path: &Path) -> Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty()).at("open", path)?;
    Ok(File::from(file))
}

/// Reads until the buffer is full or the file ends.
fn read_full(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The upper folder being filled.
struct Filling<'a> {
    tree: &'a Tree,
    upper: Tree,
    writer: Writer,
}

impl<'a> Filling<'a> {
    fn start(tree: &'a Tree, upper: &Path) -> Result<Self> {
        let writer = Writer::new(Owners::Keep);
        let upper = Tree::open(upper)?;
        writer.begin(upper.fd.as_fd()).at("chmod", &upper.path)?;
        Ok(Self {
            tree,
            upper,
            writer,
        })
    }

    /// Makes folders and moves objects, parents first; then gives the folders their attributes,
    /// deepest first. A node's index is greater than its parent's.
    fn fill(&self, nodes: &[Option<Node>]) -> Result<()> {
        let needed = needed(nodes);
        let kept = || {
            let all = nodes.iter().zip(&needed);
            all.filter_map(|(node, needed)| node.as_ref().filter(|_| *needed))
        };
        for node in kept() {
            self.folder(node)?;
        }
        for node in kept().collect::<Vec<_>>().into_iter().rev() {
            self.finish(node)?;
        }
        Ok(())
    }

    fn folder(&self, node: &Node) -> Result<()> {
        if !node.path.is_empty() {
            let made = mkdirat(&self.upper.fd, &node.path[..], Mode::from_raw_mode(0o700));
            made.at("mkdir", self.upper.display(&node.path))?;
        }
        let folder = self.upper.folder(&node.path)?;
        for (name, change) in &node.changes {
            let path = join(&node.path, name);
            let shown = self.upper.display(&path);
            match change {
                Change::Below(_) => {}
                Change::Gone => attrs::make_whiteout(folder.as_fd(), OsStr::from_bytes(name))
                    .at("make a whiteout at", shown)?,
                Change::New => self.take(&path)?,
                Change::Replaced => {
                    self.take(&path)?;
                    let replaced = self.upper.folder(&path)?;
                    attrs::make_opaque(replaced.as_fd()).at("setxattr", shown)?;
                }
            }
        }
        Ok(())
    }

    /// Moves an object, and all that is in it, out of the tree.
    fn take(&self, path: &[u8]) -> Result<()> {
        let moved = renameat(&self.tree.fd, path, &self.upper.fd, path);
        moved.at("move", self.tree.display(path))
    }

    fn finish(&self, node: &Node) -> Result<()> {
        let done = if node.path.is_empty() {
            self.writer.folder(self.upper.fd.as_fd(), &node.entry)
        } else {
            let (parent, name) = split(&node.path);
            let parent = self.upper.folder(parent)?;
            let name = OsStr::from_bytes(name);
            self.writer.named(parent.as_fd(), name, &node.entry)
        };
        done.at("set attributes of", self.upper.display(&node.path))
    }
}

/// Which nodes the upper folder has: the root, what was touched, and what leads to a change.
fn needed(nodes: &[Option<Node>]) -> Vec<bool> {
    let mut needed = vec![false; nodes.len()];
    for (index, node) in nodes.iter().enumerate().rev() {
        let Some(node) = node else {
            continue;
        };
        needed[index] = index == 0
            || node.touched
            || node.changes.iter().any(|(_, change)| match change {
                Change::Below(index) => needed[*index],
                _ => true,
            });
    }
    needed
}

#[cfg(test)]
mod tests;
