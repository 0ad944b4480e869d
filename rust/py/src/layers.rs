//! Layers: blobs in, folders out, trees away. The contract is `_core.pyi`, section `layers.rs`.

#![allow(clippy::needless_pass_by_value)] // arguments out of Python are values of their own

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{channel, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use img_core::attrs::Owners;
use img_core::{archive, blob, flatten as merge, remove, settle, tree};
use img_core::{Error, Result};
use pyo3::prelude::*;

use crate::door::{signals, to_python};

/// How often a long call looks for signals.
const SLICE: Duration = Duration::from_millis(100);

/// What one extraction did.
#[pyclass(frozen, get_all, module = "img._core")]
struct ApplyStats {
    diff_id: String,
    uncompressed_size: u64,
    entries: u64,
    whiteouts: u64,
    bytes_written: u64,
    pending: bool,
}

impl From<blob::ApplyStats> for ApplyStats {
    fn from(stats: blob::ApplyStats) -> Self {
        Self {
            diff_id: stats.diff_id,
            uncompressed_size: stats.uncompressed_size,
            entries: stats.counts.entries,
            whiteouts: stats.counts.whiteouts,
            bytes_written: stats.counts.bytes_written,
            pending: stats.counts.pending,
        }
    }
}

/// Takes one blob's bytes as they arrive.
#[pyclass(frozen, module = "img._core")]
struct BlobSink {
    sink: Mutex<blob::BlobSink>,
}

#[pymethods]
impl BlobSink {
    #[new]
    #[pyo3(signature = (path, *, digest, size, extract_to=None, diff_id=None))]
    fn new(
        py: Python<'_>,
        path: Option<PathBuf>,
        digest: String,
        size: Option<u64>,
        extract_to: Option<PathBuf>,
        diff_id: Option<String>,
    ) -> PyResult<Self> {
        let options = blob::SinkOptions {
            path,
            digest,
            size,
            extract_to,
            diff_id,
        };
        let sink = py.detach(|| blob::BlobSink::open(options));
        let sink = Mutex::new(sink.map_err(|error| to_python(py, error))?);
        Ok(Self { sink })
    }

    /// Bytes taken so far.
    #[getter]
    fn offset(&self, py: Python<'_>) -> u64 {
        py.detach(|| self.lock().offset())
    }

    /// Takes the next bytes.
    fn write(&self, py: Python<'_>, data: &[u8]) -> PyResult<()> {
        polled(py, |poll| self.lock().write(data, poll))
    }

    /// Ends the blob, waits for the threads, publishes the file.
    fn finish(&self, py: Python<'_>) -> PyResult<Option<ApplyStats>> {
        let stats = polled(py, |poll| self.lock().finish(poll))?;
        Ok(stats.map(ApplyStats::from))
    }

    /// Stops the threads and removes the partial blob.
    fn abort(&self, py: Python<'_>) {
        py.detach(|| self.lock().abort());
    }
}

impl BlobSink {
    fn lock(&self) -> std::sync::MutexGuard<'_, blob::BlobSink> {
        self.sink.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs what looks up by itself: its `poll` raises what a signal handler raised.
fn polled<T: Send>(
    py: Python<'_>,
    work: impl FnOnce(&mut dyn FnMut() -> Result<()>) -> Result<T> + Send,
) -> PyResult<T> {
    let mut raised = None;
    let done = py.detach(|| {
        work(&mut || {
            Python::attach(signals).map_err(|error| {
                raised = Some(error);
                Error::Interrupted
            })
        })
    });
    match raised {
        Some(error) => Err(error),
        None => done.map_err(|error| to_python(py, error)),
    }
}

/// Runs what a flag can stop, on a thread of its own, while this one looks for signals.
pub fn stoppable<T: Send>(
    py: Python<'_>,
    work: impl FnOnce(&AtomicBool) -> Result<T> + Send,
) -> PyResult<T> {
    watched(py, None, |stop, _| work(stop))
}

/// The same for work that counts what it did: `told` is called with that as often as signals are looked for.
fn watched<T: Send>(
    py: Python<'_>,
    told: Option<Py<PyAny>>,
    work: impl FnOnce(&AtomicBool, &AtomicU64) -> Result<T> + Send,
) -> PyResult<T> {
    let stop = AtomicBool::new(false);
    let count = AtomicU64::new(0);
    let mut raised = None;
    let done = py.detach(|| {
        std::thread::scope(|scope| {
            let (ended, end) = channel::<()>();
            let (stop, count) = (&stop, &count);
            let worker = scope.spawn(move || {
                // Dropped, also by a panic, it ends the loop below.
                let _ended = ended;
                work(stop, count)
            });
            while end.recv_timeout(SLICE) == Err(RecvTimeoutError::Timeout) {
                let looked = Python::attach(|py| {
                    if let Some(told) = &told {
                        told.call1(py, (count.load(Ordering::Relaxed),))?;
                    }
                    signals(py)
                });
                if let Err(error) = looked {
                    raised = Some(error);
                    stop.store(true, Ordering::Relaxed);
                }
            }
            worker.join()
        })
    });
    match (raised, done) {
        (Some(error), _) => Err(error),
        (None, Ok(result)) => result.map_err(|error| to_python(py, error)),
        (None, Err(panic)) => std::panic::resume_unwind(panic),
    }
}

/// Extracts a stored blob into an empty folder.
#[pyfunction]
#[pyo3(signature = (blob, dest, *, diff_id=None, told=None))]
fn apply_layer(
    py: Python<'_>,
    blob: PathBuf,
    dest: PathBuf,
    diff_id: Option<String>,
    told: Option<Py<PyAny>>,
) -> PyResult<ApplyStats> {
    let stats = watched(py, told, move |stop, count| {
        img_core::blob::apply(&blob, &dest, diff_id.as_deref(), stop, count)
    })?;
    Ok(stats.into())
}

/// Resolves what `ApplyStats.pending` announced.
#[pyfunction]
fn settle_layer(py: Python<'_>, dest: PathBuf, parents: Vec<PathBuf>) -> PyResult<()> {
    let done = py.detach(move || settle::settle(&dest, &parents));
    done.map_err(|error| to_python(py, error))
}

/// Merges layer directories into one plain tree.
#[pyfunction]
#[pyo3(signature = (layers, dest, *, owners=true))]
fn flatten(py: Python<'_>, layers: Vec<PathBuf>, dest: PathBuf, owners: bool) -> PyResult<()> {
    let owners = if owners { Owners::Keep } else { Owners::Drop };
    stoppable(py, move |stop| merge::flatten(&layers, &dest, owners, stop))
}

/// Extracts a plain archive as ADD does, and gives the folders without an entry; None where it is none.
#[pyfunction]
#[pyo3(name = "unpack_archive", signature = (archive, dest, *, told=None))]
fn unpack(
    py: Python<'_>,
    archive: PathBuf,
    dest: PathBuf,
    told: Option<Py<PyAny>>,
) -> PyResult<Option<Vec<OsString>>> {
    let implied = watched(py, told, move |stop, count| {
        archive::unpack_archive(&archive, &dest, stop, count)
    })?;
    Ok(implied.map(|paths| paths.into_iter().map(OsString::from_vec).collect()))
}

/// Removes a tree; gives the bytes of disk that came back.
#[pyfunction]
fn remove_tree(py: Python<'_>, path: PathBuf) -> PyResult<u64> {
    stoppable(py, move |stop| remove::remove_tree(&path, stop))
}

/// Bytes of disk that a tree holds.
#[pyfunction]
fn disk_usage(py: Python<'_>, path: PathBuf) -> PyResult<u64> {
    stoppable(py, move |stop| tree::disk_usage(&path, stop))
}

/// Bytes of disk that each of several trees holds beside those before it.
#[pyfunction]
fn disk_usages(py: Python<'_>, paths: Vec<PathBuf>) -> PyResult<Vec<u64>> {
    stoppable(py, move |stop| tree::disk_usages(&paths, stop))
}

/// Adds this family to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<ApplyStats>()?;
    module.add_class::<BlobSink>()?;
    module.add_function(wrap_pyfunction!(apply_layer, module)?)?;
    module.add_function(wrap_pyfunction!(settle_layer, module)?)?;
    module.add_function(wrap_pyfunction!(flatten, module)?)?;
    module.add_function(wrap_pyfunction!(unpack, module)?)?;
    module.add_function(wrap_pyfunction!(remove_tree, module)?)?;
    module.add_function(wrap_pyfunction!(disk_usages, module)?)?;
    module.add_function(wrap_pyfunction!(disk_usage, module)?)
}
