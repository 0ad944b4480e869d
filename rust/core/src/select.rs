//! [`Selection`]: the files that one COPY or ADD takes out of one tree, in a stable order.
//!
//! The solver makes one per source for the cache key ([`Selection::content_digest`], in `digest`)
//! and hands it to `copy` on a miss. The tree is walked once (`walk`), and what it holds is an
//! [`Inventory`]; a file whose identity the memo knows is never read. Nothing is written here.
//! Source: Dockerfile reference, COPY and ".dockerignore file".

mod digest;
mod learned;
mod listed;
mod notes;
mod walk;

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rustix::fs::{FileType, OFlags, Stat};
use rustix::io::Errno;

use crate::attrs;
use crate::cancel::Cancel;
use crate::entry::Xattr;
use crate::error::{IoContext, Result};
use crate::ignore::{clean, Ignore};
use crate::index::IndexModes;
use crate::inventory::{self, At, Inventory, LeftOut, Look, Tour};
use crate::memo::Stamp;
use crate::source::{in_pattern, join, missing, Named, SourceRoot, IGNORED};

pub use digest::FileXattrs;
pub use learned::{Learned, Learnt};
pub use listed::Listed;
pub use notes::Noting;

use notes::Notes;
use walk::{is_foreign, look, Walk};

/// What a selection is made of.
#[derive(Debug, Default)]
pub struct Request<'a> {
    /// Source words, Go's `filepath.Match` globs.
    pub patterns: &'a [String],
    /// Lines of the ignore file.
    pub ignore: &'a [Vec<u8>],
    /// `--exclude` patterns, relative to each folder that is copied.
    pub exclude: &'a [Vec<u8>],
    /// What is taken keeps the folders that it lies in, from the pivot `/./` on.
    pub parents: bool,
    /// The tree is an archive, unpacked: the folders in it that have no entry of their own.
    pub unpacked: Option<&'a [Vec<u8>]>,
    /// Owners count (a stage's files); otherwise every file is 0:0 (a context's).
    pub owners: bool,
    /// What is left out is remembered, see [`Selection::hidden`].
    pub hidden: bool,
    /// The tree is a work tree of git, and its files have the modes of the index.
    pub modes: Option<Arc<IndexModes>>,
}

/// The files that one COPY or ADD takes out of one tree.
#[derive(Debug)]
pub struct Selection {
    root: SourceRoot,
    owners: bool,
    inventory: Inventory,
    /// Of each file that has several names in one folder that is copied, by slot, the first one;
    /// of that one itself too.
    links: Vec<(u32, At)>,
    unpacked: bool,
    /// Folders that an archive took for granted.
    implied: HashSet<Vec<u8>>,
    ignored: bool,
    /// What lies in the folders and was left out, where it was asked for: each path from the root.
    hidden: Option<LeftOut>,
    foreign: bool,
    modes: Option<Arc<IndexModes>>,
    /// Something has another mode here than on disk.
    altered: bool,
    /// What the patterns named.
    named: Vec<Named>,
    /// What `content_digest` learned of each file.
    known: Mutex<Arc<Learned>>,
    /// What a copy reads, where it goes before `content_digest`.
    notes: Mutex<Option<Arc<Notes>>>,
    /// The extended attributes of files that have some, by slot; as `content_digest` read them.
    file_xattrs: Mutex<Arc<FileXattrs>>,
}

impl Selection {
    /// Walks the tree at `root` for what the patterns name.
    pub fn new(root: &Path, request: &Request<'_>, cancel: &Cancel) -> Result<Self> {
        let mut selection = Self {
            root: SourceRoot::open(root)?,
            owners: request.owners,
            inventory: Inventory::default(),
            links: Vec::new(),
            unpacked: request.unpacked.is_some(),
            implied: request
                .unpacked
                .unwrap_or_default()
                .iter()
                .cloned()
                .collect(),
            ignored: false,
            hidden: request.hidden.then(LeftOut::default),
            foreign: false,
            modes: request.modes.clone(),
            altered: false,
            named: Vec::new(),
            known: Mutex::default(),
            notes: Mutex::default(),
            file_xattrs: Mutex::default(),
        };
        let ignore = Ignore::new(request.ignore)?;
        let exclude = Ignore::new(request.exclude)?;
        for pattern in request.patterns {
            if request.parents {
                selection.add_with_parents(pattern, &ignore, &exclude, cancel)?;
            } else {
                selection.add_pattern(pattern, &ignore, &exclude, cancel)?;
            }
        }
        selection.links.sort_unstable_by_key(|&(slot, _)| slot);
        Ok(selection)
    }

    fn add_pattern(
        &mut self,
        pattern: &str,
        ignore: &Ignore,
        exclude: &Ignore,
        cancel: &Cancel,
    ) -> Result<()> {
        let (named, ignored) = self.root.named(pattern, ignore)?;
        self.ignored |= ignored;
        for source in named {
            // A file that is named is wanted, whatever `--exclude` says.
            if source.is_dir {
                self.add_folder(&source.path, None, ignore, exclude, cancel)?;
            } else {
                self.add_single(&source.path, &source.name)?;
            }
            self.named.push(source);
        }
        Ok(())
    }

    /// Adds what matches behind the pivot of each folder that the words before it name.
    ///
    /// A word without a wildcard must name something; symlinks behind the pivot are not followed.
    fn add_with_parents(
        &mut self,
        pattern: &str,
        ignore: &Ignore,
        exclude: &Ignore,
        cancel: &Cancel,
    ) -> Result<()> {
        let (pivot, rest) = pattern.split_once("/./").unwrap_or(("/", pattern));
        let rest = clean(format!("/{rest}").as_bytes());
        let rest = String::from_utf8_lossy(&rest[1..]).into_owned();
        let include = match rest.as_str() {
            "" => None,
            rest => Some(Ignore::of_path(rest).map_err(|error| in_pattern(pattern, error))?),
        };
        let literal = SourceRoot::literal(&rest)?;
        let folders = self.root.named(pivot, ignore);
        let (folders, ignored) = folders.map_err(|error| in_pattern(pattern, error))?;
        self.ignored |= ignored;
        for folder in folders.into_iter().filter(|folder| folder.is_dir) {
            let count = self.count();
            self.add_folder(&folder.path, include.as_ref(), ignore, exclude, cancel)?;
            if let (Some(literal), true) = (&literal, self.count() == count) {
                let path = join([&folder.path[..], literal]);
                if !self.root.has(&path)? {
                    return Err(missing(pattern, "not found"));
                }
                if ignore.excludes(&path) {
                    return Err(missing(pattern, IGNORED));
                }
            }
            self.named.push(folder);
        }
        Ok(())
    }

    /// Objects, folders included.
    pub fn count(&self) -> usize {
        self.inventory.count()
    }

    /// What the walks found: names, types, times.
    pub fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// All objects, each folder before what is in it.
    pub fn tour(&self) -> Tour<'_> {
        self.inventory.tour()
    }

    /// Its path relative to the root of the tree.
    pub fn path(&self, at: At) -> Vec<u8> {
        let mut path = Vec::new();
        self.inventory.append_path(at, &mut path);
        path
    }

    /// Its path relative to the destination folder; empty for the source folder itself.
    pub fn dest(&self, at: At) -> Vec<u8> {
        let mut path = Vec::new();
        self.inventory.append_dest(at, &mut path);
        path
    }

    /// What it looks like in the image.
    pub fn look(&self, at: At) -> &Look {
        self.inventory.look(at)
    }

    /// The file that an object is one of several names of: its first name.
    ///
    /// Names count that lie in one folder that is copied, however deep. A file that a pattern
    /// names itself has that one name, and so has one whose other names were left out.
    pub fn hard_link(&self, at: At) -> Option<At> {
        if self.links.is_empty() {
            return None;
        }
        let slot = self.inventory.slot(at) as u32;
        let found = self.links.binary_search_by_key(&slot, |&(slot, _)| slot);
        found.ok().map(|place| self.links[place].1)
    }

    /// The tree that the files come from.
    pub fn root(&self) -> &SourceRoot {
        &self.root
    }

    /// Whether the owners are the source's own.
    pub fn owners(&self) -> bool {
        self.owners
    }

    /// True where the files came out of an archive: they replace whatever stands in their way.
    pub fn unpacked(&self) -> bool {
        self.unpacked
    }

    /// True for the path of a folder of an archive that has no entry of its own there.
    pub fn implied(&self, path: &[u8]) -> bool {
        !self.implied.is_empty() && self.implied.contains(path)
    }

    /// True where the ignore file took away something that a pattern named.
    pub fn ignored(&self) -> bool {
        self.ignored
    }

    /// What lies in the folders and was left out, no folder and what is in it both; only where the
    /// request asked for it.
    pub fn hidden(&self) -> &[Vec<u8>] {
        self.hidden.as_ref().map_or(&[], |hidden| &hidden.all)
    }

    /// True where something belongs to another user or group than this namespace's root.
    pub fn foreign(&self) -> bool {
        self.foreign
    }

    /// True where something has another mode here than on disk.
    pub fn altered(&self) -> bool {
        self.altered
    }

    /// What the patterns named, in their order.
    pub fn named(&self) -> &[Named] {
        &self.named
    }

    /// What an image keeps of an open file's extended attributes.
    pub fn xattrs_of(&self, file: impl AsFd, stat: &Stat, path: &[u8]) -> Result<Vec<Xattr>> {
        let attrs =
            attrs::read_known(file.as_fd(), stat).at("getxattr", self.root.on_disk(path))?;
        Ok(attrs.map_or_else(Vec::new, |attrs| attrs.entry.xattrs))
    }

    fn add_single(&mut self, path: &[u8], name: &[u8]) -> Result<()> {
        let stat = self.root.stat(path)?;
        let stat = stat
            .ok_or(Errno::NOENT)
            .at("stat", self.root.on_disk(path))?;
        let file_type = FileType::from_raw_mode(stat.st_mode);
        if file_type == FileType::Socket {
            return Ok(());
        }
        self.foreign |= is_foreign(&stat);
        let mut entry = None;
        if self.owners && file_type == FileType::RegularFile {
            let file = self.root.open_beneath(path, OFlags::RDONLY)?;
            let attrs = attrs::read_open(file.as_fd()).at("stat", self.root.on_disk(path))?;
            entry = attrs.map(|attrs| attrs.entry);
        }
        let mut look = look(&stat, self.owners, entry.as_ref());
        if let Some(modes) = &self.modes {
            let mode = modes.of(path, look.mode);
            self.altered |= mode != look.mode;
            look.mode = mode;
        }
        let found = inventory::Found {
            name,
            look,
            stamp: Stamp::of(&stat),
            seconds: stat.st_mtime,
            ..inventory::Found::default()
        };
        let slash = path.iter().rposition(|&byte| byte == b'/');
        let (folder, own_name) = path.split_at(slash.map_or(0, |at| at + 1));
        let folder = folder.strip_suffix(b"/").unwrap_or(folder);
        let renamed = (own_name != name).then_some(path);
        let added = self.inventory.add_single(folder, renamed, found);
        added.at("read", self.root.on_disk(path))
    }

    /// Adds the contents of a folder; of it itself nothing is kept.
    fn add_folder(
        &mut self,
        source: &[u8],
        include: Option<&Ignore>,
        ignore: &Ignore,
        exclude: &Ignore,
        cancel: &Cancel,
    ) -> Result<()> {
        let walk = Walk {
            root: &self.root,
            owners: self.owners,
            rules: [Some(ignore), Some(exclude), include],
            prefix: source.len() + usize::from(!source.is_empty()),
            hidden: self.hidden.is_some(),
            foreign: AtomicBool::new(false),
            linked: AtomicBool::new(false),
        };
        let walked = walk.run(source, cancel)?;
        self.foreign |= walk.foreign.into_inner();
        let linked = walk.linked.load(Ordering::Relaxed);
        let tops = self.inventory.tops();
        if let Some(hidden) = &mut self.hidden {
            hidden.first = self.inventory.folders() as u32;
            hidden.found = walked.left_out;
        }
        let adopted = self.inventory.adopt(source, walked.folders, walked.parts);
        adopted.at("read", self.root.on_disk(source))?;
        self.inventory.prune(self.hidden.as_mut());
        if let Some(modes) = &self.modes {
            let changed = self
                .inventory
                .change_modes(tops, |path, mode| modes.of(path, mode));
            self.altered |= changed;
        }
        if linked {
            self.find_links(tops);
        }
        Ok(())
    }

    /// Finds the files that have several names among what was added since `tops` were there.
    ///
    /// What may be one depends on no more than the image shows: a file of the source, or anything
    /// out of an archive.
    fn find_links(&mut self, tops: usize) {
        let inventory = &self.inventory;
        let mut linked = Vec::new();
        let mut tour = inventory.tour_from(tops);
        while let Some(at) = tour.next() {
            let may_be = match inventory.look(at).file_type() {
                FileType::RegularFile => true,
                FileType::Directory => false,
                _ => self.unpacked,
            };
            if may_be && inventory.has(at, inventory::LINKED) {
                linked.push(at);
            }
        }
        // Stable: of the names of one file the first stays the first.
        linked.sort_by_key(|&at| inventory.stamp(at));
        for names in linked.chunk_by(|&a, &b| inventory.stamp(a) == inventory.stamp(b)) {
            if let [first, _, ..] = names {
                let slots = names.iter().map(|&at| (inventory.slot(at) as u32, *first));
                self.links.extend(slots);
            }
        }
    }
}

#[cfg(test)]
mod tests;
