//! [`unpack_archive`]: a local archive extracted as ADD does, and a tar context from standard input;
//! [`unpack_folder`]: the archive of a cache's folder.
//!
//! What an archive is, its content says: a tar header, alone or inside gzip, bzip2, xz or zstd.
//! Whiteout names are ordinary here; containment and attributes are `apply`'s.
//! Source: Dockerfile reference, ADD, "Adding local tar archives".

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64};

use crate::apply::{extract, Form};
use crate::counted::Counted;
use crate::error::{Error, IoContext, Result};
use crate::inflate::sniff;
use crate::tar_read::{looks_like_tar, unwrap_error};

const CHUNK: usize = 256 << 10;

/// Extracts an archive into an existing folder.
///
/// Args:
///     count: Grows by the bytes of the file that were read.
/// Returns:
///     The folders that the archive takes for granted: they have no entry of their own. None,
///     having done nothing, where the file is no such archive.
/// Raises:
///     `Error::Layer` where it is one, but broken or hostile.
pub fn unpack_archive(
    archive: &Path,
    dest: &Path,
    stop: &AtomicBool,
    count: &AtomicU64,
) -> Result<Option<Vec<Vec<u8>>>> {
    unpack_if(archive, dest, looks_like_tar, stop, count)
}

/// The same for what is known to be a folder's archive, and so may be empty.
///
/// Returns:
///     False, having done nothing, where the file is no such archive.
pub fn unpack_folder(archive: &Path, dest: &Path, stop: &AtomicBool) -> Result<bool> {
    let may_be = |head: &[u8; 512]| looks_like_tar(head) || head.iter().all(|byte| *byte == 0);
    Ok(unpack_if(archive, dest, may_be, stop, &AtomicU64::new(0))?.is_some())
}

fn unpack_if(
    archive: &Path,
    dest: &Path,
    is_archive: impl FnOnce(&[u8; 512]) -> bool,
    stop: &AtomicBool,
    count: &AtomicU64,
) -> Result<Option<Vec<Vec<u8>>>> {
    let file = Counted::new(File::open(archive).at("open", archive)?, count);
    let place = archive.to_string_lossy();
    let failed = |error| unwrap_error(error, &place);
    let (codec, source) = sniff(BufReader::with_capacity(CHUNK, file)).map_err(failed)?;
    let mut reader = codec.reader(source).map_err(failed)?;
    let mut head = [0; 512];
    match reader.read_exact(&mut head) {
        Ok(()) if is_archive(&head) => {}
        // A decoder's failure means that the file only begins like its format; a disk's is one.
        Err(error) if error.raw_os_error().is_some() => return Err(failed(error)),
        _ => return Ok(None),
    }
    let stream = BufReader::with_capacity(CHUNK, io::Cursor::new(head).chain(reader));
    let (counts, mut rest) = extract(stream, dest, Form::Archive, stop)?;
    // The decoder's own checksum stands at the end, so a damaged archive may look whole until here.
    let drained = io::copy(&mut rest, &mut io::sink());
    drained.map_err(failed).map_err(|error| match error {
        Error::Layer { reason, .. } => Error::Layer {
            entry: place.clone().into_owned(),
            reason,
        },
        other => other,
    })?;
    Ok(Some(counts.implied))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::tar_read::build::{file, tar};
    use std::fs;
    use std::io::Write;
    use std::path::PathBuf;

    fn fixture(content: &[u8]) -> (tempfile::TempDir, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let (archive, dest) = (dir.path().join("archive"), dir.path().join("dest"));
        fs::write(&archive, content).unwrap();
        fs::create_dir(&dest).unwrap();
        (dir, archive, dest)
    }

    fn unpack(content: &[u8]) -> Result<Option<String>> {
        let (_dir, archive, dest) = fixture(content);
        let read = AtomicU64::new(0);
        let done = unpack_archive(&archive, &dest, &AtomicBool::new(false), &read)?;
        assert!(done.is_none() || read.into_inner() == content.len() as u64);
        let found = fs::read_to_string(dest.join("d/f")).ok();
        assert_eq!(done.is_some(), found.is_some());
        if let Some(implied) = done {
            assert_eq!(implied, [b"d"]);
        }
        Ok(found)
    }

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn sample() -> Vec<u8> {
        tar(&[file("d/f", "hello")])
    }

    #[test]
    fn an_archive_is_told_by_its_content() {
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bzip2.write_all(&sample()).unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(&sample()).unwrap();
        let zstd = zstd::encode_all(&sample()[..], 1).unwrap();
        let forms = [
            sample(),
            gzip(&sample()),
            bzip2.finish().unwrap(),
            xz.finish().unwrap(),
            zstd,
        ];
        for form in forms {
            assert_eq!(unpack(&form).unwrap().as_deref(), Some("hello"));
        }
    }

    #[test]
    fn what_is_no_archive_is_left_alone() {
        for content in [
            b"".to_vec(),
            b"text".to_vec(),
            vec![0; 2_048],
            gzip(b"text"),
            b"BZh9 no".to_vec(),
            b"\x1f\x8b broken".to_vec(),
            gzip(&vec![b'x'; 4_000]),
        ] {
            let (_dir, archive, dest) = fixture(&content);
            let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
            let done = unpack_archive(&archive, &dest, &stop, &count).unwrap();
            assert!(done.is_none());
            assert_eq!(fs::read_dir(dest).unwrap().count(), 0);
        }
    }

    #[test]
    fn a_broken_archive_is_an_error() {
        let long = tar(&[file("a", &"x".repeat(100_000))]);
        assert!(matches!(unpack(&long[..50_000]), Err(Error::Layer { .. })));
        let packed = gzip(&sample());
        assert!(matches!(
            unpack(&packed[..packed.len() - 4]),
            Err(Error::Layer { .. })
        ));
        assert!(matches!(
            unpack(&tar(&[file("../x", "")])),
            Err(Error::Layer { .. })
        ));
    }

    #[test]
    fn the_archive_of_an_empty_folder_is_one() {
        let stop = AtomicBool::new(false);
        for (content, is_one) in [(vec![0; 1024], true), (b"text".to_vec(), false)] {
            let (_dir, archive, dest) = fixture(&content);
            assert_eq!(unpack_folder(&archive, &dest, &stop).unwrap(), is_one);
        }
        let (_dir, archive, dest) = fixture(&gzip(&sample()));
        assert!(unpack_folder(&archive, &dest, &stop).unwrap());
        assert!(dest.join("d/f").exists());
    }

    #[test]
    fn a_missing_archive_is_an_io_error() {
        let (_dir, archive, dest) = fixture(b"");
        fs::remove_file(&archive).unwrap();
        let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
        let done = unpack_archive(&archive, &dest, &stop, &count);
        assert!(matches!(done, Err(Error::Io { .. })));
    }
}
