//! Tests of `pack`.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{symlink, PermissionsExt};
use std::process::Command;

use proptest::prelude::*;

use super::*;
use crate::compress::Compression;

fn pack(source: &Path, request: &Request) -> Packed {
    pack_layer(source, request, &Cancel::default()).unwrap()
}

fn with_blob(path: &Path, compression: Compression, threads: usize) -> Request {
    Request {
        blob: Some((
            path.to_path_buf(),
            Options {
                compression,
                ..Options::default()
            },
        )),
        clamp_mtime: None,
        threads: Some(threads),
    }
}

/// What GNU tar lists: mode, owner, size, and name with link target.
fn listing(blob: &Path) -> Vec<String> {
    let output = Command::new("tar")
        .args(["--numeric-owner", "-tvf"])
        .arg(blob)
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    assert!(output.status.success() && output.stderr.is_empty());
    let text = String::from_utf8(output.stdout).unwrap();
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        [&words[..3], &words[5..]].concat().join(" ")
    };
    text.lines().map(line).collect()
}

fn sample(root: &Path) {
    fs::create_dir_all(root.join("dir/sub")).unwrap();
    fs::write(root.join("dir/file"), "hello").unwrap();
    fs::set_permissions(root.join("dir/file"), fs::Permissions::from_mode(0o4750)).unwrap();
    fs::write(root.join("dir.txt"), "after dir and what is in it").unwrap();
    fs::write(root.join("big"), vec![7; 1_300_000]).unwrap();
    fs::write(root.join("empty"), "").unwrap();
    fs::hard_link(root.join("dir/file"), root.join("dir/sub/again")).unwrap();
    symlink("../elsewhere", root.join("dir/link")).unwrap();
    let root_fd = fs::File::open(root).unwrap();
    attrs::make_whiteout(root_fd.as_fd(), OsStr::new("gone")).unwrap();
    let sub = fs::File::open(root.join("dir/sub")).unwrap();
    attrs::make_opaque(sub.as_fd()).unwrap();
}

#[test]
fn gnu_tar_reads_a_layer_with_marks_and_links() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("upper");
    fs::create_dir(&root).unwrap();
    sample(&root);
    for name in ["dir", "dir/sub"] {
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    for name in ["dir.txt", "big", "empty"] {
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(0o644)).unwrap();
    }
    let blob = dir.path().join("blob");
    let packed = pack(&root, &with_blob(&blob, Compression::None, 2));
    let wanted = [
        "-rw-r--r-- 0/0 1300000 big",
        "drwxr-xr-x 0/0 0 dir/",
        "-rwsr-x--- 0/0 5 dir/file",
        "lrwxrwxrwx 0/0 0 dir/link -> ../elsewhere",
        "drwxr-xr-x 0/0 0 dir/sub/",
        "---------- 0/0 0 dir/sub/.wh..wh..opq",
        "hrwsr-x--- 0/0 0 dir/sub/again link to dir/file",
        "-rw-r--r-- 0/0 27 dir.txt",
        "-rw-r--r-- 0/0 0 empty",
        "---------- 0/0 0 .wh.gone",
    ];
    assert_eq!(listing(&blob), wanted);
    assert_eq!(packed.entries, 10);
    assert_eq!(packed.size, Some(packed.uncompressed_size));
    assert_eq!(packed.digest.as_deref(), Some(packed.diff_id.as_str()));
    assert_eq!(fs::metadata(&blob).unwrap().len(), packed.uncompressed_size);
    let sum = Command::new("sha256sum").arg(&blob).output().unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap();
    assert_eq!(
        packed.diff_id,
        format!("sha256:{}", sum.split(' ').next().unwrap())
    );
}

#[test]
fn an_empty_upper_has_no_entries_and_a_digest() {
    let dir = tempfile::tempdir().unwrap();
    let packed = pack(dir.path(), &Request::default());
    assert_eq!((packed.entries, packed.uncompressed_size), (0, 1024));
    // sha256 of 1,024 zero bytes: the well-known empty layer.
    assert_eq!(
        packed.diff_id,
        "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
    );
}

#[test]
fn times_change_the_diff_id_and_not_the_content_digest() {
    let dir = tempfile::tempdir().unwrap();
    sample(dir.path());
    let before = pack(dir.path(), &Request::default());
    let file = fs::File::options()
        .write(true)
        .open(dir.path().join("big"))
        .unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    let after = pack(dir.path(), &Request::default());
    assert_ne!(before.diff_id, after.diff_id);
    assert_eq!(before.content_digest, after.content_digest);
    let mode = fs::Permissions::from_mode(0o600);
    fs::set_permissions(dir.path().join("big"), mode).unwrap();
    let mode = pack(dir.path(), &Request::default());
    assert_ne!(after.content_digest, mode.content_digest);
}

#[test]
fn late_times_are_clamped() {
    let dir = tempfile::tempdir().unwrap();
    sample(dir.path());
    let clamped = Request {
        clamp_mtime: Some(1000),
        ..Request::default()
    };
    let first = pack(dir.path(), &clamped);
    let file = fs::File::options()
        .write(true)
        .open(dir.path().join("big"))
        .unwrap();
    file.set_modified(std::time::SystemTime::now()).unwrap();
    assert_eq!(pack(dir.path(), &clamped), first);
}

#[test]
fn a_name_that_looks_like_a_whiteout_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(".wh.passwd"), "").unwrap();
    let error = pack_layer(dir.path(), &Request::default(), &Cancel::default()).unwrap_err();
    assert!(matches!(error, Error::Layer { .. }), "{error}");
}

#[test]
fn a_cancelled_pack_leaves_no_blob() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("upper");
    fs::create_dir(&root).unwrap();
    sample(&root);
    let cancel = Cancel::default();
    cancel.stop();
    let request = with_blob(&dir.path().join("blob"), Compression::Gzip(3), 2);
    assert!(matches!(
        pack_layer(&root, &request, &cancel),
        Err(Error::Interrupted)
    ));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn gzip_and_zstd_blobs_hold_the_same_tar() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("upper");
    fs::create_dir(&root).unwrap();
    sample(&root);
    let plain = dir.path().join("plain");
    pack(&root, &with_blob(&plain, Compression::None, 2));
    for (compression, flag) in [(Compression::Gzip(3), "-z"), (Compression::Zstd(3), "")] {
        let blob = dir.path().join("blob");
        pack(&root, &with_blob(&blob, compression, 2));
        if flag.is_empty() {
            let bytes = zstd::decode_all(&fs::read(&blob).unwrap()[..]).unwrap();
            assert!(bytes == fs::read(&plain).unwrap());
        } else {
            assert_eq!(listing(&blob), listing(&plain));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_tree_packs_the_same_on_any_number_of_threads(
        files in proptest::collection::btree_map("[a-c]{1,2}(/[a-c.]{1,3}x){0,3}", 0_usize..700_000, 0..40)
    ) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("upper");
        fs::create_dir(&root).unwrap();
        for (path, size) in &files {
            let path = root.join(path);
            // A path that another one has made a folder, or a file on the way, is left out.
            if fs::create_dir_all(path.parent().unwrap()).is_ok() {
                let _ = fs::write(path, vec![*size as u8; *size]);
            }
        }
        let blob = dir.path().join("blob");
        let one = pack(&root, &with_blob(&blob, Compression::Gzip(1), 1));
        let bytes = fs::read(&blob).unwrap();
        for threads in [2, 8] {
            let more = pack(&root, &with_blob(&blob, Compression::Gzip(1), threads));
            prop_assert_eq!(&more, &one);
            prop_assert!(fs::read(&blob).unwrap() == bytes);
        }
        prop_assert_eq!(listing(&blob).len() as u64, one.entries);
    }
}

#[test]
fn a_blob_is_compressed_anew_with_the_tar_that_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("upper");
    fs::create_dir(&root).unwrap();
    sample(&root);
    let [gzip, zstd] = ["gzip", "zstd"].map(|name| dir.path().join(name));
    let first = pack(&root, &with_blob(&gzip, Compression::Gzip(3), 2));
    let wanted = pack(
        &root,
        &with_blob(&dir.path().join("wanted"), Compression::Zstd(3), 2),
    );
    let request = with_blob(&zstd, Compression::Zstd(3), 2);
    let again = repack_blob(&gzip, &request, &Cancel::default()).unwrap();
    assert_eq!(again.diff_id, first.diff_id);
    assert_eq!(again.uncompressed_size, first.uncompressed_size);
    assert_eq!(again.digest, wanted.digest);
    fs::write(&gzip, &fs::read(&gzip).unwrap()[..100]).unwrap();
    assert!(repack_blob(&gzip, &request, &Cancel::default()).is_err());
}
