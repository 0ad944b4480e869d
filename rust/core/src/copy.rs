//! [`copy_layer`] and [`make_directory`]: COPY and WORKDIR write an upper folder and digest it.
//!
//! Three steps: `place` says where the destination is and what stands there in the layers below;
//! `plan` lists every object of the new layer in the tar's order; then `write` makes all of them, and
//! `pipeline` copies and digests the files in one reading. The upper folder holds afterwards what an
//! overlay mount would have left.
//! Source: Dockerfile reference, COPY and WORKDIR.

mod plan;
mod planner;
mod write;

use std::path::{Path, PathBuf};

use crate::cancel::Cancel;
use crate::chmod::ModeChange;
use crate::error::Result;
use crate::pipeline::Packed;
use crate::place::{refuse, Place, Wanted};
use crate::select::Selection;
use crate::stack::Stack;

use planner::Planner;
use write::write;

/// How a COPY writes what it copies.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Absolute path; a trailing `/` makes it a folder.
    pub dest: String,
    /// Wanted uid and gid.
    pub owner: Option<(u32, u32)>,
    /// `--chmod`; what comes out of an archive keeps its own mode.
    pub mode: Option<String>,
    /// Without `owner`: the source's own owners, and not 0:0.
    pub keep_owner: bool,
    /// Times later than this, in seconds since the epoch, become this.
    pub clamp_mtime: Option<i64>,
    /// Threads that copy; None is a fitting number. The outcome does not depend on it.
    pub threads: Option<usize>,
    /// The layer of a like step before, and the file of its fingerprints: what is the same in it
    /// is shared. The outcome does not depend on it.
    pub earlier: Option<(PathBuf, PathBuf)>,
    /// Where the new layer's fingerprints are written.
    pub fingerprints: Option<PathBuf>,
}

/// Carries out one COPY into the empty folder `upper`, over `parents` (base first).
pub fn copy_layer(
    sources: &[&Selection],
    parents: &[PathBuf],
    upper: &Path,
    request: &Request,
    cancel: &Cancel,
) -> Result<Packed> {
    let stack = Stack::new(parents.to_vec());
    if sources
        .iter()
        .all(|source| source.count() == 0 && source.named().is_empty())
    {
        // Wildcards that match nothing: not even the destination's folder is made.
        let plan = Planner::new(&stack, request, sources, Place::root()).finish()?;
        return write(&stack, upper, &plan, request, cancel);
    }
    let (wanted, folder_later) = wanted(sources);
    let place = Place::find(&stack, &request.dest, wanted)?;
    if folder_later && place.name.is_some() {
        let reason = "cannot copy a folder onto a file: end the destination with a slash";
        return Err(refuse(request.dest.as_bytes(), reason));
    }
    let mode = request.mode.as_deref().map(ModeChange::parse).transpose()?;
    let unpacked = sources.first().is_some_and(|source| source.unpacked());
    let new_mode = match &mode {
        // As mkdir(2) makes them under the usual umask.
        Some(ModeChange::Octal(bits)) if !unpacked => bits & 0o755,
        _ => 0o755,
    };
    let owner = request.owner.unwrap_or((0, 0));
    let (folders, missing) = place.folders(&stack, owner, new_mode, newest(sources))?;
    let mut planner = Planner::new(&stack, request, sources, place);
    planner.mode = mode;
    planner.add_parents(folders);
    for (number, source) in sources.iter().enumerate() {
        if source.unpacked() {
            planner.add_unpacked(number as u32)?;
        } else {
            planner.add_source(number as u32, missing)?;
        }
    }
    write(&stack, upper, &planner.finish()?, request, cancel)
}

/// The latest time of all that is copied.
fn newest(sources: &[&Selection]) -> i64 {
    let mut newest = None;
    for source in sources {
        let mut tour = source.tour();
        while let Some(at) = tour.next() {
            newest = newest.max(Some(source.inventory().seconds(at)));
        }
    }
    newest.unwrap_or(0)
}

/// What the sources make of a destination that says nothing itself, and whether a folder comes
/// later. What comes first decides: a folder's or an archive's contents need a folder; files, even
/// several, take the destination's name, each in the place of the one before.
fn wanted(sources: &[&Selection]) -> (Wanted, bool) {
    let mut items = sources.iter().flat_map(|source| {
        let named = source.named().iter();
        named.map(|named| named.is_dir || source.unpacked())
    });
    match items.next() {
        Some(true) => (Wanted::Folder, false),
        _ => (Wanted::Name, items.any(|is_folder| is_folder)),
    }
}

/// Makes `dest` and its missing parents; where nothing is missing, the layer has no entries.
pub fn make_directory(
    parents: &[PathBuf],
    upper: &Path,
    dest: &str,
    owner: (u32, u32),
    mode: u32,
    cancel: &Cancel,
) -> Result<Packed> {
    let stack = Stack::new(parents.to_vec());
    let place = Place::find(&stack, dest, Wanted::Folder)?;
    let (folders, missing) = place.folders(&stack, owner, mode, 0)?;
    let request = Request::default();
    let mut planner = Planner::new(&stack, &request, &[], place);
    if missing {
        planner.add_parents(folders);
    }
    write(&stack, upper, &planner.finish()?, &request, cancel)
}

#[cfg(test)]
mod tests;
