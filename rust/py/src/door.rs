//! The one place where a core error becomes a class of `img.errors`, with its fields; and the one
//! place where long work learns that it is to stop.

use std::sync::atomic::{AtomicBool, Ordering};

use img_core::Error;
use pyo3::exceptions::{PyKeyboardInterrupt, PyOSError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// Set while every call that is under way in this process is to end.
static STOPPING: AtomicBool = AtomicBool::new(false);

/// Raises what a signal handler raised, or an interrupt while `stop_everything(True)` is in force:
/// Python runs handlers in its main thread alone, while long calls run in others.
pub fn signals(py: Python<'_>) -> PyResult<()> {
    if STOPPING.load(Ordering::Relaxed) {
        return Err(PyKeyboardInterrupt::new_err(()));
    }
    py.check_signals()
}

/// Ends (or no longer ends) every call that looks for signals, whatever thread it is in.
#[pyfunction]
fn stop_everything(stop: bool) {
    STOPPING.store(stop, Ordering::Relaxed);
}

/// Adds this family to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(stop_everything, module)?)
}

/// Builds `img.errors.<class>(**fields)`; an import failure is raised in its place.
fn raise(py: Python<'_>, class: &str, fields: &Bound<'_, PyDict>) -> PyErr {
    let made = py
        .import("img.errors")
        .and_then(|module| module.getattr(class))
        .and_then(|class| class.call((), Some(fields)));
    match made {
        Ok(value) => PyErr::from_value(value),
        Err(error) => error,
    }
}

/// Maps a core error to its Python class.
pub fn to_python(py: Python<'_>, error: Error) -> PyErr {
    let fields = PyDict::new(py);
    let text = error.to_string();
    let result = (|| -> PyResult<PyErr> {
        Ok(match error {
            Error::Io { op, path, source } => {
                let code = source.raw_os_error().unwrap_or(0);
                // 28 is ENOSPC, 122 is EDQUOT, on every Linux architecture that Rust supports
                // besides MIPS and SPARC.
                if code == 28 || code == 122 {
                    fields.set_item("path", path)?;
                    raise(py, "DiskFull", &fields)
                } else {
                    PyOSError::new_err((code, format!("{op}: {source}"), path))
                }
            }
            Error::Digest {
                what,
                expected,
                actual,
            } => {
                fields.set_item("what", what)?;
                fields.set_item("expected", expected)?;
                fields.set_item("actual", actual)?;
                raise(py, "DigestMismatch", &fields)
            }
            Error::Size { expected, actual } => {
                fields.set_item("expected", expected)?;
                fields.set_item("actual", actual)?;
                raise(py, "SizeMismatch", &fields)
            }
            Error::Layer { entry, reason } => {
                fields.set_item("entry", entry)?;
                fields.set_item("reason", reason)?;
                raise(py, "LayerError", &fields)
            }
            Error::Copy {
                path,
                reason,
                not_found,
            } => {
                fields.set_item("path", path)?;
                fields.set_item("reason", reason)?;
                fields.set_item("not_found", not_found)?;
                raise(py, "CopyError", &fields)
            }
            Error::Sandbox { hint, .. } => {
                fields.set_item("missing", text)?;
                fields.set_item("how_to_fix", hint)?;
                raise(py, "SandboxError", &fields)
            }
            Error::Unsupported { feature, place } => {
                fields.set_item("feature", feature)?;
                fields.set_item("where", place)?;
                raise(py, "Unsupported", &fields)
            }
            Error::Interrupted => PyKeyboardInterrupt::new_err(()),
        })
    })();
    result.unwrap_or_else(|error| error)
}
