//! [`pack_layer`]: digests a layer directory (an overlay upper) as a tar, and writes one if asked.
//!
//! The executor's diff: a RUN leaves an upper directory, this walks it once and has `pipeline`
//! read it once. Overlay's marks become OCI whiteouts; hard links become links to the first of
//! their names. The order is that of the names, folder by folder; a whiteout stands where the name
//! it hides would, the opaque marker first in its folder. The folder itself is no entry.
//! Source: OCI image-spec v1.1, layer.md, "Creating" and "Whiteouts".

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufReader, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, RawDir};
use sha2::{Digest as _, Sha256};

use crate::attrs::{self, Attrs, Mark};
use crate::cancel::Cancel;
use crate::compress::{hex, BlobWriter, Options};
use crate::entry::{Entry, Kind, WHITEOUT_OPAQUE, WHITEOUT_PREFIX};
use crate::error::{IoContext, Result};
use crate::explore::{explore, thread_count, Found};
use crate::inflate::sniff;
use crate::pipeline::{digest, Contents, Opened, Packed};
use crate::source::join;
use crate::Error;

/// Bytes of a tar that are read at once.
const PIECE: usize = 256 << 10;

/// What to make of a layer directory.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// File for the tar, and how it is made; None digests only. Who wants a blob knows the layer's
    /// content digest already: it is not made again, and left empty.
    pub blob: Option<(PathBuf, Options)>,
    /// Times later than this, in seconds since the epoch, become this.
    pub clamp_mtime: Option<i64>,
    /// Threads that read; None is a fitting number. The outcome does not depend on it.
    pub threads: Option<usize>,
}

/// Digests the layer directory `source`; the same directory gives the same bytes every time.
pub fn pack_layer(source: &Path, request: &Request, cancel: &Cancel) -> Result<Packed> {
    let threads = request.threads.unwrap_or_else(thread_count);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(source, flags, Mode::empty()).at("open", source)?;
    let layer = Layer {
        root,
        path: source.to_path_buf(),
        content: request.blob.as_ref().map(|_| [0; 32]),
    };
    let nodes = explore(threads, cancel, Vec::new(), |folder, found| {
        layer.visit(&folder, found)
    })?;
    let mut plan = Plan::new(request.clamp_mtime);
    plan.add_folder(
        &[],
        nodes.into_iter().map(Some).collect::<Vec<_>>().as_mut(),
        0,
    );
    let blob = match &request.blob {
        Some((path, options)) => {
            let options = Options {
                threads,
                ..options.clone()
            };
            Some(BlobWriter::create(path, options)?)
        }
        None => None,
    };
    let mut packed = digest(&plan.entries, &layer, blob, threads, cancel)?;
    if request.blob.is_some() {
        packed.content_digest.clear();
    }
    Ok(packed)
}

/// Compresses the tar of a blob anew: a layer that was made elsewhere has a tar that its folder does
/// not give back. Gives what [`pack_layer`] does, but for the entries, which nobody looks at.
pub fn repack_blob(source: &Path, request: &Request, cancel: &Cancel) -> Result<Packed> {
    let file = File::open(source).at("open", source)?;
    let (codec, stream) = sniff(BufReader::with_capacity(PIECE, file)).at("read", source)?;
    let mut tar = codec.reader(stream).at("read", source)?;
    let mut blob = match &request.blob {
        Some((path, options)) => {
            let threads = request.threads.unwrap_or_else(thread_count);
            let options = Options {
                threads,
                ..options.clone()
            };
            Some(BlobWriter::create(path, options)?)
        }
        None => None,
    };
    let mut sum = Sha256::new();
    let mut length = 0;
    let mut piece = vec![0; PIECE];
    loop {
        cancel.check()?;
        let count = tar.read(&mut piece).at("decompress", source)?;
        if count == 0 {
            break;
        }
        sum.update(&piece[..count]);
        length += count as u64;
        if let Some(blob) = &mut blob {
            blob.write(&piece[..count])?;
        }
    }
    let diff_id = format!("sha256:{}", hex(&sum.finalize()));
    let written = blob.map(BlobWriter::finish).transpose()?;
    Ok(Packed {
        uncompressed_size: length,
        content_digest: String::new(),
        entries: 0,
        digest: written
            .as_ref()
            .map(|written| written.digest.clone().unwrap_or_else(|| diff_id.clone())),
        size: written.as_ref().map(|written| written.size),
        reused: written.as_ref().map(|written| written.reused),
        drifted: None,
        diff_id,
    })
}

struct Layer {
    root: OwnedFd,
    path: PathBuf,
    /// What stands for the BLAKE3 of every file's content where nobody asks for it.
    content: Option<[u8; 32]>,
}

/// One folder of the layer.
type Node = Vec<Child>;

struct Child {
    name: Vec<u8>,
    attrs: Attrs,
    /// Index of its own node, for a folder.
    folder: Option<usize>,
}

impl Layer {
    fn on_disk(&self, path: &[u8]) -> PathBuf {
        self.path.join(OsStr::from_bytes(path))
    }

    fn open(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
        let name = if path.is_empty() { b"." } else { path };
        let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.root, name, flags, Mode::empty()).at("open", self.on_disk(path))
    }

    fn visit(&self, folder: &[u8], found: &mut Found<'_, Vec<u8>>) -> Result<Node> {
        let fd = self.open(folder, OFlags::DIRECTORY)?;
        let mut node = Vec::new();
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let mut entries = RawDir::new(&fd, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry.at("read", self.on_disk(folder))?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let path = join([folder, name]);
            let attrs =
                attrs::read(fd.as_fd(), OsStr::from_bytes(name)).at("stat", self.on_disk(&path))?;
            // A socket: no layer can hold one.
            let Some(attrs) = attrs else {
                continue;
            };
            if is_whiteout_name(name) {
                return Err(Error::Layer {
                    entry: String::from_utf8_lossy(&path).into_owned(),
                    reason: "a name that begins with .wh. means a deletion in a layer".to_owned(),
                });
            }
            let is_folder = attrs.entry.kind == Kind::Directory;
            node.push(Child {
                name: name.to_vec(),
                attrs,
                folder: is_folder.then(|| found.folder(path)),
            });
        }
        node.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(node)
    }
}

/// A file that is called like a whiteout would delete something where the layer is unpacked.
pub fn is_whiteout_name(path: &[u8]) -> bool {
    let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    name.starts_with(WHITEOUT_PREFIX)
}

struct Plan {
    entries: Vec<Entry>,
    /// First path of each inode that has several names.
    links: HashMap<(u64, u64), Vec<u8>>,
    clamp_mtime: Option<i64>,
}

impl Plan {
    fn new(clamp_mtime: Option<i64>) -> Self {
        Self {
            entries: Vec::new(),
            links: HashMap::new(),
            clamp_mtime,
        }
    }

    fn add_folder(&mut self, folder: &[u8], nodes: &mut [Option<Node>], id: usize) {
        for child in nodes[id].take().unwrap_or_default() {
            if child.attrs.mark == Mark::Whiteout {
                let name = [WHITEOUT_PREFIX, &child.name].concat();
                self.entries.push(whiteout(join([folder, &name])));
                continue;
            }
            let path = join([folder, &child.name]);
            let opaque = child.attrs.mark == Mark::Opaque;
            self.add(path.clone(), child.attrs);
            if opaque {
                self.entries.push(whiteout(join([&path, WHITEOUT_OPAQUE])));
            }
            if let Some(below) = child.folder {
                self.add_folder(&path, nodes, below);
            }
        }
    }

    fn add(&mut self, path: Vec<u8>, attrs: Attrs) {
        let mut entry = attrs.entry;
        entry.path = path;
        settle_time(&mut entry, self.clamp_mtime);
        if attrs.nlink > 1 && entry.kind != Kind::Directory {
            let inode = (attrs.dev, attrs.ino);
            if let Some(first) = self.links.get(&inode) {
                entry.kind = Kind::Hardlink(first.clone());
                entry.size = 0;
                entry.xattrs.clear();
            } else {
                self.links.insert(inode, entry.path.clone());
            }
        }
        self.entries.push(entry);
    }
}

/// Whole seconds, none later than the clamp.
pub fn settle_time(entry: &mut Entry, clamp: Option<i64>) {
    entry.mtime_nanos = 0;
    entry.mtime = entry.mtime.min(clamp.unwrap_or(i64::MAX));
}

fn whiteout(path: Vec<u8>) -> Entry {
    Entry {
        path,
        kind: Kind::File,
        mode: 0,
        uid: 0,
        gid: 0,
        mtime: 0,
        mtime_nanos: 0,
        size: 0,
        xattrs: Vec::new(),
    }
}

impl Contents for Layer {
    fn open(&self, _index: usize, entry: &Entry) -> Result<Option<Opened>> {
        if entry.size == 0 {
            return Ok(None);
        }
        Ok(Some(Opened {
            file: File::from(Layer::open(self, &entry.path, OFlags::empty())?),
            size: entry.size,
            path: self.on_disk(&entry.path),
            copy_to: None,
            cloned: false,
            known: self.content,
            xattrs: Vec::new(),
        }))
    }

    fn close(&self, _: usize, _: &Entry, _: Opened, _: &[u8; 32]) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
