//! (to be written)

use pyo3::prelude::*;

/// Adds this family to the module.
pub fn register(_module: &Bound<'_, PyModule>) -> PyResult<()> {
    Ok(())
}
