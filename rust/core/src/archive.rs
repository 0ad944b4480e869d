//! [`unpack_archive`]: a local archive extracted as ADD does, and a tar context from standard input.
//!
//! What an archive is, its content says: a tar header, alone or inside gzip, bzip2, xz or zstd.
//! Whiteout names are ordinary here; containment and attributes are `apply`'s.
//! Source: Dockerfile reference, ADD, "Adding local tar archives".

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::atomic::AtomicBool;

use crate::apply::{extract, Form};
use crate::error::{Error, IoContext, Result};
use crate::inflate::sniff;
use crate::tar_read::{looks_like_tar, unwrap_error};

const CHUNK: usize = 256 << 10;

/// Extracts an archive into an existing folder.
///
/// Returns:
///     False, having done nothing, where the file is no such archive.
/// Raises:
///     `Error::Layer` where it is one, but broken or hostile.
pub fn unpack_archive(archive: &Path, dest: &Path, stop: &AtomicBool) -> Result<bool> {
    let file = File::open(archive).at("open", archive)?;
    let place = archive.to_string_lossy();
    let failed = |error| unwrap_error(error, &place);
    let (codec, source) = sniff(BufReader::with_capacity(CHUNK, file)).map_err(failed)?;
    let mut reader = codec.reader(source).map_err(failed)?;
    let mut head = [0; 512];
    match reader.read_exact(&mut head) {
        Ok(()) if looks_like_tar(&head) => {}
        Ok(()) => return Ok(false),
        // A disk's own failure is one; a decoder's means that this only begins like its format.
        Err(error) if error.raw_os_error().is_some() => return Err(failed(error)),
        Err(_) => return Ok(false),
    }
    let stream = BufReader::with_capacity(CHUNK, io::Cursor::new(head).chain(reader));
    let (_, mut rest) = extract(stream, dest, Form::Archive, stop)?;
    // The decoder's own checksum stands at the end, so a damaged archive may look whole until here.
    let drained = io::copy(&mut rest, &mut io::sink());
    drained.map_err(failed).map_err(|error| match error {
        Error::Layer { reason, .. } => Error::Layer {
            entry: place.clone().into_owned(),
            reason,
        },
        other => other,
    })?;
    Ok(true)
}
