//! The door's family for copies: `DigestMemo`, `Selection`, `ignores`, listings, `copy_layer`,
//! `make_directory`, `read_in_layers`, and `pack_layer`. What they do is in `img_core`; here arguments are taken
//! over, the interpreter is released, and signals are looked at in slices.

#![allow(clippy::needless_pass_by_value)] // arguments out of Python are values of their own

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{channel, RecvTimeoutError};
use std::sync::Arc;
use std::time::Duration;

use img_core::cancel::Cancel;
use img_core::memo;
use img_core::pipeline;
use img_core::{chmod, copy, ignore, index, listing, pack, select, stack, Error};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::door::{signals, to_python};

/// How long a signal may wait for its handler.
const SLICE: Duration = Duration::from_millis(50);

/// Runs `work` on a thread of its own while this one looks after signals.
///
/// A handler that raises (Ctrl-C) stops the work; the work has ended when this returns.
pub fn interruptible<T: Send + 'static>(
    py: Python<'_>,
    work: impl FnOnce(&Cancel) -> Result<T, Error> + Send + 'static,
) -> PyResult<T> {
    let cancel = Cancel::default();
    let (sender, receiver) = channel();
    let thread = std::thread::spawn({
        let cancel = cancel.clone();
        move || {
            // The other side waits for this thread's end, so it is always there.
            let _ = sender.send(work(&cancel));
        }
    });
    let mut raised = None;
    let receiver = std::sync::Mutex::new(receiver);
    let outcome = loop {
        let next = py.detach(|| match receiver.lock() {
            Ok(receiver) => receiver.recv_timeout(SLICE),
            Err(_) => Err(RecvTimeoutError::Disconnected),
        });
        match next {
            Err(RecvTimeoutError::Timeout) => {
                if let (None, Err(error)) = (&raised, signals(py)) {
                    raised = Some(error);
                    cancel.stop();
                }
            }
            Ok(outcome) => break Some(outcome),
            Err(RecvTimeoutError::Disconnected) => break None,
        }
    };
    if let Err(panic) = py.detach(|| thread.join()) {
        std::panic::resume_unwind(panic);
    }
    match (raised, outcome) {
        (Some(error), _) => Err(error),
        (None, Some(outcome)) => outcome.map_err(|error| to_python(py, error)),
        (None, None) => Err(to_python(py, Error::Interrupted)),
    }
}

/// A layer made from a folder.
#[pyclass(frozen, module = "img._core")]
pub struct Packed(pipeline::Packed);

#[pymethods]
impl Packed {
    #[getter]
    fn diff_id(&self) -> &str {
        &self.0.diff_id
    }

    #[getter]
    fn uncompressed_size(&self) -> u64 {
        self.0.uncompressed_size
    }

    #[getter]
    fn content_digest(&self) -> &str {
        &self.0.content_digest
    }

    #[getter]
    fn entries(&self) -> u64 {
        self.0.entries
    }

    #[getter]
    fn drifted(&self) -> Option<&str> {
        self.0.drifted.as_deref()
    }

    #[getter]
    fn damaged(&self) -> Option<&str> {
        self.0.damaged.as_deref()
    }

    fn __repr__(&self) -> String {
        format!("<Packed {} entries={}>", self.0.diff_id, self.0.entries)
    }
}

/// File digests remembered by device, inode, size, mtime and ctime across builds.
#[pyclass(frozen, module = "img._core")]
pub struct DigestMemo(Arc<memo::DigestMemo>);

#[pymethods]
impl DigestMemo {
    #[new]
    fn new(py: Python<'_>, path: PathBuf) -> Self {
        Self(Arc::new(py.detach(|| memo::DigestMemo::open(&path))))
    }

    fn save(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.0.save())
            .map_err(|error| to_python(py, error))
    }
}

/// One file of a selection.
#[pyclass(frozen, get_all, module = "img._core")]
pub struct Selected {
    path: String,
    size: u64,
    mode: u32,
    digest: String,
}

/// The files that one COPY or ADD takes out of one tree, in a stable order.
#[pyclass(frozen, module = "img._core")]
pub struct Selection(Arc<select::Selection>);

#[pymethods]
impl Selection {
    #[new]
    #[pyo3(signature = (root, patterns, *, ignore = vec![], exclude = vec![], owners = false,
                        parents = false, unpacked = None, hidden = false, modes = None))]
    #[allow(clippy::too_many_arguments)] // the contract's keywords, one for one
    #[allow(clippy::fn_params_excessive_bools)]
    fn new(
        py: Python<'_>,
        root: PathBuf,
        patterns: Vec<String>,
        ignore: Vec<OsString>,
        exclude: Vec<OsString>,
        owners: bool,
        parents: bool,
        unpacked: Option<Vec<OsString>>,
        hidden: bool,
        modes: Option<PyRef<'_, IndexModes>>,
    ) -> PyResult<Self> {
        let modes = modes.map(|modes| Arc::clone(&modes.0));
        let (ignore, exclude) = (bytes(ignore), bytes(exclude));
        let unpacked = unpacked.map(bytes);
        let selection = interruptible(py, move |cancel| {
            let request = select::Request {
                patterns: &patterns,
                ignore: &ignore,
                exclude: &exclude,
                owners,
                parents,
                unpacked: unpacked.as_deref(),
                hidden,
                modes,
            };
            select::Selection::new(&root, &request, cancel)
        })?;
        Ok(Self(Arc::new(selection)))
    }

    #[getter]
    fn count(&self) -> usize {
        self.0.count()
    }

    #[getter]
    fn total_bytes(&self) -> u64 {
        self.0.total_bytes()
    }

    #[getter]
    fn ignored(&self) -> bool {
        self.0.ignored()
    }

    #[getter]
    fn foreign(&self) -> bool {
        self.0.foreign()
    }

    #[getter]
    fn altered(&self) -> bool {
        self.0.altered()
    }

    fn hidden(&self) -> Vec<OsString> {
        let hidden = self.0.hidden().iter();
        hidden
            .map(|path| OsString::from_vec(path.clone()))
            .collect()
    }

    fn sources(&self) -> Vec<(OsString, OsString, bool)> {
        let text = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        let named = self.0.named().iter();
        named
            .map(|named| (text(&named.path), text(&named.matched), named.is_dir))
            .collect()
    }

    #[pyo3(signature = (memo = None))]
    fn recall(&self, py: Python<'_>, memo: Option<&DigestMemo>) -> PyResult<()> {
        let memo = memo.map(|memo| Arc::clone(&memo.0));
        py.detach(|| self.0.recall(memo.as_deref()))
            .map_err(|error| to_python(py, error))
    }

    #[pyo3(signature = (memo = None))]
    fn content_digest(&self, py: Python<'_>, memo: Option<&DigestMemo>) -> PyResult<String> {
        let memo = memo.map(|memo| Arc::clone(&memo.0));
        let selection = Arc::clone(&self.0);
        interruptible(py, move |cancel| {
            selection.content_digest(memo.as_deref(), cancel)
        })
    }

    fn file_paths(&self) -> Vec<String> {
        self.0.file_paths()
    }

    fn files(&self, py: Python<'_>) -> PyResult<Vec<Selected>> {
        let selection = Arc::clone(&self.0);
        let listed = interruptible(py, move |cancel| selection.listed(cancel))?;
        Ok(listed
            .into_iter()
            .map(|file| Selected {
                path: file.path,
                size: file.size,
                mode: file.mode,
                digest: file.digest,
            })
            .collect())
    }
}

/// The modes that git's index gives the files of a work tree.
#[pyclass(frozen, module = "img._core")]
pub struct IndexModes(Arc<index::IndexModes>);

#[pymethods]
impl IndexModes {
    #[new]
    fn new(py: Python<'_>, listing: &[u8]) -> PyResult<Self> {
        py.detach(|| index::IndexModes::parse(listing))
            .map(|modes| Self(Arc::new(modes)))
            .ok_or_else(|| PyValueError::new_err("this is no listing of git's index"))
    }
}

/// Writes the listing of what some selections took, unless it is there.
#[pyfunction]
fn write_listing(
    py: Python<'_>,
    selections: Vec<PyRef<'_, Selection>>,
    folder: PathBuf,
) -> PyResult<String> {
    let selections = shared(&selections);
    py.detach(|| listing::write(&references(&selections), &folder))
        .map_err(|error| to_python(py, error))
}

/// Differences as they cross the door: path, change, what there was, what there is.
type Differences = Vec<(String, &'static str, String, String)>;

/// Compares two listings.
#[pyfunction]
#[allow(clippy::type_complexity)]
fn compare_listings(
    py: Python<'_>,
    old: PathBuf,
    new: PathBuf,
    limit: usize,
) -> Option<(Differences, usize, usize, usize, usize)> {
    let compared = py.detach(|| listing::compare(&old, &new, limit))?;
    let differences = compared.differences.into_iter().map(|one| {
        let path = String::from_utf8_lossy(&one.path).into_owned();
        (path, one.change.name(), one.old, one.new)
    });
    Some((
        differences.collect(),
        compared.total,
        compared.added,
        compared.removed,
        compared.changed,
    ))
}

fn shared(selections: &[PyRef<'_, Selection>]) -> Vec<Arc<select::Selection>> {
    let all = selections.iter();
    all.map(|selection| Arc::clone(&selection.0)).collect()
}

fn references(selections: &[Arc<select::Selection>]) -> Vec<&select::Selection> {
    selections.iter().map(Arc::as_ref).collect()
}

/// The patterns of an ignore file, compiled.
#[pyclass(frozen, module = "img._core")]
pub struct IgnoreRules(ignore::Ignore);

#[pymethods]
impl IgnoreRules {
    #[new]
    fn new(py: Python<'_>, patterns: Vec<OsString>) -> PyResult<Self> {
        ignore::Ignore::new(bytes(patterns))
            .map(Self)
            .map_err(|error| to_python(py, error))
    }

    fn excluding(&self, path: OsString) -> Option<usize> {
        self.0.excluding_line(path.as_bytes())
    }
}

/// Text of Python as the bytes that it stands for on disk.
fn bytes(texts: Vec<OsString>) -> Vec<Vec<u8>> {
    texts.into_iter().map(OsString::into_vec).collect()
}

/// Checks a `--chmod`, and says what it makes of one mode.
#[pyfunction]
#[pyo3(signature = (change, mode = 0, *, folder = false))]
fn change_mode(py: Python<'_>, change: &str, mode: u32, folder: bool) -> PyResult<u32> {
    chmod::ModeChange::parse(change)
        .map(|change| change.apply(mode, folder))
        .map_err(|error| to_python(py, error))
}

/// Carries out one COPY.
#[pyfunction]
#[pyo3(signature = (sources, *, parents, upper, dest, owner, mode = None, keep_owner = false,
                    clamp_mtime = None, earlier = None, fingerprints = None))]
#[allow(clippy::too_many_arguments)] // the contract's keywords, one for one
fn copy_layer(
    py: Python<'_>,
    sources: Vec<PyRef<'_, Selection>>,
    parents: Vec<PathBuf>,
    upper: PathBuf,
    dest: String,
    owner: Option<(u32, u32)>,
    mode: Option<String>,
    keep_owner: bool,
    clamp_mtime: Option<i64>,
    earlier: Option<(PathBuf, PathBuf)>,
    fingerprints: Option<PathBuf>,
) -> PyResult<Packed> {
    let sources = shared(&sources);
    let request = copy::Request {
        dest,
        owner,
        mode,
        keep_owner,
        clamp_mtime,
        threads: None,
        earlier,
        fingerprints,
    };
    interruptible(py, move |cancel| {
        copy::copy_layer(&references(&sources), &parents, &upper, &request, cancel)
    })
    .map(Packed)
}

/// Carries out WORKDIR.
#[pyfunction]
#[pyo3(signature = (*, parents, upper, dest, owner, mode = 0o755))]
fn make_directory(
    py: Python<'_>,
    parents: Vec<PathBuf>,
    upper: PathBuf,
    dest: String,
    owner: (u32, u32),
    mode: u32,
) -> PyResult<Packed> {
    py.detach(|| copy::make_directory(&parents, &upper, &dest, owner, mode, &Cancel::default()))
        .map(Packed)
        .map_err(|error| to_python(py, error))
}

/// Reads one small file of a stage.
#[pyfunction]
#[pyo3(signature = (layers, path, limit = 1 << 20))]
fn read_in_layers(
    py: Python<'_>,
    layers: Vec<PathBuf>,
    path: PathBuf,
    limit: u64,
) -> PyResult<Option<Bound<'_, PyBytes>>> {
    py.detach(|| stack::read_in_layers(&layers, &path, limit))
        .map(|content| content.map(|content| PyBytes::new(py, &content)))
        .map_err(|error| to_python(py, error))
}

/// True for a folder that can be read and has nothing in it.
fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}

/// Digests a layer directory as a tar in one pass.
#[pyfunction]
#[pyo3(signature = (source, *, clamp_mtime = None))]
fn pack_layer(py: Python<'_>, source: PathBuf, clamp_mtime: Option<i64>) -> PyResult<Packed> {
    let mut request = pack::Request {
        clamp_mtime,
        ..pack::Request::default()
    };
    // Many a RUN leaves nothing: that is said before a thread would have begun.
    if py.detach(|| is_empty(&source)) {
        request.threads = Some(1);
        let packed = py.detach(|| pack::pack_layer(&source, &request, &Cancel::default()));
        return packed.map(Packed).map_err(|error| to_python(py, error));
    }
    interruptible(py, move |cancel| {
        pack::pack_layer(&source, &request, cancel)
    })
    .map(Packed)
}

/// Adds this family to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Packed>()?;
    module.add_class::<DigestMemo>()?;
    module.add_class::<Selected>()?;
    module.add_class::<Selection>()?;
    module.add_class::<IgnoreRules>()?;
    module.add_class::<IndexModes>()?;
    module.add_function(wrap_pyfunction!(write_listing, module)?)?;
    module.add_function(wrap_pyfunction!(compare_listings, module)?)?;
    module.add_function(wrap_pyfunction!(change_mode, module)?)?;
    module.add_function(wrap_pyfunction!(copy_layer, module)?)?;
    module.add_function(wrap_pyfunction!(make_directory, module)?)?;
    module.add_function(wrap_pyfunction!(read_in_layers, module)?)?;
    module.add_function(wrap_pyfunction!(pack_layer, module)?)
}
