//! Folders of cache mounts as chunks, and back. The contract is `_core.pyi`, section `chunks.rs`.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use img_core::{archive, chunks};
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

use crate::layers::stoppable;

/// One chunk of a folder.
#[pyclass(frozen, get_all, module = "img._core")]
struct FolderChunk {
    digest: String,
    size: u64,
    content: String,
    known: bool,
}

/// A folder in chunks.
#[pyclass(frozen, get_all, module = "img._core")]
struct ChunkedFolder {
    chunks: Vec<Py<FolderChunk>>,
    total_bytes: u64,
    entries: u64,
    left_out: Vec<OsString>,
    torn: Vec<OsString>,
}

impl ChunkedFolder {
    fn of(py: Python<'_>, made: chunks::Chunked) -> PyResult<Self> {
        let chunks = made.chunks.into_iter().map(|chunk| {
            let chunk = FolderChunk {
                digest: chunk.digest,
                size: chunk.size,
                content: chunk.content,
                known: chunk.known,
            };
            Py::new(py, chunk)
        });
        let paths = |found: Vec<Vec<u8>>| {
            found
                .into_iter()
                .map(OsString::from_vec)
                .collect::<Vec<_>>()
        };
        Ok(Self {
            chunks: chunks.collect::<PyResult<_>>()?,
            total_bytes: made.total_bytes,
            entries: made.entries,
            left_out: paths(made.left_out),
            torn: paths(made.torn),
        })
    }
}

/// Cuts a folder into chunks, and leaves those that are not known as files.
#[pyfunction]
#[pyo3(signature = (source, spool, *, known))]
fn chunk_folder(
    py: Python<'_>,
    source: PathBuf,
    spool: PathBuf,
    known: HashMap<String, (String, u64)>,
) -> PyResult<ChunkedFolder> {
    let made = stoppable(py, move |stop| {
        chunks::chunk_folder(&source, &spool, &known, None, stop)
    })?;
    ChunkedFolder::of(py, made)
}

/// Writes a folder to a file or a pipe as a `.tar.zst`.
#[pyfunction]
fn stream_folder(py: Python<'_>, source: PathBuf, output: i32) -> PyResult<ChunkedFolder> {
    if output < 0 {
        return Err(PyOSError::new_err((9, "no file descriptor")));
    }
    // SAFETY: the caller keeps the descriptor open for as long as the call lasts.
    let output = unsafe { BorrowedFd::borrow_raw(output) };
    let output = output.try_clone_to_owned()?;
    let made = stoppable(py, move |stop| {
        chunks::stream_folder(&source, &File::from(output), stop)
    })?;
    ChunkedFolder::of(py, made)
}

/// Extracts chunks into a folder.
#[pyfunction]
#[pyo3(signature = (chunks, dest, *, total_bytes))]
fn unpack_chunks(
    py: Python<'_>,
    chunks: Vec<PathBuf>,
    dest: PathBuf,
    total_bytes: u64,
) -> PyResult<Vec<String>> {
    stoppable(py, move |stop| {
        chunks::unpack_chunks(&chunks, &dest, total_bytes, stop)
    })
}

/// Extracts an archive that may be empty; tells whether it is one.
#[pyfunction]
fn unpack_folder(py: Python<'_>, archive: PathBuf, dest: PathBuf) -> PyResult<bool> {
    stoppable(py, move |stop| {
        archive::unpack_folder(&archive, &dest, stop)
    })
}

/// Adds this family to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<FolderChunk>()?;
    module.add_class::<ChunkedFolder>()?;
    module.add_function(wrap_pyfunction!(chunk_folder, module)?)?;
    module.add_function(wrap_pyfunction!(stream_folder, module)?)?;
    module.add_function(wrap_pyfunction!(unpack_chunks, module)?)?;
    module.add_function(wrap_pyfunction!(unpack_folder, module)?)
}
