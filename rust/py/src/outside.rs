//! Programs of the host, run as the real user: the `outside.rs` part of `_core.pyi`.

#![allow(clippy::needless_pass_by_value)] // arguments arrive from Python as owned values

use std::path::PathBuf;
use std::time::{Duration, Instant};

use img_core::outside::{self, Program};
use pyo3::exceptions::{PyTimeoutError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::door::{signals, to_python};

/// How long a wait may keep a signal's handler from running.
const SLICE: Duration = Duration::from_millis(100);

/// Forks the process outside.
#[pyfunction]
fn start_outside(py: Python<'_>) -> PyResult<()> {
    // The interpreter stays held: a fork is made, and no other thread may exist.
    outside::start().map_err(|error| to_python(py, error))
}

/// Runs a program to its end; a signal's handler that raises, and the end of its time, end it first.
#[pyfunction]
#[pyo3(signature = (argv, *, env, cwd, stdin=Vec::new(), seconds=None))]
fn run_outside(
    py: Python<'_>,
    argv: Vec<String>,
    env: Vec<(String, String)>,
    cwd: PathBuf,
    stdin: Vec<u8>,
    seconds: Option<f64>,
) -> PyResult<(i32, Bound<'_, PyBytes>, Bound<'_, PyBytes>)> {
    let program = Program {
        argv,
        env,
        cwd,
        stdin,
    };
    let until = match seconds.map(Duration::try_from_secs_f64).transpose() {
        Ok(time) => time.and_then(|time| Instant::now().checked_add(time)),
        Err(error) => return Err(PyValueError::new_err(error.to_string())),
    };
    let mut running = py
        .detach(|| outside::run(&program))
        .map_err(|error| to_python(py, error))?;
    loop {
        let ended = py.detach(|| running.wait_slice(SLICE));
        if let Some(outcome) = ended.map_err(|error| to_python(py, error))? {
            let (stdout, stderr) = (&outcome.stdout, &outcome.stderr);
            return Ok((
                outcome.code,
                PyBytes::new(py, stdout),
                PyBytes::new(py, stderr),
            ));
        }
        signals(py)?;
        if until.is_some_and(|until| Instant::now() >= until) {
            return Err(PyTimeoutError::new_err("the program took too long"));
        }
    }
}

/// Adds this family to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(start_outside, module)?)?;
    module.add_function(wrap_pyfunction!(run_outside, module)?)
}
