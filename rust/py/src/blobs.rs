//! Blobs of layers: made, and read while they grow. The contract is `_core.pyi`, section `blobs.rs`.

#![allow(clippy::needless_pass_by_value)] // arguments out of Python are values of their own

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use img_core::blocks::Earlier;
use img_core::compress::{Compression, Options};
use img_core::growth::{End, Grown, Growth};
use img_core::{pack, pipeline};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::copies::interruptible;
use crate::door::signals;

/// How long a signal may wait for its handler.
const SLICE: Duration = Duration::from_millis(50);

/// A blob while it is made.
#[pyclass(frozen, module = "img._core")]
struct BlobGrowth(Arc<Growth>);

#[pymethods]
impl BlobGrowth {
    #[new]
    fn new() -> Self {
        Self(Arc::default())
    }

    /// Waits until `count` bytes are there from `offset` on, or the blob has ended.
    fn wait(&self, py: Python<'_>, offset: u64, count: u64) -> PyResult<Option<u64>> {
        loop {
            match py.detach(|| self.0.wait(offset, count, SLICE)) {
                Grown::Bytes(there) => return Ok(Some(there)),
                Grown::Broken => return Ok(None),
                Grown::Later => signals(py)?,
            }
        }
    }

    /// Reads what is there from `offset` on, at most `count` bytes.
    fn read<'py>(
        &self,
        py: Python<'py>,
        offset: u64,
        count: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let mut buffer = vec![0; count];
        let read = py.detach(|| self.0.read(offset, &mut buffer));
        match read {
            Ok(read) => Ok(PyBytes::new(py, &buffer[..read])),
            Err(error) => Err(PyOSError::new_err((
                error.raw_os_error().unwrap_or(0),
                format!("read: {error}"),
            ))),
        }
    }

    /// Bytes of the blob so far, and of the tar in them.
    #[getter]
    fn progress(&self) -> (u64, u64) {
        self.0.progress()
    }

    /// Says that nothing more comes.
    fn give_up(&self) {
        self.0.end(End::Broken);
    }
}

/// A blob that was made of a layer.
#[pyclass(frozen, module = "img._core")]
struct PackedBlob(pipeline::Packed);

#[pymethods]
impl PackedBlob {
    #[getter]
    fn diff_id(&self) -> &str {
        &self.0.diff_id
    }

    #[getter]
    fn digest(&self) -> &str {
        self.0.digest.as_deref().unwrap_or(&self.0.diff_id)
    }

    #[getter]
    fn size(&self) -> u64 {
        self.0.size.unwrap_or_default()
    }

    #[getter]
    fn reused(&self) -> u64 {
        self.0.reused.unwrap_or_default()
    }
}

/// Makes the blob of a layer, out of its directory or another blob of it.
#[pyfunction]
#[pyo3(signature = (source, blob, *, compression, level = None, clamp_mtime = None, index = None,
                    earlier = Vec::new(), growth = None))]
#[allow(clippy::too_many_arguments)] // the contract's keywords, one for one
fn pack_blob(
    py: Python<'_>,
    source: PathBuf,
    blob: PathBuf,
    compression: &str,
    level: Option<i32>,
    clamp_mtime: Option<i64>,
    index: Option<PathBuf>,
    earlier: Vec<(PathBuf, PathBuf)>,
    growth: Option<PyRef<'_, BlobGrowth>>,
) -> PyResult<PackedBlob> {
    let compression = Compression::parse(compression, level).ok_or_else(|| {
        PyValueError::new_err(format!(
            "unknown compression {compression:?} or level {level:?}"
        ))
    })?;
    let growth = growth.map(|growth| Arc::clone(&growth.0));
    let options = Options {
        compression,
        earlier: earlier
            .into_iter()
            .map(|(index, blob)| Earlier { index, blob })
            .collect(),
        index,
        growth: growth.clone(),
        ..Options::default()
    };
    let request = pack::Request {
        blob: Some((blob, options)),
        clamp_mtime,
        threads: None,
    };
    let packed = interruptible(py, move |cancel| {
        if source.is_dir() {
            pack::pack_layer(&source, &request, cancel)
        } else {
            pack::repack_blob(&source, &request, cancel)
        }
    });
    if let (Err(_), Some(growth)) = (&packed, growth) {
        // It may have failed before the blob began.
        growth.end(End::Broken);
    }
    packed.map(PackedBlob)
}

/// The level that is used where none is given, or None where the form has none.
#[pyfunction]
#[pyo3(signature = (compression, level = None))]
fn compression_level(compression: &str, level: Option<i32>) -> PyResult<Option<i32>> {
    match Compression::parse(compression, level) {
        Some(Compression::None) => Ok(None),
        Some(Compression::Gzip(level)) => Ok(Some(level as i32)),
        Some(Compression::Zstd(level)) => Ok(Some(level)),
        None => Err(PyValueError::new_err(format!(
            "unknown compression {compression:?} or level {level:?}"
        ))),
    }
}

/// Adds this family to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<BlobGrowth>()?;
    module.add_class::<PackedBlob>()?;
    module.add_function(wrap_pyfunction!(pack_blob, module)?)?;
    module.add_function(wrap_pyfunction!(compression_level, module)?)
}
