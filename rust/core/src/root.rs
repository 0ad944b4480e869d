//! [`Root`]: a folder that paths from outside are walked in, and cannot leave.
//!
//! `apply`, `archive`, `settle` and `flatten` ask it for the folder that an entry belongs in. It
//! walks by descriptors, one name at a time, and never lets the kernel follow a symlink: a link
//! made by the same layer is read and walked inside the root, as if the process were chrooted
//! there. Folders that an archive takes for granted are made on the way and told to the caller.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{
    mkdirat, openat, openat2, readlinkat, statat, unlinkat, AtFlags, FileType, Mode, OFlags,
    ResolveFlags,
};
use rustix::io::Errno;

use crate::attrs::{is_whiteout_at, make_opaque};
use crate::error::{Error, IoContext, Result};

/// Open folders kept. Archives come sorted by folder, so few are needed; descriptors are scarce
/// (1,024 is a usual limit, and several layers are extracted at once).
const CACHED: usize = 64;
/// Links followed in one walk before it is called a loop; the kernel's own figure.
const MAX_LINKS: usize = 40;

const FOLDER: OFlags = OFlags::PATH
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// An open folder below a root.
#[derive(Debug)]
pub struct Folder {
    fd: OwnedFd,
    /// Where it really is, relative to the root: no symlink among its components.
    pub path: Vec<u8>,
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Folder {
    /// The real path of a name in this folder.
    pub fn join(&self, name: &[u8]) -> Vec<u8> {
        join(&self.path, name)
    }
}

/// What to do about a folder that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Make it, mode 0700, and list it among [`Root::take_made`].
    Make,
    /// Give None.
    Tell,
}

/// The root of a tree that is being written.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    top: Arc<Folder>,
    cache: HashMap<Vec<u8>, Arc<Folder>>,
    made: Vec<Vec<u8>>,
}

impl Root {
    /// Opens an existing folder as a root.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty()).at("open", path)?;
        Ok(Self {
            path: path.to_path_buf(),
            top: Arc::new(Folder {
                fd,
                path: Vec::new(),
            }),
            cache: HashMap::new(),
            made: Vec::new(),
        })
    }

    /// The root folder itself, open for reading.
    pub fn top(&self) -> &Arc<Folder> {
        &self.top
    }

    /// A path below the root as the host names it, for messages.
    pub fn display(&self, path: &[u8]) -> PathBuf {
        self.path.join(OsStr::from_bytes(path))
    }

    /// Gives the folder at a clean relative path (see [`clean`]); empty is the root.
    ///
    /// Symlinks on the way, and at the end, are followed inside the root. With [`Missing::Make`] a
    /// whiteout on the way becomes an opaque folder: the name was deleted and made anew.
    ///
    /// Raises:
    ///     `Error::Layer` where a component is a file, or links form a loop.
    pub fn folder(&mut self, path: &[u8], missing: Missing) -> Result<Option<Arc<Folder>>> {
        if path.is_empty() {
            return Ok(Some(self.top.clone()));
        }
        if let Some(folder) = self.cache.get(path) {
            return Ok(Some(folder.clone()));
        }
        let found = match self.straight(path) {
            Some(folder) => Some(Arc::new(folder)),
            None => self.walk(path, missing)?,
        };
        if let Some(folder) = &found {
            if self.cache.len() >= CACHED {
                self.cache.clear();
            }
            self.cache.insert(path.to_vec(), folder.clone());
        }
        Ok(found)
    }

    /// Folders made by [`Root::folder`] since the last call, real paths, parents first.
    pub fn take_made(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.made)
    }

    /// Forgets open folders; to be called when one may have been removed or moved.
    pub fn forget(&mut self) {
        self.cache.clear();
    }

    /// One system call for the usual case: every component is a folder.
    fn straight(&self, path: &[u8]) -> Option<Folder> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let fd = openat2(&self.top, path, FOLDER, Mode::empty(), resolve).ok()?;
        Some(Folder {
            fd,
            path: path.to_vec(),
        })
    }

    /// The careful way, a name at a time.
    fn walk(&mut self, path: &[u8], missing: Missing) -> Result<Option<Arc<Folder>>> {
        let mut trail = vec![self.top.clone()];
        let mut todo = components(path);
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == b".." {
                if trail.len() > 1 {
                    trail.pop();
                }
                continue;
            }
            let here = trail[trail.len() - 1].clone();
            match self.step(&here, &name, missing)? {
                Step::Down(folder) => trail.push(Arc::new(folder)),
                Step::Link(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(bad(path, "too many levels of symbolic links"));
                    }
                    if target.starts_with(b"/") {
                        trail.truncate(1);
                    }
                    todo.extend(components(&target));
                }
                Step::Nothing => return Ok(None),
                Step::File => return Err(bad(path, "a parent of it is not a folder")),
            }
        }
        Ok(trail.pop())
    }

    fn step(&mut self, here: &Folder, name: &[u8], missing: Missing) -> Result<Step> {
        let path = here.join(name);
        let errno = match openat(here, name, FOLDER, Mode::empty()) {
            Ok(fd) => return Ok(Step::Down(Folder { fd, path })),
            Err(errno) => errno,
        };
        match (errno, missing) {
            (Errno::NOENT, Missing::Tell) => Ok(Step::Nothing),
            (Errno::NOENT, Missing::Make) => self.make(here, name).map(Step::Down),
            (Errno::NOTDIR | Errno::LOOP, _) => self.not_a_folder(here, name, missing),
            (Errno::NAMETOOLONG, _) => Err(bad(&path, "name too long")),
            _ => Err(errno).at("open", self.display(&path)),
        }
    }

    /// Something that is no folder stands in the way.
    fn not_a_folder(&mut self, here: &Folder, name: &[u8], missing: Missing) -> Result<Step> {
        let path = self.display(&here.join(name));
        let stat = statat(here, name, AtFlags::SYMLINK_NOFOLLOW).at("stat", &path)?;
        let file_type = FileType::from_raw_mode(stat.st_mode);
        if file_type == FileType::Symlink {
            let target = readlinkat(here, name, Vec::new()).at("readlink", &path)?;
            return Ok(Step::Link(target.into_bytes()));
        }
        let deleted = is_whiteout_at(here.as_fd(), OsStr::from_bytes(name), &stat);
        if !deleted.at("getxattr", &path)? {
            return Ok(match missing {
                Missing::Make => Step::File,
                Missing::Tell => Step::Nothing,
            });
        }
        if missing == Missing::Tell {
            return Ok(Step::Nothing);
        }
        unlinkat(here, name, AtFlags::empty()).at("unlink", &path)?;
        let folder = self.make(here, name)?;
        self.make_opaque(&folder)?;
        Ok(Step::Down(folder))
    }

    fn make(&mut self, here: &Folder, name: &[u8]) -> Result<Folder> {
        let path = here.join(name);
        let shown = self.display(&path);
        mkdirat(here, name, Mode::from_raw_mode(0o700)).at("mkdir", &shown)?;
        let fd = openat(here, name, FOLDER, Mode::empty()).at("open", &shown)?;
        self.made.push(path.clone());
        Ok(Folder { fd, path })
    }

    /// Marks a folder opaque.
    pub fn make_opaque(&self, folder: &Folder) -> Result<()> {
        let path = self.display(&folder.path);
        // An O_PATH descriptor cannot carry an attribute call.
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = openat(folder, ".", flags, Mode::empty()).at("open", &path)?;
        make_opaque(open.as_fd()).at("setxattr", &path)
    }
}

enum Step {
    Down(Folder),
    Link(Vec<u8>),
    Nothing,
    File,
}

/// Makes a path from outside relative and plain: no leading `/`, no `.`, no empty component;
/// `..` takes a component back. Empty is the root.
///
/// Raises:
///     The reason, where `..` leads above the root.
pub fn clean(raw: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut path: Vec<u8> = Vec::with_capacity(raw.len());
    for name in raw.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." if path.is_empty() => return Err("path leads out of the layer"),
            b".." => {
                let cut = path.iter().rposition(|byte| *byte == b'/');
                path.truncate(cut.unwrap_or(0));
            }
            name => {
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(name);
            }
        }
    }
    Ok(path)
}

/// Splits a clean path into its folder and its last name; both are empty for the root.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

/// Joins a clean folder path and a name.
pub fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() {
        return name.to_vec();
    }
    [folder, b"/", name].concat()
}

/// The names of a path, last first, `.` and empty ones left out.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|byte| *byte == b'/')
        .rev()
        .filter(|name| !name.is_empty() && *name != b".")
        .map(<[u8]>::to_vec)
        .collect()
}

fn bad(path: &[u8], reason: &str) -> Error {
    Error::Layer {
        entry: String::from_utf8_lossy(path).into_owned(),
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::attrs::{make_whiteout, read, Mark};
    use std::fs;
    use std::os::unix::fs::symlink;

    fn root() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        let root = Root::open(&dir.path().join("root")).unwrap();
        (dir, root)
    }

    #[test]
    fn cleaning_keeps_a_path_inside() {
        assert_eq!(clean(b"/a//./b/").unwrap(), b"a/b");
        assert_eq!(clean(b"./").unwrap(), b"");
        assert_eq!(clean(b"a/../b").unwrap(), b"b");
        assert_eq!(clean(b"..."), Ok(b"...".to_vec()));
        for hostile in ["..", "/..", "a/../..", "a/../../b", "./../x"] {
            assert!(clean(hostile.as_bytes()).is_err(), "{hostile}");
        }
    }

    #[test]
    fn a_symlinked_parent_stays_inside() {
        let (dir, mut root) = root();
        let top = dir.path().join("root");
        fs::create_dir(dir.path().join("outside")).unwrap();
        symlink(dir.path().join("outside"), top.join("absolute")).unwrap();
        symlink("../../../../outside", top.join("relative")).unwrap();
        for link in ["absolute", "relative"] {
            let folder = root
                .folder(link.as_bytes(), Missing::Make)
                .unwrap()
                .unwrap();
            assert!(folder.path.ends_with(b"outside"));
            mkdirat(&folder, link, Mode::from_raw_mode(0o755)).unwrap();
        }
        assert_eq!(fs::read_dir(dir.path().join("outside")).unwrap().count(), 0);
        assert!(top.join("outside/relative").is_dir());
    }

    #[test]
    fn a_loop_of_symlinks_is_refused() {
        let (dir, mut root) = root();
        symlink("b", dir.path().join("root/a")).unwrap();
        symlink("a", dir.path().join("root/b")).unwrap();
        assert!(matches!(
            root.folder(b"a/x", Missing::Make),
            Err(Error::Layer { .. })
        ));
    }

    #[test]
    fn missing_folders_are_made_and_told_through_links() {
        let (dir, mut root) = root();
        symlink("usr/lib", dir.path().join("root/lib")).unwrap();
        assert!(root.folder(b"lib/x", Missing::Tell).unwrap().is_none());
        let folder = root.folder(b"lib/x", Missing::Make).unwrap().unwrap();
        assert_eq!(folder.path, b"usr/lib/x");
        let made = [&b"usr"[..], b"usr/lib", b"usr/lib/x"];
        assert_eq!(root.take_made(), made);
    }

    #[test]
    fn a_file_is_no_parent() {
        let (dir, mut root) = root();
        fs::write(dir.path().join("root/f"), b"").unwrap();
        assert!(matches!(
            root.folder(b"f/x", Missing::Make),
            Err(Error::Layer { .. })
        ));
        assert!(root.folder(b"f/x", Missing::Tell).unwrap().is_none());
    }

    #[test]
    fn a_whiteout_on_the_way_becomes_an_opaque_folder() {
        let (_dir, mut root) = root();
        make_whiteout(root.top().as_fd(), OsStr::new("a")).unwrap();
        root.folder(b"a/b", Missing::Make).unwrap().unwrap();
        let found = read(root.top().as_fd(), OsStr::new("a")).unwrap().unwrap();
        assert_eq!(found.mark, Mark::Opaque);
    }
}
