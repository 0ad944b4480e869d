//! The extension module `img._core`: a narrow door over `img-core`.
//!
//! Each family of calls has a file of its own that registers itself. Every call that may take
//! long releases the interpreter; errors are mapped once, in `door.rs`.

mod blobs;
mod changes;
mod chunks;
mod copies;
mod door;
mod layers;
mod outside;
mod sandbox;

use pyo3::prelude::*;

/// Registers every family of calls.
#[pymodule(gil_used = false)]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    door::register(module)?;
    layers::register(module)?;
    copies::register(module)?;
    blobs::register(module)?;
    changes::register(module)?;
    chunks::register(module)?;
    sandbox::register(module)?;
    outside::register(module)
}
