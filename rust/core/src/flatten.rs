//! [`flatten`]: layer directories merged into one plain tree.
//!
//! For exporting a root folder, and for stacks that overlay cannot mount. One thread walks the
//! merged view, makes folders and the little things; files are copied by others. Whiteouts and
//! opaque folders are applied and leave no trace. Hard links within one layer stay hard links.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use crossbeam_channel::{bounded, Receiver, Sender};
use rustix::fs::{linkat, mkdirat, AtFlags, Mode};
use rustix::io::Errno;

use crate::attrs::{read, read_open, Attrs, Mark, Owners, Writer};
use crate::copy_object::copy_read;
use crate::entry::{Entry, Kind};
use crate::error::{Error, IoContext, Result};
use crate::root::{split, Folder, Missing, Root};
use crate::tree::names_of;

/// Files handed to a thread at once.
const BATCH: usize = 64;
const THREADS: usize = 2;

/// Merges layer directories, base first, into the existing empty folder `dest`.
///
/// Args:
///     owners: [`Owners::Drop`] leaves everything to the caller's own id, keeps modes, and skips
///         devices that cannot be made.
///     stop: Set by another thread to give up.
pub fn flatten(layers: &[PathBuf], dest: &Path, owners: Owners, stop: &AtomicBool) -> Result<()> {
    let writer = Writer::new(owners);
    let roots = layers
        .iter()
        .map(|layer| Root::open(layer))
        .collect::<Result<Vec<_>>>()?;
    let target = Root::open(dest)?;
    writer.begin(target.top().as_fd()).at("chmod", dest)?;
    std::thread::scope(|scope| {
        let (todo, take) = bounded::<Vec<Job>>(2 * THREADS);
        let (give, failed) = bounded::<Error>(THREADS);
        for _ in 0..THREADS {
            let (take, give, writer) = (take.clone(), give.clone(), &writer);
            scope.spawn(move || copy_files(&take, &give, writer));
        }
        // The walk must find the channel closed when every thread has failed.
        drop((take, give));
        let merge = Merge {
            layers: roots,
            todo,
            batch: Vec::new(),
            first_links: HashMap::new(),
            made: Made {
                target,
                writer: &writer,
                later_links: Vec::new(),
                folders: BTreeMap::new(),
            },
        };
        let walked = merge.walk(stop);
        // Ends when the threads do; the first failure is the cause of any that follow.
        if let Some(error) = failed.iter().next() {
            return Err(error);
        }
        walked?.finish()
    })
}

/// A file to copy.
struct Job {
    source: Arc<Folder>,
    target: Arc<Folder>,
    name: OsString,
    entry: Entry,
    shown: PathBuf,
}

/// One thread: copies until the walk ends, or something fails.
fn copy_files(take: &Receiver<Vec<Job>>, give: &Sender<Error>, writer: &Writer) {
    for job in take.iter().flatten() {
        let (source, target) = (job.source.as_fd(), job.target.as_fd());
        let copied = copy_read(source, &job.name, target, &job.name, &job.entry, writer);
        if let Err(error) = copied.at("copy", &job.shown) {
            // A channel without a reader means that the walk has failed already.
            let _ = give.send(error);
            return;
        }
    }
}

/// The walk over the merged view.
struct Merge<'a> {
    layers: Vec<Root>,
    todo: Sender<Vec<Job>>,
    batch: Vec<Job>,
    /// The first place of each file that has several links.
    first_links: HashMap<(u64, u64), Vec<u8>>,
    made: Made<'a>,
}

/// What was made so far, and what is to be done when the files stand.
struct Made<'a> {
    target: Root,
    writer: &'a Writer,
    /// Link and the first place of its file.
    later_links: Vec<(Vec<u8>, Vec<u8>)>,
    folders: BTreeMap<Vec<u8>, Entry>,
}

/// A folder of the merged view: its path, and the layers that it has a part in, uppermost first.
struct View {
    path: Vec<u8>,
    layers: Vec<usize>,
}

/// What is known of one name of a folder.
#[derive(Default)]
struct Name {
    /// Layers in which it is a folder, uppermost first.
    layers: Vec<usize>,
    /// True where the layers below have no say.
    closed: bool,
}

impl<'a> Merge<'a> {
    fn walk(mut self, stop: &AtomicBool) -> Result<Made<'a>> {
        let mut waiting: Vec<View> = self.top()?.into_iter().collect();
        while let Some(view) = waiting.pop() {
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            self.folder(&view, &mut waiting)?;
        }
        self.send()?;
        Ok(self.made)
    }

    /// The merged root; its attributes are the uppermost layer's.
    fn top(&mut self) -> Result<Option<View>> {
        let mut layers = Vec::new();
        for (index, root) in self.layers.iter().enumerate().rev() {
            let found = read_open(root.top().as_fd()).at("stat", root.display(b""))?;
            let Some(found) = found else {
                continue;
            };
            if layers.is_empty() {
                self.made.folders.insert(Vec::new(), found.entry);
            }
            layers.push(index);
            if found.mark == Mark::Opaque {
                break;
            }
        }
        let path = Vec::new();
        Ok((!layers.is_empty()).then_some(View { path, layers }))
    }

    /// Merges one folder's children: the uppermost object of a name decides.
    fn folder(&mut self, view: &View, waiting: &mut Vec<View>) -> Result<()> {
        let target = existing(&mut self.made.target, &view.path)?;
        let mut names: BTreeMap<OsString, Name> = BTreeMap::new();
        for &index in &view.layers {
            let source = existing(&mut self.layers[index], &view.path)?;
            let shown = self.layers[index].display(&view.path);
            for name in names_of(source.as_fd()).at("read", &shown)? {
                let known = names.entry(name.clone()).or_default();
                if known.closed {
                    continue;
                }
                let Some(found) = read(source.as_fd(), &name).at("stat", shown.join(&name))? else {
                    continue;
                };
                if found.entry.kind == Kind::Directory {
                    known.closed = found.mark == Mark::Opaque;
                    if known.layers.is_empty() {
                        self.made.folder(&target, &name, found.entry)?;
                    }
                    known.layers.push(index);
                    continue;
                }
                known.closed = true;
                // A file below a folder of the same name is hidden by it.
                if known.layers.is_empty() && found.mark != Mark::Whiteout {
                    self.object(&source, &target, name, found)?;
                }
            }
        }
        let folders = names
            .into_iter()
            .filter(|(_, known)| !known.layers.is_empty());
        waiting.extend(folders.map(|(name, known)| View {
            path: target.join(name.as_bytes()),
            layers: known.layers,
        }));
        Ok(())
    }

    /// Makes anything but a folder, or hands it to the threads.
    fn object(
        &mut self,
        source: &Arc<Folder>,
        target: &Arc<Folder>,
        name: OsString,
        found: Attrs,
    ) -> Result<()> {
        let path = target.join(name.as_bytes());
        if found.nlink > 1 {
            if let Some(first) = self.first_links.get(&(found.dev, found.ino)) {
                self.made.later_links.push((path, first.clone()));
                return Ok(());
            }
            self.first_links
                .insert((found.dev, found.ino), path.clone());
        }
        let shown = self.made.target.display(&path);
        if found.entry.kind != Kind::File {
            let (from, to) = (source.as_fd(), target.as_fd());
            let made = copy_read(from, &name, to, &name, &found.entry, self.made.writer);
            return made.at("copy", shown);
        }
        self.batch.push(Job {
            source: source.clone(),
            target: target.clone(),
            name,
            entry: found.entry,
            shown,
        });
        if self.batch.len() >= BATCH {
            return self.send();
        }
        Ok(())
    }

    fn send(&mut self) -> Result<()> {
        let full = std::mem::take(&mut self.batch);
        // A closed channel: every thread has failed, and one of them says why.
        self.todo.send(full).map_err(|_| Error::Interrupted)
    }
}

impl Made<'_> {
    fn folder(&mut self, target: &Folder, name: &OsStr, entry: Entry) -> Result<()> {
        let path = target.join(name.as_bytes());
        let made = mkdirat(target, name, Mode::from_raw_mode(0o700));
        made.at("mkdir", self.target.display(&path))?;
        self.folders.insert(path, entry);
        Ok(())
    }

    /// Makes the links, then gives the folders their attributes, deepest first.
    fn finish(mut self) -> Result<()> {
        for (path, first) in std::mem::take(&mut self.later_links) {
            let ((from_parent, from), (to_parent, to)) = (split(&first), split(&path));
            let from_folder = existing(&mut self.target, from_parent)?;
            let to_folder = existing(&mut self.target, to_parent)?;
            match linkat(&from_folder, from, &to_folder, to, AtFlags::empty()) {
                // Its first place was a device that could not be made.
                Err(Errno::NOENT) => {}
                done => done.at("link", self.target.display(&path))?,
            }
        }
        for (path, entry) in std::mem::take(&mut self.folders).into_iter().rev() {
            let done = if path.is_empty() {
                self.writer.folder(self.target.top().as_fd(), &entry)
            } else {
                let (parent, name) = split(&path);
                let folder = existing(&mut self.target, parent)?;
                self.writer
                    .named(folder.as_fd(), OsStr::from_bytes(name), &entry)
            };
            done.at("set attributes of", self.target.display(&path))?;
        }
        Ok(())
    }
}

fn existing(root: &mut Root, path: &[u8]) -> Result<Arc<Folder>> {
    let folder = root.folder(path, Missing::Tell)?;
    folder.ok_or(Errno::NOENT).at("open", root.display(path))
}

#[cfg(test)]
mod tests;
