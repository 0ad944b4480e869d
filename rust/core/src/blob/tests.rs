//! Tests of `blob`.

#![allow(clippy::unwrap_used)]
use super::*;
use crate::tar_read::build::{file, tar};
use std::fs;

struct Fixture {
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("layer")).unwrap();
        fs::create_dir(dir.path().join("blobs")).unwrap();
        Self { dir }
    }

    fn options(&self, blob: &[u8]) -> SinkOptions {
        SinkOptions {
            path: Some(self.dir.path().join("blobs/blob")),
            digest: digest(blob),
            size: Some(blob.len() as u64),
            extract_to: Some(self.dir.path().join("layer")),
            diff_id: None,
        }
    }

    fn run(options: SinkOptions, blob: &[u8], step: usize) -> Result<Option<ApplyStats>> {
        let mut sink = BlobSink::open(options)?;
        for part in blob.chunks(step) {
            sink.write(part, &mut || Ok(()))?;
        }
        assert_eq!(sink.offset(), blob.len() as u64);
        sink.finish(&mut || Ok(()))
    }

    fn blobs(&self) -> usize {
        fs::read_dir(self.dir.path().join("blobs")).unwrap().count()
    }
}

fn digest(bytes: &[u8]) -> String {
    digest_text(Sha256::new_with_prefix(bytes))
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// Does not compress, so that a small piece of the blob is a small piece of the tar.
fn noise(length: usize) -> String {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from(b'0' + (state >> 26) as u8)
    };
    (0..length).map(|_| next()).collect()
}

fn sample() -> Vec<u8> {
    tar(&[file("small", "hello"), file("large", &noise(3_000_000))])
}

#[test]
fn a_blob_is_stored_and_extracted_at_once() {
    for blob in [
        sample(),
        gzip(&sample()),
        zstd::encode_all(&sample()[..], 1).unwrap(),
    ] {
        for step in [7_000, 10_000_000] {
            let tree = Fixture::new();
            let stats = Fixture::run(tree.options(&blob), &blob, step)
                .unwrap()
                .unwrap();
            assert_eq!(stats.diff_id, digest(&sample()));
            assert_eq!(stats.uncompressed_size, sample().len() as u64);
            assert_eq!(stats.counts.entries, 2);
            assert_eq!(fs::read(tree.dir.path().join("blobs/blob")).unwrap(), blob);
            let small = fs::read_to_string(tree.dir.path().join("layer/small")).unwrap();
            assert_eq!((small.as_str(), tree.blobs()), ("hello", 1));
        }
    }
}

#[test]
fn a_stored_blob_is_extracted_the_same() {
    let tree = Fixture::new();
    let path = tree.dir.path().join("blob");
    let both = [gzip(&sample()[..1_000]), gzip(&sample()[1_000..])].concat();
    fs::write(&path, both).unwrap();
    let go = AtomicBool::new(false);
    let dest = tree.dir.path().join("layer");
    let stats = apply(
        &path,
        &dest,
        Some(&digest(&sample())),
        &go,
        &AtomicU64::new(0),
    )
    .unwrap();
    assert_eq!(stats.counts.bytes_written, 3_000_005);
    let other = Fixture::new();
    let dest = other.dir.path().join("layer");
    let wrong = apply(
        &path,
        &dest,
        Some(&digest(b"other")),
        &go,
        &AtomicU64::new(0),
    );
    assert!(matches!(
        wrong,
        Err(Error::Digest {
            what: "diff ID",
            ..
        })
    ));
}

#[test]
fn a_sink_may_only_store_or_only_extract() {
    let blob = gzip(&sample());
    let tree = Fixture::new();
    let store_only = SinkOptions {
        extract_to: None,
        ..tree.options(&blob)
    };
    assert_eq!(Fixture::run(store_only, &blob, 100_000).unwrap(), None);
    assert_eq!(tree.blobs(), 1);
    let tree = Fixture::new();
    let extract_only = SinkOptions {
        path: None,
        size: None,
        ..tree.options(&blob)
    };
    assert!(Fixture::run(extract_only, &blob, 100_000)
        .unwrap()
        .is_some());
    assert_eq!(tree.blobs(), 0);
}

#[test]
fn a_wrong_digest_leaves_nothing() {
    let blob = gzip(&sample());
    let tree = Fixture::new();
    let options = SinkOptions {
        digest: digest(b"other"),
        ..tree.options(&blob)
    };
    let done = Fixture::run(options, &blob, 100_000);
    assert!(
        matches!(done, Err(Error::Digest { what: "blob", .. })),
        "{done:?}"
    );
    assert_eq!(tree.blobs(), 0);
}

#[test]
fn a_wrong_size_leaves_nothing() {
    let blob = gzip(&sample());
    for size in [blob.len() as u64 - 1, blob.len() as u64 + 1, 0] {
        let tree = Fixture::new();
        let options = SinkOptions {
            size: Some(size),
            ..tree.options(&blob)
        };
        let done = Fixture::run(options, &blob, 100_000);
        assert!(matches!(done, Err(Error::Size { .. })), "{done:?}");
        assert_eq!(tree.blobs(), 0);
    }
}

#[test]
fn a_truncated_blob_is_told_by_its_size_and_not_by_what_that_broke() {
    let blob = gzip(&sample());
    let tree = Fixture::new();
    let done = Fixture::run(tree.options(&blob), &blob[..blob.len() / 2], 100_000);
    assert!(matches!(done, Err(Error::Size { .. })), "{done:?}");
}

#[test]
fn a_bad_layer_fails_the_sink_and_goes_on_saying_so() {
    let blob = tar(&[file("../x", "")]);
    let tree = Fixture::new();
    let mut sink = BlobSink::open(tree.options(&blob)).unwrap();
    let go = &mut || Ok(());
    sink.write(&blob, go).unwrap();
    assert!(matches!(sink.finish(go), Err(Error::Layer { .. })));
    assert!(matches!(sink.finish(go), Err(Error::Layer { .. })));
    assert!(matches!(sink.write(b"x", go), Err(Error::Layer { .. })));
    assert_eq!(tree.blobs(), 0);
}

#[test]
fn a_bad_layer_surfaces_while_more_is_written() {
    let blob = [tar(&[file("../x", "")]), vec![0; 64 << 20]].concat();
    let tree = Fixture::new();
    let done = Fixture::run(tree.options(&blob), &blob, 1 << 20);
    assert!(matches!(done, Err(Error::Layer { .. })), "{done:?}");
    assert_eq!(tree.blobs(), 0);
}

#[test]
fn aborting_or_dropping_leaves_nothing() {
    let blob = gzip(&sample());
    let tree = Fixture::new();
    for drop_only in [true, false] {
        let mut sink = BlobSink::open(tree.options(&blob)).unwrap();
        sink.write(&blob[..1_000_000], &mut || Ok(())).unwrap();
        if !drop_only {
            sink.abort();
            sink.abort();
            assert!(sink.write(b"x", &mut || Ok(())).is_err());
            assert!(sink.finish(&mut || Ok(())).is_err());
        }
        drop(sink);
        assert_eq!(tree.blobs(), 0);
    }
}

#[test]
fn a_finished_sink_keeps_its_blob_through_abort() {
    let blob = gzip(&sample());
    let tree = Fixture::new();
    let mut sink = BlobSink::open(tree.options(&blob)).unwrap();
    sink.write(&blob, &mut || Ok(())).unwrap();
    sink.finish(&mut || Ok(())).unwrap();
    sink.abort();
    assert_eq!(tree.blobs(), 1);
}

#[test]
fn a_bomb_of_zeros_behind_the_end_is_only_hashed() {
    let stream = [tar(&[file("x", "")]), vec![0; 32 << 20]].concat();
    let blob = gzip(&stream);
    let tree = Fixture::new();
    let stats = Fixture::run(tree.options(&blob), &blob, 1 << 20)
        .unwrap()
        .unwrap();
    assert_eq!(stats.uncompressed_size, stream.len() as u64);
}

#[test]
fn a_digest_of_another_algorithm_is_refused() {
    let tree = Fixture::new();
    let options = SinkOptions {
        digest: "sha512:00".to_owned(),
        ..tree.options(b"")
    };
    assert!(matches!(
        BlobSink::open(options),
        Err(Error::Unsupported { .. })
    ));
}
