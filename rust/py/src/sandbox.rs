//! Namespaces, mounts and containers: the `sandbox.rs` part of `_core.pyi`.

#![allow(clippy::needless_pass_by_value)] // arguments arrive from Python as owned values

use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use img_core::{idmap, lock, mounts, sandbox, seccomp};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::door::{signals, to_python};

/// How long a wait may keep a signal's handler from running.
const SLICE: Duration = Duration::from_millis(100);

/// What this process runs as, once `enter_namespace` returned.
#[pyclass(frozen, get_all, module = "img._core")]
struct Namespace {
    kind: &'static str,
    uid_map: Vec<(u32, u32, u32)>,
    gid_map: Vec<(u32, u32, u32)>,
    reason: String,
}

/// Makes this process root over its own ids, with private mounts.
#[pyfunction]
#[pyo3(signature = (*, single=false))]
fn enter_namespace(py: Python<'_>, single: bool) -> PyResult<Namespace> {
    // The interpreter stays held: forks are made, and no other thread may exist.
    let entered = idmap::enter(single).map_err(|error| to_python(py, error))?;
    Ok(Namespace {
        kind: entered.kind.as_str(),
        uid_map: entered.uid_map,
        gid_map: entered.gid_map,
        reason: entered.reason,
    })
}

/// Mounts layer directories, base first, at `target`; read-only without `upper`.
#[pyfunction]
#[pyo3(signature = (target, *, lowers, upper=None, work=None))]
fn mount_overlay(
    py: Python<'_>,
    target: PathBuf,
    lowers: Vec<PathBuf>,
    upper: Option<PathBuf>,
    work: Option<PathBuf>,
) -> PyResult<()> {
    let writable = match (&upper, &work) {
        (Some(upper), Some(work)) => Some((upper.as_path(), work.as_path())),
        (None, None) => None,
        _ => return Err(PyValueError::new_err("upper and work come together")),
    };
    py.detach(|| mounts::mount_overlay(&target, &lowers, writable))
        .map_err(|error| to_python(py, error))
}

/// Mounts an empty folder that lives in memory alone.
#[pyfunction]
fn mount_memory(py: Python<'_>, target: PathBuf) -> PyResult<()> {
    py.detach(|| mounts::mount_memory(&target))
        .map_err(|error| to_python(py, error))
}

/// Waits for a file lock that another holds; a signal's handler that raises ends the wait.
#[pyfunction]
#[pyo3(signature = (file, *, shared=false, at_most_seconds=None))]
fn wait_for_lock(
    py: Python<'_>,
    file: i32,
    shared: bool,
    at_most_seconds: Option<f64>,
) -> PyResult<bool> {
    if file < 0 {
        return Err(PyValueError::new_err("file is not a file descriptor"));
    }
    let end = match at_most_seconds.map(Duration::try_from_secs_f64) {
        None => None,
        Some(Ok(length)) => Instant::now().checked_add(length),
        Some(Err(error)) => return Err(PyValueError::new_err(error.to_string())),
    };
    // SAFETY: the caller's descriptor, which it keeps open for the length of this call; a closed one
    // is answered with EBADF.
    let file = unsafe { BorrowedFd::borrow_raw(file) };
    loop {
        // A wait inside the kernel could not be ended from another thread, so it is asked again.
        if py.detach(|| lock::attempt(file, shared))? {
            return Ok(true);
        }
        signals(py)?;
        if end.is_some_and(|end| Instant::now() >= end) {
            return Ok(false);
        }
        py.detach(|| std::thread::sleep(lock::PAUSE));
    }
}

/// Detaches a mount and all below it.
#[pyfunction]
fn unmount(py: Python<'_>, target: PathBuf) -> PyResult<()> {
    py.detach(|| mounts::unmount(&target))
        .map_err(|error| to_python(py, error))
}

/// One container of the build.
#[pyclass(frozen, module = "img._core")]
struct Container {
    inner: sandbox::Container,
}

#[pymethods]
impl Container {
    #[getter]
    fn pid(&self) -> i32 {
        self.inner.pid()
    }

    /// Waits for its end; a signal's handler that raises kills the container first.
    fn wait(&self, py: Python<'_>) -> PyResult<i32> {
        loop {
            let ended = py.detach(|| self.inner.wait_slice(SLICE));
            if let Some(code) = ended.map_err(|error| to_python(py, error))? {
                return Ok(code);
            }
            if let Err(raised) = signals(py) {
                self.inner.kill();
                py.detach(|| self.inner.wait())
                    .map_err(|error| to_python(py, error))?;
                return Err(raised);
            }
        }
    }

    /// Ends every process of it at once.
    fn kill(&self) {
        self.inner.kill();
    }
}

/// Starts a container from runtime-spec JSON.
#[pyfunction]
#[pyo3(signature = (spec, *, output))]
fn spawn(py: Python<'_>, spec: &str, output: i32) -> PyResult<Container> {
    if output < 0 {
        return Err(PyValueError::new_err("output is not a file descriptor"));
    }
    // SAFETY: the caller's descriptor; it is only duplicated into the sandbox process, within this
    // call, and a closed one is answered with EBADF.
    let output = unsafe { BorrowedFd::borrow_raw(output) };
    py.detach(|| sandbox::spawn(spec, output))
        .map(|inner| Container { inner })
        .map_err(|error| to_python(py, error))
}

/// The default system-call list as runtime-spec JSON.
#[pyfunction]
#[pyo3(signature = (*, emulate_owners=false))]
fn default_seccomp(emulate_owners: bool) -> String {
    seccomp::default_json(emulate_owners)
}

/// Adds this family to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Namespace>()?;
    module.add_class::<Container>()?;
    module.add_function(wrap_pyfunction!(enter_namespace, module)?)?;
    module.add_function(wrap_pyfunction!(mount_overlay, module)?)?;
    module.add_function(wrap_pyfunction!(mount_memory, module)?)?;
    module.add_function(wrap_pyfunction!(unmount, module)?)?;
    module.add_function(wrap_pyfunction!(wait_for_lock, module)?)?;
    module.add_function(wrap_pyfunction!(spawn, module)?)?;
    module.add_function(wrap_pyfunction!(default_seccomp, module)?)
}
