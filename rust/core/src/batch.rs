//! [`Workers`]: threads that create small files, a batch at a time.
//!
//! `apply` and `archive` read a stream forward on one thread; creating a file costs more than
//! reading it, so contents are gathered and handed on. The reader alone makes folders and links
//! and alone removes; before it touches a name that may still be in a batch it calls
//! [`Workers::barrier`]. Memory is bounded by the number of batches.

use std::fs::File;
use std::io::{BufRead, Write};
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::Scope;

use crossbeam_channel::{bounded, Receiver, Sender};

use crate::attrs::{create, Writer};
use crate::entry::Entry;
use crate::error::{Error, IoContext, Result};
use crate::root::Folder;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Threads at most. Creation within one folder is serialised by the kernel, and all of it by the
/// file system's journal in the end, so that more gain little.
const THREADS: usize = 6;
const FULL_FILES: usize = 64;
/// Files after which a batch ends with its folder, so that two threads seldom want the same one.
const SOME_FILES: usize = 16;
const FULL_BYTES: usize = 1 << 20;
/// Files up to this size go into batches.
pub const SMALL: u64 = 256 << 10;

/// A file to create.
#[derive(Debug)]
struct Job {
    folder: Arc<Folder>,
    name: Vec<u8>,
    entry: Entry,
    bytes: Range<usize>,
}

/// Files and their contents, one after another.
#[derive(Debug, Default)]
struct Batch {
    number: usize,
    bytes: Vec<u8>,
    jobs: Vec<Job>,
}

/// The reader's end of the threads.
#[derive(Debug)]
pub struct Workers {
    todo: Sender<Batch>,
    done: Receiver<(Batch, Result<()>)>,
    filling: Batch,
    spare: Vec<Batch>,
    /// Hashes of the paths in the batch being filled.
    paths: Vec<u64>,
    /// Those in the batches that were sent and are not yet back, by the batch's number.
    out: Vec<(usize, Vec<u64>)>,
    sent: usize,
    /// Batches in existence at most: one being filled, one in each thread, one waiting for each.
    batches: usize,
}

impl Workers {
    /// Starts the threads. They end when the value is dropped.
    pub fn start<'scope>(scope: &'scope Scope<'scope, '_>, writer: &'scope Writer) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let threads = cores.clamp(2, THREADS);
        let batches = 2 * threads + 1;
        let (todo, take) = bounded::<Batch>(batches);
        let (give, done) = bounded(batches);
        for _ in 0..threads {
            let (take, give) = (take.clone(), give.clone());
            scope.spawn(move || {
                for mut batch in take {
                    let result = batch.write(writer);
                    batch.bytes.clear();
                    batch.jobs.clear();
                    if give.send((batch, result)).is_err() {
                        return;
                    }
                }
            });
        }
        Self {
            todo,
            done,
            filling: Batch::default(),
            spare: Vec::new(),
            paths: Vec::new(),
            out: Vec::new(),
            sent: 0,
            batches,
        }
    }

    /// Tells whether a file may still be in a batch, by the hash of its path.
    pub fn may_hold(&self, path: u64) -> bool {
        self.paths.contains(&path) || self.out.iter().any(|(_, paths)| paths.contains(&path))
    }

    /// Queues a file, reading its content off `source` to its end.
    ///
    /// Args:
    ///     path: Hash of its path, for [`Workers::may_hold`].
    /// Raises:
    ///     Whatever an earlier file met, and what `source` raises.
    pub fn add(
        &mut self,
        folder: Arc<Folder>,
        name: &[u8],
        entry: Entry,
        path: u64,
        source: &mut impl BufRead,
    ) -> std::io::Result<Result<()>> {
        if self.filling.jobs.len() >= SOME_FILES && !self.filling.ends_in(&folder) {
            if let Err(error) = self.flush() {
                return Ok(Err(error));
            }
        }
        let start = self.filling.bytes.len();
        loop {
            let chunk = source.fill_buf()?;
            if chunk.is_empty() {
                break;
            }
            self.filling.bytes.extend_from_slice(chunk);
            let length = chunk.len();
            source.consume(length);
        }
        self.filling.jobs.push(Job {
            folder,
            name: name.to_vec(),
            entry,
            bytes: start..self.filling.bytes.len(),
        });
        self.paths.push(path);
        if self.filling.jobs.len() >= FULL_FILES || self.filling.bytes.len() >= FULL_BYTES {
            return Ok(self.flush());
        }
        Ok(Ok(()))
    }

    /// Waits until every queued file stands.
    pub fn barrier(&mut self) -> Result<()> {
        self.flush()?;
        while !self.out.is_empty() {
            self.take_back()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if self.filling.jobs.is_empty() {
            return Ok(());
        }
        if self.out.len() + 1 >= self.batches {
            self.take_back()?;
        }
        let next = self.spare.pop().unwrap_or_default();
        let mut full = std::mem::replace(&mut self.filling, next);
        self.sent += 1;
        full.number = self.sent;
        self.out.push((self.sent, std::mem::take(&mut self.paths)));
        self.todo.send(full).map_err(|_| Error::Interrupted)
    }

    fn take_back(&mut self) -> Result<()> {
        let (batch, result) = self.done.recv().map_err(|_| Error::Interrupted)?;
        self.out.retain(|(number, _)| *number != batch.number);
        self.spare.push(batch);
        result
    }
}

impl Batch {
    fn ends_in(&self, folder: &Arc<Folder>) -> bool {
        self.jobs
            .last()
            .is_some_and(|job| job.folder.path == folder.path)
    }

    fn write(&mut self, writer: &Writer) -> Result<()> {
        for job in &self.jobs {
            let content = &self.bytes[job.bytes.clone()];
            let mut file = open_new(&job.folder, &job.name, &job.entry)?;
            let path = || OsStr::from_bytes(&job.entry.path);
            file.write_all(content).at("write", path())?;
            writer
                .file(file.as_fd(), &job.entry)
                .at("set attributes of", path())?;
        }
        Ok(())
    }
}

/// Creates the regular file of an entry, where nothing stands.
pub fn open_new(folder: &Folder, name: &[u8], entry: &Entry) -> Result<File> {
    let made = create(
        folder.as_fd(),
        OsStr::from_bytes(name),
        Writer::birth_mode(entry),
    );
    match made {
        Ok(fd) => Ok(File::from(fd)),
        // Duplicates were cleared away by the reader, so the names differ to it.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(Error::Layer {
            entry: String::from_utf8_lossy(&entry.path).into_owned(),
            reason: "this file system takes its name for another entry's".to_owned(),
        }),
        Err(error) => Err(error).at("create", OsStr::from_bytes(&entry.path)),
    }
}
