//! [`extract`]: a tar stream becomes a directory.
//!
//! `blob` calls it for layers, `archive` for ADD; [`Form`] tells the two apart. One thread reads
//! the stream and makes folders, links and devices; small files are created by `batch`'s threads.
//! A layer is extracted without the layers below it: what only they can answer is written beside
//! the folder for `settle`. Nothing lands outside `dest`, which may hold a part of the layer
//! after an error.
//! Source: OCI image-spec v1.1, layer.md, "Applying Changesets".

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::hash::BuildHasher;
use std::io::{BufRead, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use rustix::fs::{linkat, mkdirat, statat, symlinkat, unlinkat, AtFlags, FileType, Mode, Stat};
use rustix::io::Errno;

use crate::attrs::{is_whiteout_at, make_whiteout, Owners, Writer};
use crate::batch::{open_new, Workers, SMALL};
use crate::copy_object::copy_object;
use crate::entry::{Entry, Kind, WHITEOUT_OPAQUE, WHITEOUT_PREFIX};
use crate::error::{Error, IoContext, Result};
use crate::remove::remove_at;
use crate::root::{split, Folder, Missing, Root};
use crate::settle::Pending;
use crate::tar_read::{unwrap_error, Archive, Segment};

/// What the stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A layer: `.wh.` names delete, links may point to layers below.
    Layer,
    /// An archive for ADD or a context: every name is ordinary, every link has its target.
    Archive,
}

/// What one extraction did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Entries, whiteouts not among them.
    pub entries: u64,
    /// Whiteouts and opaque markers.
    pub whiteouts: u64,
    /// Content bytes of regular files.
    pub bytes_written: u64,
    /// True where `settle` has to finish the layer.
    pub pending: bool,
    /// Folders of an archive that have no entry of their own, in no order.
    pub implied: Vec<Vec<u8>>,
}

/// Extracts a tar stream into the folder `dest`.
///
/// Args:
///     source: The uncompressed stream; read to the archive's end, not beyond.
///     dest: Existing folder; empty for a layer.
///     stop: Set by another thread to give up.
/// Returns:
///     The counts, and the source to be drained.
/// Raises:
///     `Error::Layer` for a bad or hostile entry, `Error::Io`, `Error::Interrupted`.
pub fn extract<R: BufRead>(
    source: R,
    dest: &Path,
    form: Form,
    stop: &AtomicBool,
) -> Result<(Counts, R)> {
    let writer = Writer::new(Owners::Keep);
    std::thread::scope(|scope| {
        let mut archive = Archive::new(source);
        let mut work = Extraction::begin(dest, form, &writer, Workers::start(scope, &writer))?;
        while let Some(entry) = archive.next_entry()? {
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            work.entry(entry, &mut archive, stop)?;
        }
        let counts = work.finish(dest)?;
        Ok((counts, archive.into_inner()))
    })
}

/// Paths of which [`Seen`] keeps every hash: most layers have fewer.
const SEEN_FEW: usize = 1 << 17;
/// Bits of [`Seen`] beyond that, a power of two: 8 MiB.
const SEEN_BITS: u64 = 1 << 26;
/// Bits for each path: one path in 100,000 is taken for a duplicate among a million, and then
/// looked at closely, which does no harm.
const SEEN_PROBES: u64 = 4;

/// Paths that were made: certain of what is new, and of bounded size (hashes, then a Bloom filter).
#[derive(Default)]
struct Seen {
    few: HashSet<u64>,
    /// Empty while there are few.
    words: Vec<u64>,
    keys: RandomState,
}

impl Seen {
    fn hash(&self, path: &[u8]) -> u64 {
        self.keys.hash_one(path)
    }

    /// Adds a path by its hash; false where it may have been there.
    fn insert(&mut self, hash: u64) -> bool {
        if !self.words.is_empty() {
            return self.set(hash);
        }
        let new = self.few.insert(hash);
        if self.few.len() > SEEN_FEW {
            self.words = vec![0; (SEEN_BITS / 64) as usize];
            for hash in std::mem::take(&mut self.few) {
                self.set(hash);
            }
        }
        new
    }

    fn set(&mut self, hash: u64) -> bool {
        let step = (hash >> 32) | 1;
        let mut new = false;
        for probe in 0..SEEN_PROBES {
            let bit = hash.wrapping_add(probe.wrapping_mul(step)) % SEEN_BITS;
            let (word, mask) = (&mut self.words[(bit / 64) as usize], 1 << (bit % 64));
            new |= *word & mask == 0;
            *word |= mask;
        }
        new
    }
}

/// The state of one extraction.
struct Extraction<'a> {
    root: Root,
    form: Form,
    writer: &'a Writer,
    workers: Workers,
    /// False where `dest` held something before.
    fresh: bool,
    /// The root folder's attributes as they shall be at the end.
    top: Entry,
    /// The real paths of all that was made.
    seen: Seen,
    /// Attributes of the folders, given them at the end, deepest first: an entry made in a
    /// folder would change its time. None for a folder that has no entry of its own.
    folders: BTreeMap<Vec<u8>, Option<Entry>>,
    /// Hard links whose target is not in this layer.
    links: BTreeMap<Vec<u8>, Vec<u8>>,
    counts: Counts,
}

impl<'a> Extraction<'a> {
    fn begin(dest: &Path, form: Form, writer: &'a Writer, workers: Workers) -> Result<Self> {
        let root = Root::open(dest)?;
        let mut names = std::fs::read_dir(dest).at("read", dest)?;
        let found = crate::attrs::read_open(root.top().as_fd()).at("stat", dest)?;
        let found = found.ok_or(Errno::NOTDIR).at("open", dest)?;
        let top = match form {
            // Most layers have no entry for the root, and the caller's umask is not theirs.
            Form::Layer => implied(writer),
            Form::Archive => found.entry,
        };
        writer.begin(root.top().as_fd()).at("chmod", dest)?;
        Ok(Self {
            root,
            form,
            writer,
            workers,
            fresh: names.next().is_none(),
            top,
            seen: Seen::default(),
            folders: BTreeMap::new(),
            links: BTreeMap::new(),
            counts: Counts::default(),
        })
    }

    fn entry<R: BufRead>(
        &mut self,
        entry: Entry,
        archive: &mut Archive<R>,
        stop: &AtomicBool,
    ) -> Result<()> {
        if entry.path.is_empty() {
            return self.root_entry(entry);
        }
        let path = entry.path.clone();
        let (parent, name) = split(&path);
        if self.form == Form::Layer && name.starts_with(WHITEOUT_PREFIX) {
            self.counts.whiteouts += 1;
            return self.whiteout(parent, name);
        }
        self.counts.entries += 1;
        let folder = self.folder(parent)?;
        match entry.kind {
            Kind::Directory => self.directory(&folder, name, entry),
            Kind::File => self.file(folder, name, entry, archive, stop),
            Kind::Hardlink(ref target) => self.hard_link(&folder, name, target, &path),
            Kind::Symlink(ref target) => {
                self.clear_way(&folder, name)?;
                let shown = self.root.display(&path);
                symlinkat(&target[..], &folder, name).at("symlink", &shown)?;
                let name = OsStr::from_bytes(name);
                self.writer
                    .named(folder.as_fd(), name, &entry)
                    .at("set attributes of", shown)
            }
            _ => {
                self.clear_way(&folder, name)?;
                let made = self
                    .writer
                    .make_node(folder.as_fd(), OsStr::from_bytes(name), &entry);
                made.at("mknod", self.root.display(&path))
            }
        }
    }

    fn root_entry(&mut self, entry: Entry) -> Result<()> {
        if entry.kind != Kind::Directory {
            return Err(layer_error(b"/", "the root is not a folder"));
        }
        self.counts.entries += 1;
        self.top = entry;
        Ok(())
    }

    /// The folder that an entry goes into, made where the archive left it out.
    fn folder(&mut self, path: &[u8]) -> Result<Arc<Folder>> {
        if let Ok(Some(folder)) = self.root.folder(path, Missing::Tell) {
            return Ok(folder);
        }
        // A file that a batch still holds may stand in the way.
        self.workers.barrier()?;
        let found = self.root.folder(path, Missing::Make);
        for made in self.root.take_made() {
            self.seen.insert(self.seen.hash(&made));
            self.folders.insert(made, None);
        }
        found?.ok_or_else(|| layer_error(path, "parent vanished"))
    }

    /// Notes that a name is about to be made; looks at what stands there if anything may.
    fn occupant(&mut self, folder: &Folder, name: &[u8]) -> Result<Option<Stat>> {
        let path = folder.join(name);
        let hash = self.seen.hash(&path);
        if self.seen.insert(hash) && self.fresh {
            return Ok(None);
        }
        if self.workers.may_hold(hash) {
            self.workers.barrier()?;
        }
        self.links.remove(&path);
        match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno).at("stat", self.root.display(&path)),
        }
    }

    /// Removes whatever stands where an entry is to be made: the later one wins.
    fn clear_way(&mut self, folder: &Folder, name: &[u8]) -> Result<()> {
        let Some(stat) = self.occupant(folder, name)? else {
            return Ok(());
        };
        let path = folder.join(name);
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            let removed = unlinkat(folder, name, AtFlags::empty());
            return removed.at("unlink", self.root.display(&path));
        }
        self.workers.barrier()?;
        remove_at(folder.as_fd(), OsStr::from_bytes(name))
            .at("remove", self.root.display(&path))?;
        self.root.forget();
        let mut below = path.clone();
        below.push(b'/');
        self.folders
            .retain(|other, _| *other != path && !other.starts_with(&below));
        self.links.retain(|other, _| !other.starts_with(&below));
        Ok(())
    }

    fn directory(&mut self, folder: &Folder, name: &[u8], mut entry: Entry) -> Result<()> {
        let path = folder.join(name);
        let occupant = self.occupant(folder, name)?;
        let stands = occupant.map(|stat| FileType::from_raw_mode(stat.st_mode));
        let shown = self.root.display(&path);
        let deleted = match &occupant {
            Some(stat) => is_whiteout_at(folder.as_fd(), OsStr::from_bytes(name), stat),
            None => Ok(false),
        };
        let deleted = deleted.at("getxattr", &shown)?;
        if stands != Some(FileType::Directory) {
            if stands.is_some() {
                unlinkat(folder, name, AtFlags::empty()).at("unlink", &shown)?;
            }
            mkdirat(folder, name, Mode::from_raw_mode(0o700)).at("mkdir", &shown)?;
            if deleted {
                self.make_opaque(&path)?;
            }
        }
        entry.path = Vec::new();
        self.folders.insert(path, Some(entry));
        Ok(())
    }

    fn make_opaque(&mut self, path: &[u8]) -> Result<()> {
        let folder = self.folder(path)?;
        self.root.make_opaque(&folder)
    }

    fn file<R: BufRead>(
        &mut self,
        folder: Arc<Folder>,
        name: &[u8],
        entry: Entry,
        archive: &mut Archive<R>,
        stop: &AtomicBool,
    ) -> Result<()> {
        self.clear_way(&folder, name)?;
        self.counts.bytes_written += archive.remaining();
        if archive.segments().is_none() && entry.size <= SMALL {
            let hash = self.seen.hash(&folder.join(name));
            let path = entry.path.clone();
            let place = || String::from_utf8_lossy(&path).into_owned();
            let added = self.workers.add(folder, name, entry, hash, archive);
            return added.map_err(|error| unwrap_error(error, &place()))?;
        }
        let file = open_new(&folder, name, &entry)?;
        let shown = self.root.display(&entry.path);
        match archive.segments().map(<[Segment]>::to_vec) {
            None => stream(archive, &file, &shown, stop)?,
            Some(segments) => write_sparse(archive, &file, &segments, entry.size, &shown, stop)?,
        }
        self.writer
            .file(file.as_fd(), &entry)
            .at("set attributes of", shown)
    }

    fn hard_link(
        &mut self,
        folder: &Folder,
        name: &[u8],
        target: &[u8],
        path: &[u8],
    ) -> Result<()> {
        let (target_parent, target_name) = split(target);
        let stands = self.root.folder(target_parent, Missing::Tell)?;
        if let Some(stands) = &stands {
            if stands.join(target_name) == folder.join(name) {
                return Err(layer_error(path, "hard link to itself"));
            }
            let hash = self.seen.hash(&stands.join(target_name));
            if self.workers.may_hold(hash) {
                self.workers.barrier()?;
            }
        }
        self.clear_way(folder, name)?;
        let Some(stands) = stands.filter(|_| !target_name.is_empty()) else {
            return self.link_below(folder, name, target, path);
        };
        let stat = match statat(&stands, target_name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return self.link_below(folder, name, target, path),
            Err(errno) => return Err(errno).at("stat", self.root.display(target)),
        };
        let file_type = FileType::from_raw_mode(stat.st_mode);
        if file_type == FileType::Directory {
            return Err(layer_error(path, "hard link to a folder"));
        }
        let deleted = is_whiteout_at(stands.as_fd(), OsStr::from_bytes(target_name), &stat);
        if deleted.at("getxattr", self.root.display(target))? {
            return self.link_below(folder, name, target, path);
        }
        let shown = self.root.display(path);
        match linkat(&stands, target_name, folder, name, AtFlags::empty()) {
            // The file system's limit of links to one file: a copy reads the same.
            Err(Errno::MLINK) => {
                let from = OsStr::from_bytes(target_name);
                let to = OsStr::from_bytes(name);
                copy_object(stands.as_fd(), from, folder.as_fd(), to, self.writer).at("copy", shown)
            }
            done => done.at("link", shown),
        }
    }

    /// A hard link whose target this layer does not have.
    fn link_below(
        &mut self,
        folder: &Folder,
        name: &[u8],
        target: &[u8],
        path: &[u8],
    ) -> Result<()> {
        if self.form == Form::Archive || target.is_empty() {
            return Err(layer_error(
                path,
                "hard link to something that is not there",
            ));
        }
        self.links.insert(folder.join(name), target.to_vec());
        Ok(())
    }

    /// Source: OCI image-spec v1.1, layer.md, "Whiteouts". A whiteout says nothing of what its
    /// own layer has, wherever in the archive it stands.
    fn whiteout(&mut self, parent: &[u8], name: &[u8]) -> Result<()> {
        if name == WHITEOUT_OPAQUE {
            let folder = self.folder(parent)?;
            return self.root.make_opaque(&folder);
        }
        let hidden = &name[WHITEOUT_PREFIX.len()..];
        if hidden.starts_with(WHITEOUT_PREFIX) {
            return Ok(()); // AUFS's own bookkeeping
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(layer_error(
                &crate::root::join(parent, name),
                "whiteout of no name",
            ));
        }
        let folder = self.folder(parent)?;
        let path = folder.join(hidden);
        // A link that waits for the layers below stands on no disk yet, but hides as a file does.
        if self.links.contains_key(&path) {
            return Ok(());
        }
        match self.occupant(&folder, hidden)? {
            None => {
                let made = make_whiteout(folder.as_fd(), OsStr::from_bytes(hidden));
                made.at("mknod", self.root.display(&path))
            }
            Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                self.make_opaque(&path)
            }
            Some(_) => Ok(()),
        }
    }

    /// Waits for the files, then gives the folders their attributes.
    fn finish(mut self, dest: &Path) -> Result<Counts> {
        self.workers.barrier()?;
        let mut pending = Pending::default();
        for (path, entry) in std::mem::take(&mut self.folders).into_iter().rev() {
            let (parent, name) = split(&path);
            let folder = self.root.folder(parent, Missing::Tell)?;
            let folder = folder.ok_or_else(|| layer_error(&path, "parent vanished"))?;
            let attributes = entry.clone().unwrap_or_else(|| implied(self.writer));
            let done = self
                .writer
                .named(folder.as_fd(), OsStr::from_bytes(name), &attributes);
            done.at("set attributes of", self.root.display(&path))?;
            if entry.is_none() {
                pending.folders.insert(path);
            }
        }
        let top = self.root.top().clone();
        self.writer
            .folder(top.as_fd(), &self.top)
            .at("set attributes of", dest)?;
        pending.links = std::mem::take(&mut self.links);
        if self.form == Form::Layer && !pending.is_empty() {
            pending.save(dest)?;
            self.counts.pending = true;
        } else {
            self.counts.implied = pending.folders.into_iter().collect();
        }
        Ok(self.counts)
    }
}

/// Attributes of a folder that no entry describes.
fn implied(writer: &Writer) -> Entry {
    let (uid, gid) = writer.ids();
    Entry {
        path: Vec::new(),
        kind: Kind::Directory,
        mode: 0o755,
        uid,
        gid,
        mtime: 0,
        mtime_nanos: 0,
        size: 0,
        xattrs: Vec::new(),
    }
}

/// Writes a large file as it comes.
fn stream<R: BufRead>(
    archive: &mut Archive<R>,
    mut file: &File,
    shown: &Path,
    stop: &AtomicBool,
) -> Result<()> {
    loop {
        let place = || shown.to_string_lossy().into_owned();
        let chunk = archive
            .fill_buf()
            .map_err(|error| unwrap_error(error, &place()))?;
        if chunk.is_empty() {
            return Ok(());
        }
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        file.write_all(chunk).at("write", shown)?;
        let length = chunk.len();
        archive.consume(length);
    }
}

/// Puts the stored pieces of a sparse file where they belong; the rest stays a hole.
fn write_sparse<R: BufRead>(
    archive: &mut Archive<R>,
    file: &File,
    segments: &[Segment],
    size: u64,
    shown: &Path,
    stop: &AtomicBool,
) -> Result<()> {
    let place = shown.to_string_lossy();
    for segment in segments {
        let mut offset = segment.offset;
        let end = segment.offset + segment.length;
        while offset < end {
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            let chunk = archive
                .fill_buf()
                .map_err(|error| unwrap_error(error, &place))?;
            let length = chunk
                .len()
                .min(usize::try_from(end - offset).unwrap_or(usize::MAX));
            if length == 0 {
                return Err(layer_error(place.as_bytes(), "truncated sparse file"));
            }
            file.write_all_at(&chunk[..length], offset)
                .at("write", shown)?;
            archive.consume(length);
            offset += length as u64;
        }
    }
    file.set_len(size).at("truncate", shown)
}

fn layer_error(path: &[u8], reason: &str) -> Error {
    Error::Layer {
        entry: String::from_utf8_lossy(path).into_owned(),
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests;
