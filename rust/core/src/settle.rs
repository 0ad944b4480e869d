//! [`settle`]: what a layer's extraction had to leave open, answered by the layers below.
//!
//! A layer is extracted without its parents (DESIGN D4). Two things need them: a hard link whose
//! target is theirs, and a folder that the archive took for granted, which may be a symlink down
//! there. `apply` lists both as a [`Pending`] file beside the layer's folder; few layers have one.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{linkat, renameat_with, statat, unlinkat, AtFlags, FileType, RenameFlags, CWD};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::attrs::{read, Attrs, Mark, Owners, Writer};
use crate::copy_object::copy_object;
use crate::entry::Entry;
use crate::error::{Error, IoContext, Result};
use crate::root::{join, split, Folder, Missing, Root};
use crate::stack::{Found, Stack};
use crate::tree::names_of;

/// Version of the pending file.
const VERSION: u32 = 1;

/// What an extraction left open. Paths are real ones of the layer's folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pending {
    /// Folders that have no entry of their own.
    pub folders: BTreeSet<Vec<u8>>,
    /// Hard links that could not be made: path and target.
    pub links: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Its form on disk: JSON, paths escaped by [`to_text`].
#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    folders: Vec<String>,
    links: Vec<(String, String)>,
}

impl Pending {
    /// The file that belongs to a layer's folder.
    pub fn path_of(dest: &Path) -> PathBuf {
        let mut name = dest.as_os_str().to_os_string();
        name.push(".pending");
        PathBuf::from(name)
    }

    /// True where nothing is open.
    pub fn is_empty(&self) -> bool {
        self.folders.is_empty() && self.links.is_empty()
    }

    /// Writes the file beside `dest`.
    pub fn save(&self, dest: &Path) -> Result<()> {
        let text = |path: &Vec<u8>| to_text(path);
        let document = Document {
            version: VERSION,
            folders: self.folders.iter().map(text).collect(),
            links: self
                .links
                .iter()
                .map(|(path, target)| (text(path), text(target)))
                .collect(),
        };
        let path = Self::path_of(dest);
        let json = serde_json::to_vec(&document)
            .map_err(std::io::Error::from)
            .at("write", &path)?;
        std::fs::write(&path, json).at("write", path)
    }

    /// Reads the file beside `dest`; None where there is none.
    pub fn load(dest: &Path) -> Result<Option<Self>> {
        let path = Self::path_of(dest);
        let json = match std::fs::read(&path) {
            Ok(json) => json,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).at("read", path),
        };
        let broken = |reason: String| Error::Layer {
            entry: path.display().to_string(),
            reason,
        };
        let document: Document =
            serde_json::from_slice(&json).map_err(|error| broken(error.to_string()))?;
        if document.version != VERSION {
            return Err(broken(format!("version {} is not known", document.version)));
        }
        let bytes = |text: &String| {
            let bytes =
                from_text(text).filter(|path| crate::root::clean(path).as_ref() == Ok(path));
            bytes.ok_or_else(|| broken("bad path".to_owned()))
        };
        let links = document.links.iter();
        Ok(Some(Self {
            folders: document.folders.iter().map(bytes).collect::<Result<_>>()?,
            links: links
                .map(|(path, target)| Ok((bytes(path)?, bytes(target)?)))
                .collect::<Result<_>>()?,
        }))
    }
}

/// Settles the layer at `dest` against its parents, base first; nothing pending is no error.
///
/// Raises:
///     `Error::Layer` where a hard link's target is nowhere, or an entry has no place to go.
pub fn settle(dest: &Path, parents: &[PathBuf]) -> Result<()> {
    let Some(pending) = Pending::load(dest)? else {
        return Ok(());
    };
    let mut all = parents.to_vec();
    all.push(dest.to_path_buf());
    let mut work = Settling {
        root: Root::open(dest)?,
        parents: Stack::new(parents.to_vec()),
        merged: Stack::new(all),
        writer: Writer::new(Owners::Keep),
        folders: pending.folders,
        links: pending.links,
        restore: BTreeMap::new(),
    };
    work.folders()?;
    work.links()?;
    work.restore()?;
    let path = Pending::path_of(dest);
    std::fs::remove_file(&path).at("remove", path)
}

struct Settling {
    root: Root,
    parents: Stack,
    /// The parents with this layer on top.
    merged: Stack,
    writer: Writer,
    folders: BTreeSet<Vec<u8>>,
    links: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Folders to be given these attributes at the end, since moving entries changes times.
    restore: BTreeMap<Vec<u8>, Entry>,
}

impl Settling {
    /// Takes the implied folders one by one, parents first.
    fn folders(&mut self) -> Result<()> {
        while let Some(path) = self.folders.pop_first() {
            let Some(found) = self.parents.lookup(as_path(&path))? else {
                continue; // the parents lack it, too: it stays as it was made
            };
            if found.is_symlink() {
                let real = self.resolve(&path)?;
                self.relocate(&path, &real)?;
            } else if found.is_dir() {
                if let Some(below) = read(CWD, found.path.as_os_str()).at("stat", &found.path)? {
                    self.restore.insert(path, below.entry);
                }
            }
        }
        Ok(())
    }

    /// Where the parents' symlinks lead.
    fn resolve(&self, path: &[u8]) -> Result<Vec<u8>> {
        match self.parents.resolve(as_path(path)) {
            Ok(real) => Ok(real.as_os_str().as_bytes().to_vec()),
            Err(Error::Copy { reason, .. }) => Err(layer_error(path, &reason)),
            Err(error) => Err(error),
        }
    }

    /// Moves what is in an implied folder to where the parents' symlink of its name leads.
    fn relocate(&mut self, path: &[u8], real: &[u8]) -> Result<()> {
        let inside = |other: &[u8]| {
            other
                .strip_prefix(path)
                .is_some_and(|rest| rest.starts_with(b"/"))
        };
        if inside(real) || real == path {
            return Err(layer_error(
                path,
                "a symlink of the layers below leads into itself",
            ));
        }
        let target = self.make_folder(real)?;
        let real = target.path.clone();
        self.merge(path, &real)?;
        let (parent, name) = split(path);
        let folder = self.existing(parent)?;
        self.remember(parent)?;
        unlinkat(&folder, name, AtFlags::REMOVEDIR).at("rmdir", self.root.display(path))?;
        self.root.forget();
        let moved = |other: &[u8]| match other.strip_prefix(path) {
            Some(rest) if rest.starts_with(b"/") => [&real, rest].concat(),
            _ => other.to_vec(),
        };
        self.folders = self.folders.iter().map(|other| moved(other)).collect();
        let links = std::mem::take(&mut self.links).into_iter();
        self.links = links
            .map(|(link, target)| (moved(&link), moved(&target)))
            .collect();
        let restore = std::mem::take(&mut self.restore).into_iter();
        self.restore = restore
            .map(|(other, entry)| (moved(&other), entry))
            .collect();
        Ok(())
    }

    /// Moves the entries of one folder into another, folder by folder; what is there stays.
    fn merge(&mut self, from: &[u8], to: &[u8]) -> Result<()> {
        let source = self.existing(from)?;
        let target = self.existing(to)?;
        self.remember(to)?;
        let (parent, name) = split(from);
        if let Some(Attrs {
            mark: Mark::Opaque, ..
        }) = self.attributes(parent, name)?
        {
            self.root.make_opaque(&target)?;
        }
        for name in names_of(source.as_fd()).at("read", self.root.display(from))? {
            let name = name.as_bytes();
            let (old, new) = (join(from, name), join(to, name));
            let flags = RenameFlags::NOREPLACE;
            match renameat_with(&source, name, &target, name, flags) {
                Ok(()) => {}
                Err(Errno::EXIST) => self.collide(&old, &new)?,
                Err(errno) => return Err(errno).at("rename", self.root.display(&old)),
            }
            self.root.forget();
        }
        Ok(())
    }

    /// Both places have an entry of one name: two folders merge, anything else is ambiguous.
    fn collide(&mut self, old: &[u8], new: &[u8]) -> Result<()> {
        if !(self.is_folder(old)? && self.is_folder(new)?) {
            return Err(layer_error(
                old,
                "the layer has it twice, once through a symlink of its parents",
            ));
        }
        // The entry's own description wins over an implied one.
        if self.folders.remove(new) && !self.folders.contains(old) {
            let (parent, name) = split(old);
            if let Some(found) = self.attributes(parent, name)? {
                self.restore.insert(new.to_vec(), found.entry);
            }
        }
        self.merge(old, new)?;
        let (parent, name) = split(old);
        let folder = self.existing(parent)?;
        unlinkat(&folder, name, AtFlags::REMOVEDIR).at("rmdir", self.root.display(old))
    }

    fn is_folder(&mut self, path: &[u8]) -> Result<bool> {
        let (parent, name) = split(path);
        let folder = self.existing(parent)?;
        let stat = statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW);
        let stat = stat.at("stat", self.root.display(path))?;
        Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    }

    /// A folder of the layer, made with the way to it; what is made is pending in its turn.
    fn make_folder(&mut self, path: &[u8]) -> Result<Arc<Folder>> {
        let mut above = path;
        // The folders on the way that exist are about to get a new child.
        while !above.is_empty() {
            above = split(above).0;
            if self.root.folder(above, Missing::Tell)?.is_some() {
                self.remember(above)?;
                break;
            }
        }
        let folder = self.root.folder(path, Missing::Make)?;
        for made in self.root.take_made() {
            let (parent, name) = split(&made);
            let parent = self.existing(parent)?;
            let entry = Entry {
                mode: 0o755,
                ..self.plain_folder()
            };
            let named = self
                .writer
                .named(parent.as_fd(), OsStr::from_bytes(name), &entry);
            named.at("set attributes of", self.root.display(&made))?;
            self.folders.insert(made);
        }
        folder.ok_or_else(|| layer_error(path, "parent vanished"))
    }

    fn plain_folder(&self) -> Entry {
        let (uid, gid) = self.writer.ids();
        Entry {
            path: Vec::new(),
            kind: crate::entry::Kind::Directory,
            mode: 0o755,
            uid,
            gid,
            mtime: 0,
            mtime_nanos: 0,
            size: 0,
            xattrs: Vec::new(),
        }
    }

    fn existing(&mut self, path: &[u8]) -> Result<Arc<Folder>> {
        let folder = self.root.folder(path, Missing::Tell)?;
        folder.ok_or_else(|| layer_error(path, "folder vanished"))
    }

    fn attributes(&mut self, parent: &[u8], name: &[u8]) -> Result<Option<Attrs>> {
        let folder = self.existing(parent)?;
        let found = read(folder.as_fd(), OsStr::from_bytes(name));
        found.at("stat", self.root.display(&join(parent, name)))
    }

    /// Notes a folder's attributes as they were, unless better ones are known.
    fn remember(&mut self, path: &[u8]) -> Result<()> {
        if self.restore.contains_key(path) {
            return Ok(());
        }
        let found = if path.is_empty() {
            let dest = self.root.display(b"");
            read(CWD, dest.as_os_str()).at("stat", &dest)?
        } else {
            let (parent, name) = split(path);
            self.attributes(parent, name)?
        };
        if let Some(found) = found {
            self.restore.insert(path.to_vec(), found.entry);
        }
        Ok(())
    }

    /// Copies in the targets of hard links that the parents hold; links to one target stay one.
    fn links(&mut self) -> Result<()> {
        let mut copied: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
        for (path, target) in std::mem::take(&mut self.links) {
            let found = self.link_target(&path, &target)?;
            let (parent, name) = split(&path);
            let folder = self.make_folder(parent)?;
            self.remember(parent)?;
            let shown = self.root.display(&path);
            if let Some(first) = copied.get(&found.path) {
                let (first_parent, first_name) = split(first);
                let first_folder = self.existing(first_parent)?;
                let linked = linkat(&first_folder, first_name, &folder, name, AtFlags::empty());
                linked.at("link", shown)?;
                continue;
            }
            let made = copy_object(
                CWD,
                found.path.as_os_str(),
                folder.as_fd(),
                OsStr::from_bytes(name),
                &self.writer,
            );
            made.at("copy", shown)?;
            copied.insert(found.path, path);
        }
        Ok(())
    }

    /// The file that a link means: as the layer leaves it, or, where the layer deletes that name
    /// (it was renamed), as the parents have it.
    fn link_target(&self, path: &[u8], target: &[u8]) -> Result<Found> {
        let (parent, name) = split(target);
        for stack in [&self.merged, &self.parents] {
            let folder = match stack.resolve(as_path(parent)) {
                Ok(folder) => folder,
                Err(Error::Copy { .. }) => continue,
                Err(error) => return Err(error),
            };
            match stack.lookup(&folder.join(OsStr::from_bytes(name)))? {
                Some(found) if found.is_dir() => {
                    return Err(layer_error(path, "hard link to a folder"));
                }
                Some(found) => return Ok(found),
                None => {}
            }
        }
        let target = String::from_utf8_lossy(target);
        Err(layer_error(
            path,
            &format!("hard link to {target}, which no layer has"),
        ))
    }

    /// Gives folders their attributes, deepest first.
    fn restore(&mut self) -> Result<()> {
        for (path, entry) in std::mem::take(&mut self.restore).into_iter().rev() {
            let shown = self.root.display(&path);
            let (parent, name) = split(&path);
            let done = if path.is_empty() {
                let top = File::open(&shown).at("open", &shown)?;
                self.writer.folder(top.as_fd(), &entry)
            } else {
                let folder = self.existing(parent)?;
                self.writer
                    .named(folder.as_fd(), OsStr::from_bytes(name), &entry)
            };
            done.at("set attributes of", shown)?;
        }
        Ok(())
    }
}

fn as_path(path: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(path))
}

/// A path as text, without loss: a backslash is doubled, a byte that is no UTF-8 is `\xHH`.
fn to_text(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        text.push_str(&chunk.valid().replace('\\', "\\\\"));
        for byte in chunk.invalid() {
            // Writing to a String does not fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// The reverse of [`to_text`].
fn from_text(text: &str) -> Option<Vec<u8>> {
    let mut path = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'\\' {
            path.push(*byte);
        } else if let Some(after) = rest.strip_prefix(b"\\") {
            path.push(b'\\');
            rest = after;
        } else {
            let digits = rest.strip_prefix(b"x")?.get(..2)?;
            path.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = &rest[3..];
        }
    }
    Some(path)
}

fn layer_error(path: &[u8], reason: &str) -> Error {
    Error::Layer {
        entry: String::from_utf8_lossy(path).into_owned(),
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests;
