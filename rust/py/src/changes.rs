//! `TreeRecord`: a flattened tree, and what was changed in it since.

use std::path::PathBuf;
use std::sync::Arc;

use img_core::changes;
use pyo3::prelude::*;

use crate::copies::interruptible;

/// A plain tree as it stood.
#[pyclass(frozen, module = "img._core")]
struct TreeRecord {
    before: Arc<changes::Before>,
}

#[pymethods]
impl TreeRecord {
    #[new]
    fn new(py: Python<'_>, root: PathBuf) -> PyResult<Self> {
        let before = interruptible(py, move |cancel| changes::Before::record(&root, cancel))?;
        Ok(Self {
            before: Arc::new(before),
        })
    }

    /// Moves what was changed into an upper folder.
    #[pyo3(signature = (layers, upper))]
    fn changes(&self, py: Python<'_>, layers: Vec<PathBuf>, upper: PathBuf) -> PyResult<()> {
        let before = self.before.clone();
        interruptible(py, move |cancel| before.changes(&layers, &upper, cancel))
    }
}

/// Adds this family to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<TreeRecord>()
}
