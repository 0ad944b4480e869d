//! What is digested stays what it was: a tree with every kind of entry, and figures that an earlier
//! version gave. Another figure here would be a cache that forgets everything, or a layer that a
//! registry holds under another name.

#![allow(clippy::unwrap_used)]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use img_core::cancel::Cancel;
use img_core::select::{Request, Selection};
use img_core::{copy, listing, pack};
use rustix::fs::{FileType, Mode, XattrFlags, CWD};

struct Tree {
    dir: tempfile::TempDir,
}

impl Tree {
    /// One object of each kind but a symlink; who owns them does not depend on who runs this.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tree = Self { dir };
        for folder in [
            "base",
            "lists",
            "upper",
            "tree/empty-folder",
            "tree/some/deep/folder",
        ] {
            fs::create_dir_all(tree.path(folder)).unwrap();
        }
        tree.file("tree/empty", b"");
        tree.file("tree/some.txt", b"after the folder and what is in it");
        tree.file("tree/some/deep/folder/file", b"deep");
        tree.file("tree/some/large", &vec![7; 700_000]);
        tree.file("tree/some/script", b"#!/bin/sh\n");
        tree.file(
            format!("tree/{}", "long-".repeat(40)),
            b"its name needs a PAX header",
        );
        tree.file(
            OsStr::from_bytes(b"tree/not-\xff-text"),
            b"a name that is no text",
        );
        fs::hard_link(tree.path("tree/some/large"), tree.path("tree/again")).unwrap();
        fs::hard_link(
            tree.path("tree/some/large"),
            tree.path("tree/some/deep/third"),
        )
        .unwrap();
        tree.note("tree/some.txt", "user.note", b"kept");
        tree.note("tree/empty-folder", "user.note", b"kept too");
        let pipe = tree.path("tree/some/pipe");
        rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        tree.file("tree/some/device", b"");
        tree.own("tree/some/device", "5:6:20640:7:300");
        tree.file("tree/some/block", b"");
        tree.own("tree/some/block", "5:6:60600:8:1");
        for (path, mode) in [
            ("tree", 0o755),
            ("tree/some", 0o750),
            ("tree/some/deep", 0o755),
            ("tree/some/deep/folder", 0o1777),
            ("tree/empty-folder", 0o700),
            ("tree/some/script", 0o4755),
            ("tree/some/pipe", 0o640),
        ] {
            fs::set_permissions(tree.path(path), fs::Permissions::from_mode(mode)).unwrap();
        }
        settle(&tree.path("tree"));
        tree
    }

    fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(path)
    }

    fn file(&self, path: impl AsRef<Path>, content: &[u8]) {
        fs::write(self.path(&path), content).unwrap();
        fs::set_permissions(self.path(path), fs::Permissions::from_mode(0o644)).unwrap();
    }

    fn note(&self, path: &str, name: &str, value: &[u8]) {
        rustix::fs::setxattr(self.path(path), name, value, XattrFlags::empty()).unwrap();
    }

    fn own(&self, path: &str, owner: &str) {
        self.note(path, "user.img.override", owner.as_bytes());
    }

    fn select(&self, owners: bool) -> Selection {
        let request = Request {
            patterns: &[".".to_owned()],
            exclude: if owners { &PIPE[..] } else { &[] },
            owners,
            ..Request::default()
        };
        Selection::new(&self.path("tree"), &request, &Cancel::default()).unwrap()
    }
}

static PIPE: std::sync::LazyLock<[Vec<u8>; 1]> =
    std::sync::LazyLock::new(|| [b"some/pipe".to_vec()]);

/// Gives everything below a folder, and itself, one time and, where nothing else was said, one
/// owner; a pipe cannot carry one, and is left out of what depends on owners.
fn settle(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let kind = fs::symlink_metadata(&path).unwrap().file_type();
        if kind.is_dir() {
            settle(&path);
        } else if kind.is_file() {
            touch(&path, 1_500_000_000_900);
        }
    }
    touch(folder, 1_400_000_000_100);
}

fn touch(path: &Path, milliseconds: u64) {
    let time = UNIX_EPOCH + Duration::from_millis(milliseconds);
    File::open(path).unwrap().set_modified(time).unwrap();
    if rustix::fs::lgetxattr(path, "user.img.override", &mut [0; 64][..]).is_err() {
        rustix::fs::setxattr(
            path,
            "user.img.override",
            b"5:6:100644:0:0",
            XattrFlags::empty(),
        )
        .unwrap();
    }
}

#[test]
fn a_selection_of_every_kind_has_the_digest_and_the_listing_it_had() {
    let tree = Tree::new();
    std::os::unix::fs::symlink("some/large", tree.path("tree/link")).unwrap();
    let selection = tree.select(false);
    let digest = selection.content_digest(None, &Cancel::default()).unwrap();
    let name = listing::write(&[&selection], &tree.path("lists")).unwrap();
    let found = [digest.as_str(), name.as_str()];
    assert_eq!(
        found,
        [
            "blake3:db523e259a09b9de44563c73a2ec3537015a0087cd07eb171e79789ea022e6e7",
            "8faddbd7d44883d715c2eae81b358f84a665482a73173bc87f45ed7024c18d20",
        ]
    );
}

#[test]
fn a_copy_and_what_is_packed_again_have_the_digests_they_had() {
    let tree = Tree::new();
    let selection = tree.select(true);
    let cancel = Cancel::default();
    let digest = selection.content_digest(None, &cancel).unwrap();
    let request = copy::Request {
        dest: "/some/where/".to_owned(),
        keep_owner: true,
        clamp_mtime: Some(1_450_000_000),
        ..copy::Request::default()
    };
    let (base, upper) = (tree.path("base"), tree.path("upper"));
    let packed = copy::copy_layer(&[&selection], &[base], &upper, &request, &cancel).unwrap();
    let again = pack::pack_layer(&upper, &pack::Request::default(), &cancel).unwrap();
    assert_eq!(packed, again);
    let found = [digest, packed.diff_id, packed.content_digest];
    assert_eq!(
        found,
        [
            "blake3:70bb8fc326335ada8cfac0f483047726c82bd1de9d044bbbeb9c3c71bbcf5495",
            "sha256:7ea7ed83ed67dcbd22d974d450afd71bb0aa8d1210815e99ccbe903177835001",
            "blake3:716b5c6edd22ac12fbb80463c0a3cce2a33c6a4ce645fe523a5275a783413db0",
        ]
    );
}
