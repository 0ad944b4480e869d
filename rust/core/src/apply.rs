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
use crate::root::{split, Folder, Missing, Root};
use crate::settle::Pending;
use crate::tar_read::{unwrap_error, Archive, Segment};
use crate::tree::remove_at;

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
    /// Hashes of the real paths of all that was made: a duplicate is rare and then looked at
    /// closely, so a collision does no harm.
    seen: HashSet<u64>,
    /// The same, for files that a batch may still hold.
    in_flight: HashSet<u64>,
    keys: RandomState,
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
            seen: HashSet::new(),
            in_flight: HashSet::new(),
            keys: RandomState::new(),
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
        self.barrier()?;
        let found = self.root.folder(path, Missing::Make);
        for made in self.root.take_made() {
            self.seen.insert(self.keys.hash_one(&made));
            self.folders.insert(made, None);
        }
        found?.ok_or_else(|| layer_error(path, "parent vanished"))
    }

    fn barrier(&mut self) -> Result<()> {
        self.workers.barrier()?;
        self.in_flight.clear();
        Ok(())
    }

    /// Notes that a name is about to be made; looks at what stands there if anything may.
    fn occupant(&mut self, folder: &Folder, name: &[u8]) -> Result<Option<Stat>> {
        let path = folder.join(name);
        let new = self.seen.insert(self.keys.hash_one(&path));
        if new && self.fresh {
            return Ok(None);
        }
        if !new {
            self.barrier()?;
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
        self.barrier()?;
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
            self.in_flight.insert(self.keys.hash_one(folder.join(name)));
            let place = String::from_utf8_lossy(&entry.path).into_owned();
            let added = self.workers.add(folder, name, entry, archive);
            return added.map_err(|error| unwrap_error(error, &place))?;
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
            let key = self.keys.hash_one(stands.join(target_name));
            if self.in_flight.contains(&key) {
                self.barrier()?;
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
        self.barrier()?;
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
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::attrs::{read, Attrs, Mark};
    use crate::tar_read::build::{entry, file, folder, header, link, pax, seal, tar};
    use proptest::prelude::*;
    use std::fs;
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    use std::path::PathBuf;

    struct Fixture {
        dir: tempfile::TempDir,
    }

    impl Fixture {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("layer")).unwrap();
            fs::create_dir(dir.path().join("outside")).unwrap();
            Self { dir }
        }

        fn at(&self, path: &str) -> PathBuf {
            self.dir.path().join("layer").join(path)
        }

        fn run(&self, form: Form, entries: &[Vec<u8>]) -> Result<Counts> {
            let stream = tar(entries);
            let stop = AtomicBool::new(false);
            extract(&stream[..], &self.at(""), form, &stop).map(|(counts, _)| counts)
        }

        fn layer(&self, entries: &[Vec<u8>]) -> Counts {
            self.run(Form::Layer, entries).unwrap()
        }

        fn refused(&self, entries: &[Vec<u8>]) -> String {
            match self.run(Form::Layer, entries) {
                Err(error @ Error::Layer { .. }) => error.to_string(),
                other => panic!("{other:?}"),
            }
        }

        fn attrs(&self, path: &str) -> Attrs {
            let path = self.at(path);
            let parent = File::open(path.parent().unwrap()).unwrap();
            read(parent.as_fd(), path.file_name().unwrap())
                .unwrap()
                .unwrap()
        }

        fn text(&self, path: &str) -> String {
            fs::read_to_string(self.at(path)).unwrap()
        }

        fn pending(&self) -> Pending {
            Pending::load(&self.at("")).unwrap().unwrap_or_default()
        }

        fn outside_is_untouched(&self) -> bool {
            fs::read_dir(self.dir.path().join("outside"))
                .unwrap()
                .count()
                == 0
        }
    }

    /// A fresh layer of these entries.
    fn layer(entries: &[Vec<u8>]) -> Fixture {
        let fixture = Fixture::new();
        fixture.layer(entries);
        fixture
    }

    #[test]
    fn a_plain_layer_is_extracted() {
        let large = "0123456789".repeat(100_000);
        let tree = Fixture::new();
        let counts = tree.layer(&[
            folder("d/"),
            file("d/small", "hello"),
            file("d/empty", ""),
            file("d/large", &large),
            link("d/soft", b'2', "small"),
            link("hard", b'1', "d/small"),
        ]);
        assert_eq!(tree.text("d/small"), "hello");
        assert_eq!(tree.text("d/empty"), "");
        assert_eq!(tree.text("d/large"), large);
        assert_eq!(
            fs::read_link(tree.at("d/soft")).unwrap(),
            Path::new("small")
        );
        assert_eq!(tree.attrs("hard").ino, tree.attrs("d/small").ino);
        assert_eq!(
            (counts.entries, counts.whiteouts, counts.pending),
            (6, 0, false)
        );
        assert_eq!(counts.bytes_written, 5 + large.len() as u64);
        for path in ["d", "d/small", "d/large", "d/soft"] {
            assert_eq!(tree.attrs(path).entry.mtime, 1_000, "{path}");
        }
        assert_eq!(tree.attrs("d").entry.mode, 0o644);
        assert_eq!(fs::metadata(tree.at("")).unwrap().mode() & 0o7777, 0o755);
    }

    #[test]
    fn many_small_files_all_arrive() {
        let mut entries = vec![folder("a"), folder("b")];
        for number in 0..1_000 {
            let parent = if number % 3 == 0 { "a" } else { "b" };
            entries.push(file(
                &format!("{parent}/{number}"),
                &format!("content {number}"),
            ));
        }
        let tree = layer(&entries);
        for number in 0..1_000 {
            let parent = if number % 3 == 0 { "a" } else { "b" };
            assert_eq!(
                tree.text(&format!("{parent}/{number}")),
                format!("content {number}")
            );
        }
    }

    #[test]
    fn owners_modes_xattrs_and_nanoseconds_are_kept() {
        let mut head = header(b"f", b'0', 0, b"");
        head[100..108].copy_from_slice(b"0006755\0");
        head[108..116].copy_from_slice(b"0000041\0");
        seal(&mut head);
        let records = [
            ("mtime", &b"7.000000009"[..]),
            ("SCHILY.xattr.user.k", b"v"),
        ];
        let tree = layer(&[pax(&records), head.to_vec()]);
        let found = tree.attrs("f").entry;
        assert_eq!((found.uid, found.mode), (0o41, 0o6755));
        assert_eq!((found.mtime, found.mtime_nanos), (7, 9));
        assert_eq!(found.xattrs, vec![(b"user.k".to_vec(), b"v".to_vec())]);
    }

    #[test]
    fn absolute_names_land_inside() {
        let tree = layer(&[file("/etc/x", "in")]);
        assert_eq!(tree.text("etc/x"), "in");
    }

    #[test]
    fn dotdot_is_refused() {
        assert!(Fixture::new()
            .refused(&[file("../outside/x", "")])
            .contains("out of the layer"));
    }

    #[test]
    fn a_symlinked_parent_outside_is_walked_inside() {
        let tree = Fixture::new();
        let outside = tree.dir.path().join("outside");
        tree.layer(&[
            link("abs", b'2', outside.to_str().unwrap()),
            link("rel", b'2', "../outside"),
            file("abs/x", "x"),
            file("rel/y", "y"),
        ]);
        assert!(tree.outside_is_untouched());
        assert_eq!(tree.text("outside/y"), "y");
    }

    #[test]
    fn a_file_through_a_final_symlink_replaces_the_link() {
        let tree = Fixture::new();
        let target = tree.dir.path().join("outside/x");
        tree.layer(&[
            link("l", b'2', target.to_str().unwrap()),
            file("l", "inside"),
        ]);
        assert!(tree.outside_is_untouched());
        assert_eq!(tree.text("l"), "inside");
    }

    #[test]
    fn a_hard_link_through_a_symlink_stays_inside() {
        let tree = Fixture::new();
        fs::write(tree.dir.path().join("secret"), "secret").unwrap();
        let entries = [link("up", b'2', "../.."), link("x", b'1', "up/secret")];
        assert!(tree.layer(&entries).pending);
        assert!(!tree.at("x").exists());
    }

    #[test]
    fn a_symlinked_parent_of_the_same_layer_is_followed() {
        let tree = layer(&[
            folder("usr/lib"),
            link("lib", b'2', "usr/lib"),
            file("lib/x", "x"),
        ]);
        assert_eq!(tree.text("usr/lib/x"), "x");
        assert!(tree.at("lib").is_symlink());
    }

    #[test]
    fn a_hard_link_to_something_missing_waits_for_the_parents() {
        let tree = Fixture::new();
        let counts = tree.layer(&[link("x", b'1', "bin/y")]);
        assert!(counts.pending);
        assert_eq!(tree.pending().links[&b"x"[..]], b"bin/y");
        let archive = Fixture::new().run(Form::Archive, &[link("x", b'1', "y")]);
        assert!(matches!(archive, Err(Error::Layer { .. })));
    }

    #[test]
    fn hard_links_to_folders_and_to_themselves_are_refused() {
        let entries = [folder("d"), link("x", b'1', "d")];
        assert!(Fixture::new().refused(&entries).contains("folder"));
        let entries = [file("x", ""), link("x", b'1', "x")];
        assert!(Fixture::new().refused(&entries).contains("itself"));
    }

    #[test]
    fn a_parent_that_is_a_file_is_refused() {
        let entries = [file("f", ""), file("f/x", "")];
        assert!(Fixture::new().refused(&entries).contains("not a folder"));
    }

    #[test]
    fn implied_folders_are_made_and_announced() {
        let tree = Fixture::new();
        let counts = tree.layer(&[file("a/b/c", ""), folder("a")]);
        assert!(counts.pending);
        let announced: Vec<_> = tree.pending().folders.into_iter().collect();
        assert_eq!(announced, [b"a/b".to_vec()]);
        assert_eq!(tree.attrs("a/b").entry.mode, 0o755);
    }

    #[test]
    fn later_duplicates_replace_earlier_ones_of_any_type() {
        let tree = layer(&[
            file("x", "first"),
            file("x", "second"),
            folder("d"),
            file("d/in", ""),
            file("d", "now a file"),
            link("d2", b'2', "nowhere"),
            folder("d2"),
            file("d2/in", "in"),
            folder("d3"),
            file("d3/in", "kept"),
            folder("d3"),
            folder("d4/sub"),
            link("d4", b'2', "x"),
        ]);
        assert_eq!(tree.text("x"), "second");
        assert_eq!(tree.text("d"), "now a file");
        assert_eq!(tree.text("d2/in"), "in");
        assert_eq!(tree.text("d3/in"), "kept");
        assert_eq!(tree.text("d4"), "second");
    }

    #[test]
    fn a_duplicate_through_a_symlink_is_seen() {
        let entries = [
            folder("real"),
            link("alias", b'2', "real"),
            file("real/x", "1"),
            file("alias/x", "2"),
        ];
        assert_eq!(layer(&entries).text("real/x"), "2");
    }

    #[test]
    fn whiteouts_become_overlays() {
        let tree = Fixture::new();
        let counts = tree.layer(&[
            folder("d"),
            file("d/.wh.gone", ""),
            file(".wh.never-was", ""),
        ]);
        assert_eq!((counts.entries, counts.whiteouts), (1, 2));
        assert_eq!(tree.attrs("d/gone").mark, Mark::Whiteout);
        assert_eq!(tree.attrs("never-was").mark, Mark::Whiteout);
        assert!(!tree.at("d/.wh.gone").exists());
    }

    #[test]
    fn opaque_markers_become_overlays() {
        let tree = layer(&[folder("d"), file("d/.wh..wh..opq", ""), file("d/new", "x")]);
        assert_eq!(tree.attrs("d").mark, Mark::Opaque);
        assert_eq!(tree.text("d/new"), "x");
    }

    #[test]
    fn a_whiteout_does_not_hide_its_own_layers_entries() {
        for before in [true, false] {
            let whiteouts = [file(".wh.f", ""), file(".wh.d", "")];
            let own = [file("f", "own"), folder("d"), file("d/x", "own")];
            let entries = if before {
                [&whiteouts[..], &own[..]].concat()
            } else {
                [&own[..], &whiteouts[..]].concat()
            };
            let tree = layer(&entries);
            assert_eq!(tree.text("f"), "own");
            assert_eq!(tree.text("d/x"), "own");
            assert_eq!(tree.attrs("d").mark, Mark::Opaque);
        }
    }

    #[test]
    fn whiteouts_of_no_name_are_refused() {
        for name in [".wh.", ".wh..", ".wh...", "d/.wh..."] {
            assert!(
                Fixture::new()
                    .refused(&[file(name, "")])
                    .contains("no name"),
                "{name}"
            );
        }
        assert_eq!(
            fs::read_dir(layer(&[file(".wh..wh.plnk", "")]).at(""))
                .unwrap()
                .count(),
            0
        );
    }

    #[test]
    fn whiteout_names_are_ordinary_in_an_archive() {
        let tree = Fixture::new();
        tree.run(Form::Archive, &[file(".wh.x", "kept")]).unwrap();
        assert_eq!(tree.text(".wh.x"), "kept");
    }

    #[test]
    fn devices_and_pipes_are_made_or_recorded() {
        let mut null = header(b"null", b'3', 0, b"");
        null[329..337].copy_from_slice(b"0000001\0");
        null[337..345].copy_from_slice(b"0000003\0");
        seal(&mut null);
        let tree = layer(&[
            null.to_vec(),
            entry("pipe", b'6', b""),
            entry("zero", b'3', b""),
        ]);
        assert_eq!(
            tree.attrs("null").entry.kind,
            Kind::CharDevice { major: 1, minor: 3 }
        );
        assert!(fs::symlink_metadata(tree.at("pipe"))
            .unwrap()
            .file_type()
            .is_fifo());
        assert_eq!(tree.attrs("zero").mark, Mark::Plain);
        assert_eq!(
            tree.attrs("zero").entry.kind,
            Kind::CharDevice { major: 0, minor: 0 }
        );
    }

    #[test]
    fn a_sparse_file_keeps_its_holes() {
        let records = [
            ("GNU.sparse.size", &b"50000000"[..]),
            ("GNU.sparse.map", b"10000000,3,20000000,3,50000000,0"),
        ];
        let tree = layer(&[pax(&records), file("s", "abcdef")]);
        let content = fs::read(tree.at("s")).unwrap();
        assert_eq!(content.len(), 50_000_000);
        assert_eq!(&content[10_000_000..10_000_003], b"abc");
        assert_eq!(&content[20_000_000..20_000_003], b"def");
        assert!(tree.attrs("s").entry.size == 50_000_000);
        assert!(fs::metadata(tree.at("s")).unwrap().blocks() < 100);
    }

    #[test]
    fn the_roots_own_entry_gives_it_attributes() {
        let mut head = header(b"./", b'5', 0, b"");
        head[100..108].copy_from_slice(b"0000555\0");
        seal(&mut head);
        let tree = layer(&[head.to_vec(), file("x", "")]);
        let found = fs::metadata(tree.at("")).unwrap();
        assert_eq!((found.mode() & 0o7777, found.mtime()), (0o555, 1_000));
        assert!(Fixture::new().refused(&[file(".", "x")]).contains("root"));
    }

    #[test]
    fn a_set_group_id_folder_passes_nothing_on() {
        let mut head = header(b"d", b'5', 0, b"");
        head[100..108].copy_from_slice(b"0002775\0");
        head[116..124].copy_from_slice(b"0000062\0");
        seal(&mut head);
        let tree = layer(&[head.to_vec(), file("d/x", ""), folder("d/y")]);
        let own = rustix::process::getegid().as_raw();
        assert_eq!(tree.attrs("d").entry.gid, 0o62);
        assert_eq!(tree.attrs("d/x").entry.gid, own);
        assert_eq!(tree.attrs("d/y").entry.mode, 0o644);
    }

    #[test]
    fn an_archive_may_go_over_what_is_there() {
        let tree = Fixture::new();
        fs::write(tree.at("x"), "old").unwrap();
        fs::create_dir(tree.at("d")).unwrap();
        fs::write(tree.at("d/kept"), "old").unwrap();
        let before = fs::metadata(tree.at("")).unwrap().mode();
        tree.run(Form::Archive, &[file("x", "new"), file("d/x", "new")])
            .unwrap();
        assert_eq!(
            (tree.text("x"), tree.text("d/x")),
            ("new".into(), "new".into())
        );
        assert_eq!(tree.text("d/kept"), "old");
        assert_eq!(fs::metadata(tree.at("")).unwrap().mode(), before);
    }

    #[test]
    fn an_extraction_can_be_stopped() {
        let tree = Fixture::new();
        let stream = tar(&[file("x", "")]);
        let stop = AtomicBool::new(true);
        let stopped = extract(&stream[..], &tree.at(""), Form::Layer, &stop);
        assert!(matches!(stopped, Err(Error::Interrupted)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_order_of_hostile_entries_stays_inside(
            picks in proptest::collection::vec((0_usize..7, 0_usize..6, 0_usize..6), 1..24),
        ) {
            let names = ["a", "a/b", "b", "b/../c", "a/b/c", "c/d"];
            let targets = ["../..", "/outside", "b", "a/b", "../outside", "."];
            let entries: Vec<_> = picks.into_iter().map(|(what, name, target)| match what {
                0 => file(names[name], "x"),
                1 => folder(names[name]),
                2 => link(names[name], b'2', targets[target]),
                3 => link(names[name], b'1', names[target]),
                4 => file(&format!("{}/.wh.x", names[name]), ""),
                5 => file(&format!("{}/.wh..wh..opq", names[name]), ""),
                _ => entry(names[name], b'6', b""),
            }).collect();
            let tree = Fixture::new();
            let done = tree.run(Form::Layer, &entries);
            prop_assert!(matches!(done, Ok(_) | Err(Error::Layer { .. })), "{done:?}");
            prop_assert!(tree.outside_is_untouched());
        }
    }
}
