//! [`write_tar`]: a folder that others may be writing to, as a tar.
//!
//! Names are in order, folder by folder; the folder itself is no entry. What is no file, folder or
//! link is left out, as are overlay's marks: nothing in a cache means a deletion. Whatever may
//! vanish, grow or shrink meanwhile does, and the tar is whole all the same. Every step goes from an
//! open folder to a name in it and follows no link: who writes there is not trusted.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{fstat, openat, statat, AtFlags, FileType, Mode, OFlags, Stat, CWD};
use rustix::io::Errno;

use super::links::Links;
use crate::attrs::{read, read_known};
use crate::entry::{Entry, Kind};
use crate::error::{Error, IoContext, Result};
use crate::root::join;
use crate::tar_write::{append_exact_header, padding, BLOCK, END};
use crate::tree::names_of;

/// Files from this size on are read piece by piece, and begin a chunk.
pub const BIG: u64 = crate::cut::MAX as u64;
/// Bytes of a big file that are read at once.
const PIECE: usize = 256 << 10;
/// How often a file that changes under the reader is tried.
const TRIES: usize = 3;

/// Takes the tar.
pub trait Sink {
    /// Takes the next bytes.
    fn take(&mut self, bytes: &[u8]) -> Result<()>;

    /// Says that what follows is worth a chunk that begins with it.
    fn cut(&mut self) -> Result<()>;
}

/// What was met on the way.
#[derive(Debug, Default)]
pub struct Written {
    /// Entries of the tar.
    pub entries: u64,
    /// Paths of files that changed whenever they were read, and are not in the tar.
    pub left_out: Vec<Vec<u8>>,
    /// Paths of big files that changed while they were read: the tar has some of each state.
    pub torn: Vec<Vec<u8>>,
}

/// Writes the folder `root` as a tar.
///
/// Args:
///     without: Paths that are left out.
///     stop: Set by another thread to give up.
pub fn write_tar(
    root: &Path,
    without: &HashSet<Vec<u8>>,
    sink: &mut dyn Sink,
    stop: &AtomicBool,
) -> Result<Written> {
    let top = openat(CWD, root, FOLDER, Mode::empty()).at("open", root)?;
    let mut walk = Walk {
        root,
        without,
        sink,
        stop,
        links: Links::default(),
        header: Vec::new(),
        buffer: Vec::new(),
        written: Written::default(),
    };
    let mut open = vec![Level::new(top, Vec::new()).at("read", root)?];
    while let Some(level) = open.last_mut() {
        let Some(name) = level.names.next() else {
            open.pop();
            continue;
        };
        let path = join(&level.path, name.as_bytes());
        if let Some(below) = walk.object(level.folder.as_fd(), &name, path)? {
            open.push(below);
        }
    }
    walk.sink.take(&END)?;
    Ok(walk.written)
}

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
const FILE: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// A folder that the walk is in.
struct Level {
    folder: OwnedFd,
    path: Vec<u8>,
    names: std::vec::IntoIter<OsString>,
}

impl Level {
    fn new(folder: OwnedFd, path: Vec<u8>) -> io::Result<Self> {
        let mut names = names_of(folder.as_fd())?;
        names.sort_unstable();
        Ok(Self {
            folder,
            path,
            names: names.into_iter(),
        })
    }
}

struct Walk<'a> {
    root: &'a Path,
    without: &'a HashSet<Vec<u8>>,
    sink: &'a mut dyn Sink,
    stop: &'a AtomicBool,
    links: Links,
    header: Vec<u8>,
    buffer: Vec<u8>,
    written: Written,
}

impl Walk<'_> {
    /// Writes one object; gives the folder that is to be walked next.
    fn object(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        path: Vec<u8>,
    ) -> Result<Option<Level>> {
        self.check()?;
        if self.without.contains(&path) {
            return Ok(None);
        }
        let shown = self.root.join(OsStr::from_bytes(&path));
        let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW);
        let Some(stat) = present(stat).at("stat", &shown)? else {
            return Ok(None);
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => self.folder(parent, name, path, &shown),
            FileType::RegularFile => self.file(parent, name, path, &shown).map(|()| None),
            FileType::Symlink => self.symlink(parent, name, path, &shown).map(|()| None),
            _ => Ok(None),
        }
    }

    fn folder(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        path: Vec<u8>,
        shown: &Path,
    ) -> Result<Option<Level>> {
        let Some(folder) =
            present(openat(parent, name, FOLDER, Mode::empty())).at("open", shown)?
        else {
            return Ok(None);
        };
        let stat = fstat(&folder).at("stat", shown)?;
        let Some(attrs) = read_known(folder.as_fd(), &stat).at("stat", shown)? else {
            return Ok(None);
        };
        let mut entry = attrs.entry;
        entry.path.clone_from(&path);
        self.head(&entry)?;
        Level::new(folder, path).map(Some).at("read", shown)
    }

    fn symlink(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        path: Vec<u8>,
        shown: &Path,
    ) -> Result<()> {
        let attrs = match read(parent, name) {
            // It became something else: as good as gone.
            Err(error) if is_gone(&error) || error.kind() == io::ErrorKind::InvalidInput => {
                return Ok(())
            }
            found => found.at("stat", shown)?,
        };
        let Some(attrs) = attrs.filter(|attrs| matches!(attrs.entry.kind, Kind::Symlink(_))) else {
            return Ok(());
        };
        let mut entry = attrs.entry;
        entry.path = path;
        self.linked(&mut entry, (attrs.dev, attrs.ino, attrs.nlink));
        self.head(&entry)
    }

    fn file(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        path: Vec<u8>,
        shown: &Path,
    ) -> Result<()> {
        for _ in 0..TRIES {
            let opened = present(openat(parent, name, FILE, Mode::empty()));
            let Some(file) = opened.at("open", shown)? else {
                return Ok(());
            };
            let file = File::from(file);
            let before = fstat(&file).at("stat", shown)?;
            let attrs = read_known(file.as_fd(), &before).at("stat", shown)?;
            // What stands for a device, where none could be made, is as little a file.
            let Some(attrs) = attrs.filter(|attrs| attrs.entry.kind == Kind::File) else {
                return Ok(());
            };
            let mut entry = attrs.entry;
            entry.path.clone_from(&path);
            let inode = (attrs.dev, attrs.ino, attrs.nlink);
            if self.is_link(&mut entry, inode) {
                return self.head(&entry);
            }
            if entry.size >= BIG {
                self.note_link(&path, inode);
                return self.big(&file, &entry, &before, shown);
            }
            self.buffer.clear();
            let most = (&file).take(entry.size + 1).read_to_end(&mut self.buffer);
            most.at("read", shown)?;
            if self.buffer.len() as u64 == entry.size && unchanged(&file, &before, shown)? {
                self.note_link(&path, inode);
                return self.whole(&entry);
            }
        }
        self.written.left_out.push(path);
        Ok(())
    }

    /// Writes a file whose content is in the buffer.
    fn whole(&mut self, entry: &Entry) -> Result<()> {
        self.head(entry)?;
        let end = self.buffer.len() + padding(entry.size);
        self.buffer.resize(end, 0);
        self.sink.take(&self.buffer)
    }

    /// Writes a file piece by piece: as much as its header says, whatever becomes of it.
    fn big(&mut self, file: &File, entry: &Entry, before: &Stat, shown: &Path) -> Result<()> {
        self.head(entry)?;
        self.sink.cut()?;
        let mut left = entry.size;
        let mut piece = vec![0; PIECE];
        while left > 0 {
            self.check()?;
            let wanted = left.min(PIECE as u64) as usize;
            let mut filled = 0;
            while filled < wanted {
                match (&mut &*file).read(&mut piece[filled..wanted]) {
                    Ok(0) => break,
                    Ok(count) => filled += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error).at("read", shown),
                }
            }
            piece[filled..wanted].fill(0);
            self.sink.take(&piece[..wanted])?;
            left -= wanted as u64;
        }
        self.sink.take(&[0; BLOCK][..padding(entry.size)])?;
        self.sink.cut()?;
        if !unchanged(file, before, shown)? {
            self.written.torn.push(entry.path.clone());
        }
        Ok(())
    }

    fn head(&mut self, entry: &Entry) -> Result<()> {
        self.header.clear();
        append_exact_header(&mut self.header, entry);
        self.written.entries += 1;
        self.sink.take(&self.header)
    }

    /// Makes an entry a link to the file's first path, where the tar has it already.
    fn is_link(&self, entry: &mut Entry, (dev, ino, nlink): (u64, u64, u64)) -> bool {
        let first = (nlink > 1).then(|| self.links.path((dev, ino)));
        let Some(first) = first.flatten() else {
            return false;
        };
        entry.become_link(first);
        true
    }

    fn note_link(&mut self, path: &[u8], (dev, ino, nlink): (u64, u64, u64)) {
        if nlink > 1 {
            self.links.note((dev, ino), path);
        }
    }

    /// Both, for what has no content that could change.
    fn linked(&mut self, entry: &mut Entry, inode: (u64, u64, u64)) {
        if !self.is_link(entry, inode) {
            self.note_link(&entry.path, inode);
        }
    }

    fn check(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        Ok(())
    }
}

/// Tells whether nobody wrote to a file since it was looked at.
fn unchanged(file: &File, before: &Stat, shown: &Path) -> Result<bool> {
    let after = fstat(file).at("stat", shown)?;
    let facts = |stat: &Stat| (stat.st_size, stat.st_mtime, stat.st_mtime_nsec);
    Ok(facts(&after) == facts(before))
}

/// None for what went, or became something else, since its name was read.
fn present<T>(found: rustix::io::Result<T>) -> rustix::io::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO | Errno::STALE) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}
