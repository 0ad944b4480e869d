//! The one error type of the core. The door maps each variant once to a class of `img.errors`.

use std::io;
use std::path::{Path, PathBuf};

/// Everything that can go wrong below Python.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed on a path. `ENOSPC` and `EDQUOT` become `img.errors.DiskFull`.
    #[error("{op} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb: `open`, `write`, `mkdir`.
        op: &'static str,
        /// The path it was tried on.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// Bytes did not hash to what their descriptor promised.
    #[error("{what}: expected {expected}, got {actual}")]
    Digest {
        /// `blob` (compressed side) or `diff ID` (uncompressed side).
        what: &'static str,
        /// The digest that was asked for.
        expected: String,
        /// The digest of the bytes that came.
        actual: String,
    },
    /// A blob was longer or shorter than its descriptor's size.
    #[error("size: expected {expected} bytes, got {actual}")]
    Size {
        /// Bytes promised.
        expected: u64,
        /// Bytes seen.
        actual: u64,
    },
    /// A tar stream is malformed, or one of its entries is hostile.
    #[error("{entry}: {reason}")]
    Layer {
        /// The entry's path as found, or a position in the stream.
        entry: String,
        /// What is wrong with it.
        reason: String,
    },
    /// COPY or ADD cannot do what it was asked.
    #[error("{path}: {reason}")]
    Copy {
        /// The pattern or path as the Dockerfile has it.
        path: String,
        /// What is wrong with it.
        reason: String,
        /// True where nothing matched (the Python side looks for a near name).
        not_found: bool,
    },
    /// The kernel refused a namespace, a mount or a step of starting a container.
    #[error("{step}: {source}")]
    Sandbox {
        /// The step that was refused, in the words of the kernel's interface.
        step: String,
        /// The operating system's answer.
        source: io::Error,
        /// What this machine lacks and how to get it; may be empty.
        hint: String,
    },
    /// A thing that this version does not do.
    #[error("{feature} is not supported in {place}")]
    Unsupported {
        /// The feature, as its specification calls it.
        feature: String,
        /// Where it was met.
        place: String,
    },
    /// The caller asked to stop.
    #[error("interrupted")]
    Interrupted,
}

/// The core's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Adds the verb and the path to an `io::Error`.
pub trait IoContext<T> {
    /// Wraps the error as [`Error::Io`].
    fn at(self, op: &'static str, path: impl AsRef<Path>) -> Result<T>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn at(self, op: &'static str, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|source| Error::Io {
            op,
            path: path.as_ref().to_path_buf(),
            source,
        })
    }
}

impl<T> IoContext<T> for rustix::io::Result<T> {
    fn at(self, op: &'static str, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(io::Error::from).at(op, path)
    }
}
