//! Tests of `compress`.

#![allow(clippy::unwrap_used)]

use std::io::Read;

use super::*;

/// Text, noise and repeated noise, over a few blocks and a bit.
fn content() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut noise = blake3::Hasher::new().finalize_xof();
    let mut random = vec![0; 300_000];
    while bytes.len() < 3 * BLOCK + 12_345 {
        for line in 0..4000 {
            bytes.extend_from_slice(format!("line {line} of a file\n").as_bytes());
        }
        noise.fill(&mut random);
        bytes.extend_from_slice(&random);
        bytes.extend_from_slice(&random[..20_000]);
    }
    bytes
}

fn write(bytes: &[u8], compression: Compression, threads: usize) -> (Vec<u8>, Written) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("blob");
    let mut writer = BlobWriter::create(&path, compression, threads).unwrap();
    for part in bytes.chunks(70_001) {
        writer.write(part).unwrap();
    }
    let written = writer.finish().unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    (std::fs::read(path).unwrap(), written)
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
    let mut writer = BlobWriter::create(&path, Compression::Gzip(6), 2).unwrap();
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
fn noise_is_stored_and_text_is_not() {
    let mut noise = vec![0; SEGMENT];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    assert!(incompressible(&noise));
    assert!(!incompressible(&noise[..1000]));
    let text = "some words that repeat, ".repeat(4000);
    assert!(!incompressible(&text.as_bytes()[..SEGMENT]));
    let mut doubled = noise[..SEGMENT / 2].to_vec();
    doubled.extend_from_within(..);
    assert!(incompressible(&doubled) || repeats(&doubled));
    let nearly: Vec<u8> = noise.iter().map(|byte| byte % 200).collect();
    assert!(!incompressible(&nearly));
}

#[test]
fn a_dropped_writer_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("blob");
    let mut writer = BlobWriter::create(&path, Compression::Gzip(1), 2).unwrap();
    writer.write(&content()).unwrap();
    drop(writer);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_full_disk_is_reported_with_its_path() {
    let file = File::options().write(true).open("/dev/full").unwrap();
    let (order, ordered) = bounded(1);
    let (give_back, _spare) = bounded(1);
    drop(order);
    let path = Path::new("/dev/full");
    let error = write_in_order(&ordered, &give_back, file, path, Compression::Gzip(1));
    let Err(Error::Io { source, .. }) = error else {
        panic!("{error:?}");
    };
    assert_eq!(source.raw_os_error(), Some(28));
}

#[test]
fn levels_are_checked() {
    assert_eq!(Compression::parse("gzip", None), Some(Compression::Gzip(4)));
    assert_eq!(Compression::parse("gzip", Some(10)), None);
    assert_eq!(Compression::parse("zstd", Some(0)), None);
    assert_eq!(Compression::parse("none", None), Some(Compression::None));
    assert_eq!(Compression::parse("xz", None), None);
}
