//! [`copy_object`]: one object of a layer directory copied to another place, attributes and all.
//!
//! `flatten` and `settle` use it. The file system is asked to share or copy the bytes itself,
//! where it can; holes stay holes. Folders are not its business: they are made by the caller.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;

use rustix::fs::{copy_file_range, ioctl_ficlone, openat, seek, symlinkat, Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use std::os::unix::ffi::OsStrExt;

use crate::attrs::{create, read, Writer};
use crate::entry::{Entry, Kind};

/// Below this a read and a write cost less than the calls that might save them.
const SHARED_FROM: u64 = 128 << 10;

/// Copies `from` of one folder to the name `to` of another, where nothing stands.
///
/// A socket is skipped, as no layer can hold one.
pub fn copy_object(
    source: BorrowedFd<'_>,
    from: &OsStr,
    target: BorrowedFd<'_>,
    to: &OsStr,
    writer: &Writer,
) -> io::Result<()> {
    match read(source, from)? {
        Some(found) => copy_read(source, from, target, to, &found.entry, writer),
        None => Ok(()),
    }
}

/// The same, for an object whose attributes have been read.
pub fn copy_read(
    source: BorrowedFd<'_>,
    from: &OsStr,
    target: BorrowedFd<'_>,
    to: &OsStr,
    entry: &Entry,
    writer: &Writer,
) -> io::Result<()> {
    match &entry.kind {
        Kind::File => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let input = File::from(openat(source, from, flags, Mode::empty())?);
            let output = File::from(create(target, to, Writer::birth_mode(entry))?);
            copy_content(&input, &output, entry.size)?;
            writer.file(output.as_fd(), entry)
        }
        Kind::Symlink(link) => {
            symlinkat(OsStr::from_bytes(link), target, to)?;
            writer.named(target, to, entry)
        }
        Kind::Directory | Kind::Hardlink(_) => Err(Errno::ISDIR.into()),
        _ => writer.make_node(target, to, entry),
    }
}

/// Copies an open file's first `size` bytes into a new one; both stand at their beginning.
pub fn copy_content(input: &File, output: &File, size: u64) -> io::Result<()> {
    if size < SHARED_FROM {
        return copy_small(input, output, size);
    }
    if ioctl_ficlone(output, input).is_ok() {
        return Ok(());
    }
    if input.metadata()?.blocks() * 512 < size {
        return copy_sparse(input, output, size);
    }
    copy_run(input, output, 0, size)
}

fn copy_small(mut input: &File, mut output: &File, size: u64) -> io::Result<()> {
    let mut content = Vec::with_capacity(size as usize + 1);
    input.read_to_end(&mut content)?;
    output.write_all(&content)
}

/// Copies the runs of data that the file system knows of.
fn copy_sparse(input: &File, output: &File, size: u64) -> io::Result<()> {
    let mut position = 0;
    while position < size {
        let start = match seek(input, SeekFrom::Data(position)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = seek(input, SeekFrom::Hole(start))?;
        copy_run(input, output, start, end)?;
        position = end;
    }
    output.set_len(size)
}

/// Copies bytes `start..end` to the same place; ends early where the input does.
fn copy_run(input: &File, output: &File, start: u64, end: u64) -> io::Result<()> {
    let (mut from, mut to) = (start, start);
    while from < end {
        let wanted = usize::try_from(end - from)
            .unwrap_or(usize::MAX)
            .min(1 << 30);
        match copy_file_range(input, Some(&mut from), output, Some(&mut to), wanted) {
            Ok(0) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => {
                return copy_by_hand(input, output, from, end);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn copy_by_hand(mut input: &File, mut output: &File, start: u64, end: u64) -> io::Result<()> {
    seek(input, SeekFrom::Start(start))?;
    seek(output, SeekFrom::Start(start))?;
    io::copy(&mut (&mut input).take(end - start), &mut output)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::attrs::Owners;
    use std::fs;
    use std::os::unix::fs::FileExt;

    #[test]
    fn content_of_every_size_and_its_holes_come_over() {
        let dir = tempfile::tempdir().unwrap();
        let open = File::open(dir.path()).unwrap();
        let large: Vec<u8> = (0..400_000_u32).flat_map(u32::to_le_bytes).collect();
        fs::write(dir.path().join("empty"), b"").unwrap();
        fs::write(dir.path().join("small"), b"small").unwrap();
        fs::write(dir.path().join("large"), &large).unwrap();
        let holes = File::create(dir.path().join("holes")).unwrap();
        holes.write_all_at(b"end", 50 << 20).unwrap();
        holes.set_len(60 << 20).unwrap();
        let writer = Writer::new(Owners::Keep);
        for name in ["empty", "small", "large", "holes"] {
            let copy = format!("{name}.copy");
            let (from, to) = (OsStr::new(name), OsStr::new(&copy));
            copy_object(open.as_fd(), from, open.as_fd(), to, &writer).unwrap();
            let same = fs::read(dir.path().join(name)).unwrap()
                == fs::read(dir.path().join(&copy)).unwrap();
            assert!(same, "{name}");
        }
        assert!(
            fs::metadata(dir.path().join("holes.copy"))
                .unwrap()
                .blocks()
                < 1000
        );
    }
}
