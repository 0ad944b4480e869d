//! Tests of `compress`.

#![allow(clippy::unwrap_used)]

use std::io::Read;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::growth::Grown;
use crate::tar_write::BLOCK;

/// Text, noise and repeated noise, over a few blocks and a bit.
fn content() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut noise = blake3::Hasher::new().finalize_xof();
    let mut random = vec![0; 300_000];
    while bytes.len() < 3 * MEAN + 12_345 {
        for line in 0..4000 {
            bytes.extend_from_slice(format!("line {line} of a file\n").as_bytes());
        }
        noise.fill(&mut random);
        bytes.extend_from_slice(&random);
        bytes.extend_from_slice(&random[..20_000]);
    }
    bytes
}

fn options(compression: Compression, threads: usize) -> Options {
    Options {
        compression,
        threads,
        ..Options::default()
    }
}

fn write(bytes: &[u8], compression: Compression, threads: usize) -> (Vec<u8>, Written) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("blob");
    let written = write_to(&path, bytes, options(compression, threads));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    (std::fs::read(path).unwrap(), written)
}

fn write_to(path: &Path, bytes: &[u8], options: Options) -> Written {
    let mut writer = BlobWriter::create(path, options).unwrap();
    for part in bytes.chunks(70_001) {
        writer.write(part).unwrap();
    }
    writer.finish().unwrap()
}

/// Some blobs of one folder, each with its index.
struct Shelf {
    dir: tempfile::TempDir,
    compression: Compression,
    earlier: Vec<Earlier>,
}

impl Shelf {
    fn new(compression: Compression) -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            compression,
            earlier: Vec::new(),
        }
    }

    /// Writes one more; it may copy from those before it.
    fn add(&mut self, bytes: &[u8], threads: usize) -> (Vec<u8>, Written) {
        let number = self.earlier.len();
        let one = Earlier {
            index: self.dir.path().join(format!("index-{number}")),
            blob: self.dir.path().join(format!("blob-{number}")),
        };
        let options = Options {
            earlier: self.earlier.clone(),
            index: Some(one.index.clone()),
            ..options(self.compression, threads)
        };
        let written = write_to(&one.blob, bytes, options);
        let blob = std::fs::read(&one.blob).unwrap();
        self.earlier.push(one);
        (blob, written)
    }
}

/// Some megabytes of half text and half noise, all of it different.
fn stretch(seed: u32, length: usize) -> Vec<u8> {
    let mut noise = blake3::Hasher::new();
    noise.update(&seed.to_le_bytes());
    let mut noise = noise.finalize_xof();
    let mut bytes = vec![0; length];
    for (number, part) in bytes.chunks_mut(4096).enumerate() {
        let half = part.len() / 2;
        noise.fill(&mut part[..half]);
        let text = format!("part {number} of what is said again and again; ");
        for (place, byte) in part[half..].iter_mut().zip(text.bytes().cycle()) {
            *place = byte;
        }
    }
    bytes
}

const FORMS: [Compression; 2] = [Compression::Gzip(3), Compression::Zstd(3)];

#[test]
fn a_change_spoils_the_blocks_near_it_and_no_others() {
    let before = stretch(1, 12 << 20);
    let mut after = before.clone();
    // A file more, of three sectors with its header.
    after.splice(9000 * BLOCK..9000 * BLOCK, stretch(7, 3 * BLOCK));
    for compression in FORMS {
        let mut shelf = Shelf::new(compression);
        assert_eq!(shelf.add(&before, 2).1.reused, 0);
        let (blob, written) = shelf.add(&after, 2);
        assert!(written.reused > blob.len() as u64 / 2, "{written:?}");
        assert!(written.reused < blob.len() as u64);
        assert!(
            (blob, written.digest) == {
                let (blob, written) = write(&after, compression, 1);
                (blob, written.digest)
            }
        );
        let again = shelf.add(&after, 2).1;
        assert!(again.reused + 64 > again.size);
    }
}

#[test]
fn another_level_finds_nothing() {
    let bytes = stretch(2, 3 << 20);
    let mut shelf = Shelf::new(Compression::Gzip(3));
    shelf.add(&bytes, 2);
    for compression in [Compression::Gzip(4), Compression::Zstd(3)] {
        shelf.compression = compression;
        assert_eq!(shelf.add(&bytes, 2).1.reused, 0);
    }
}

#[test]
fn a_rotten_blob_is_not_copied_from() {
    let bytes = stretch(3, 6 << 20);
    for compression in FORMS {
        let mut shelf = Shelf::new(compression);
        let (mut blob, written) = shelf.add(&bytes, 2);
        let whole = blob.clone();
        for place in (1000..blob.len()).step_by(50_000) {
            blob[place] ^= 1;
        }
        std::fs::write(&shelf.earlier[0].blob, &blob).unwrap();
        let (again, second) = shelf.add(&bytes, 2);
        assert!(again == whole && second.digest == written.digest);
        assert_eq!(second.reused, 0);
    }
}

#[test]
fn a_blob_of_one_block_has_no_index() {
    let mut shelf = Shelf::new(Compression::Gzip(3));
    shelf.add(b"not much", 1);
    assert!(!shelf.earlier[0].index.exists());
}

#[test]
fn a_blob_can_be_read_while_it_grows() {
    let bytes = stretch(4, 6 << 20);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("blob");
    let growth = Arc::new(Growth::default());
    let mut writer = BlobWriter::create(
        &path,
        Options {
            growth: Some(Arc::clone(&growth)),
            ..options(Compression::Gzip(3), 2)
        },
    )
    .unwrap();
    let long = Duration::from_secs(60);
    writer.write(&bytes).unwrap();
    // Half of it is there before the end is.
    let Grown::Bytes(there) = growth.wait(0, 1 << 20, long) else {
        panic!("nothing came");
    };
    let mut read = vec![0; there as usize];
    let count = growth.read(0, &mut read).unwrap();
    let written = writer.finish().unwrap();
    assert_eq!(growth.wait(written.size, 1, long), Grown::Bytes(0));
    assert!(std::fs::read(&path).unwrap()[..count] == read[..count]);
}

#[test]
fn a_blob_that_is_given_up_ends_its_readers() {
    let dir = tempfile::tempdir().unwrap();
    let growth = Arc::new(Growth::default());
    let options = Options {
        growth: Some(Arc::clone(&growth)),
        ..options(Compression::Gzip(3), 2)
    };
    let mut writer = BlobWriter::create(&dir.path().join("blob"), options).unwrap();
    writer.write(&stretch(5, 3 << 20)).unwrap();
    drop(writer);
    let long = Duration::from_secs(60);
    assert_eq!(growth.wait(0, u64::MAX, long), Grown::Broken);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_was_known_does_not_show(
        gzip in any::<bool>(),
        edits in prop::collection::vec((0_usize..5 << 20, 0_usize..3000, 0_usize..3000), 0..4),
        unit in prop::sample::select(vec![1, BLOCK]),
        threads in prop::sample::select(vec![1_usize, 2, 8]),
        rotten in prop::option::of(0_usize..1 << 20),
        cut_index in any::<bool>(),
    ) {
        let compression = FORMS[usize::from(gzip)];
        let before = stretch(6, 5 << 20);
        let mut after = before.clone();
        for (seed, (place, removed, added)) in edits.into_iter().enumerate() {
            let whole = |length: usize| length / unit * unit;
            let (place, removed, added) = (whole(place), whole(removed), whole(added));
            let place = place.min(after.len());
            let end = (place + removed).min(after.len());
            after.splice(place..end, stretch(seed as u32 + 100, added));
        }
        let mut shelf = Shelf::new(compression);
        let (mut blob, _) = shelf.add(&before, 2);
        if let Some(place) = rotten {
            let place = place % blob.len();
            blob[place] ^= 0x40;
            std::fs::write(&shelf.earlier[0].blob, &blob).unwrap();
        }
        if cut_index {
            let index = std::fs::read(&shelf.earlier[0].index).unwrap();
            std::fs::write(&shelf.earlier[0].index, &index[..index.len() / 2]).unwrap();
        }
        let (made, written) = shelf.add(&after, threads);
        let (fresh, alone) = write(&after, compression, 1);
        prop_assert!(made == fresh);
        prop_assert_eq!(written.digest, alone.digest);
        prop_assert!(!cut_index || written.reused == 0);
    }
}

#[test]
fn gzip_is_one_member_that_others_read() {
    for bytes in [Vec::new(), b"x".to_vec(), content()] {
        let (blob, written) = write(&bytes, Compression::Gzip(3), 2);
        let mut back = Vec::new();
        // This decoder stops after the first member.
        flate2::read::GzDecoder::new(&blob[..])
            .read_to_end(&mut back)
            .unwrap();
        assert!(back == bytes);
        assert_eq!(written.size, blob.len() as u64);
        let digest = format!("sha256:{}", hex(&Sha256::digest(&blob)));
        assert_eq!(written.digest, Some(digest));
    }
}

#[test]
fn the_gzip_program_takes_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("blob.gz");
    let mut writer = BlobWriter::create(&path, options(Compression::Gzip(6), 2)).unwrap();
    writer.write(&content()).unwrap();
    writer.finish().unwrap();
    let output = std::process::Command::new("gzip")
        .arg("-dc")
        .arg(&path)
        .output()
        .unwrap();
    assert!(output.status.success() && output.stdout == content());
}

#[test]
fn zstd_frames_are_read_as_one_stream() {
    for bytes in [b"x".to_vec(), content()] {
        let (blob, written) = write(&bytes, Compression::Zstd(3), 2);
        assert!(zstd::decode_all(&blob[..]).unwrap() == bytes);
        assert_eq!(written.size, blob.len() as u64);
    }
}

#[test]
fn uncompressed_is_the_bytes_themselves() {
    let (blob, written) = write(&content(), Compression::None, 2);
    assert!(blob == content());
    assert_eq!(written.digest, None);
}

#[test]
fn the_blob_does_not_depend_on_the_threads() {
    for compression in [Compression::Gzip(3), Compression::Zstd(3)] {
        let one = write(&content(), compression, 1);
        for threads in [2, 3, 8] {
            assert!(write(&content(), compression, threads) == one);
        }
    }
}

#[test]
fn a_dropped_writer_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("blob");
    let mut writer = BlobWriter::create(&path, options(Compression::Gzip(1), 2)).unwrap();
    writer.write(&content()).unwrap();
    drop(writer);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_full_disk_is_reported_with_its_path() {
    let file = File::options().write(true).open("/dev/full").unwrap();
    let (order, ordered) = bounded(1);
    drop(order);
    let path = Path::new("/dev/full");
    let options = options(Compression::Gzip(1), 1);
    let outlet = Outlet::new(file, path, &options);
    let error = write_in_order(&ordered, outlet);
    let Err(Error::Io { source, .. }) = error else {
        panic!("{error:?}");
    };
    assert_eq!(source.raw_os_error(), Some(28));
}

#[test]
fn levels_are_checked() {
    assert_eq!(Compression::parse("gzip", None), Some(Compression::Gzip(4)));
    assert_eq!(Compression::parse("gzip", Some(10)), None);
    assert_eq!(Compression::parse("zstd", None), Some(Compression::Zstd(2)));
    assert_eq!(Compression::parse("zstd", Some(0)), None);
    assert_eq!(Compression::parse("none", None), Some(Compression::None));
    assert_eq!(Compression::parse("xz", None), None);
}
