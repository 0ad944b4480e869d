//! Tests of `settle`.

#![allow(clippy::unwrap_used)]
use super::*;
use crate::apply::{extract, Form};
use crate::tar_read::build::{file, folder, header, link, seal, tar};
use std::fs;
use std::os::unix::fs::{symlink, MetadataExt, PermissionsExt};
use std::sync::atomic::AtomicBool;

struct Fixture {
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for layer in ["base", "middle", "top"] {
            fs::create_dir(dir.path().join(layer)).unwrap();
        }
        Self { dir }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn write(&self, path: &str, content: &str) {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        fs::write(self.at(path), content).unwrap();
    }

    fn settle(&self, entries: &[Vec<u8>]) -> Result<()> {
        let stop = AtomicBool::new(false);
        extract(&tar(entries)[..], &self.at("top"), Form::Layer, &stop)?;
        settle(&self.at("top"), &[self.at("base"), self.at("middle")])?;
        assert!(!self.at("top.pending").exists());
        Ok(())
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap()
    }

    fn mode(&self, path: &str) -> u32 {
        fs::symlink_metadata(self.at(path)).unwrap().mode() & 0o7777
    }
}

#[test]
fn paths_survive_the_file_whatever_their_bytes() {
    let tree = Fixture::new();
    let mut pending = Pending::default();
    pending
        .folders
        .insert(b"a\\x41\xff\xfe/\xc3\xa4\n".to_vec());
    pending.links.insert(b"\"".to_vec(), b"\xc3".to_vec());
    pending.save(&tree.at("top")).unwrap();
    assert_eq!(Pending::load(&tree.at("top")).unwrap(), Some(pending));
    assert_eq!(Pending::load(&tree.at("base")).unwrap(), None);
    assert_eq!(from_text("\\q"), None);
    assert_eq!(from_text("\\x4"), None);
}

#[test]
fn a_pending_file_that_lies_is_refused() {
    let tree = Fixture::new();
    for text in [
        "{}",
        "{\"version\":9,\"folders\":[],\"links\":[]}",
        "{\"version\":1,\"folders\":[\"../x\"],\"links\":[]}",
    ] {
        fs::write(tree.at("top.pending"), text).unwrap();
        assert!(settle(&tree.at("top"), &[]).is_err(), "{text}");
    }
}

#[test]
fn implied_folders_take_the_parents_attributes() {
    let tree = Fixture::new();
    tree.write("base/opt/app/x", "");
    fs::set_permissions(tree.at("base/opt/app"), fs::Permissions::from_mode(0o1770)).unwrap();
    tree.settle(&[file("opt/app/y", "y"), file("new/z", "z")])
        .unwrap();
    assert_eq!(tree.mode("top/opt/app"), 0o1770);
    assert_eq!(tree.mode("top/new"), 0o755);
    let times = |path: &str| fs::metadata(tree.at(path)).unwrap().modified().unwrap();
    assert_eq!(times("top/opt/app"), times("base/opt/app"));
}

#[test]
fn entries_under_a_parents_symlink_move_to_where_it_leads() {
    let tree = Fixture::new();
    tree.write("base/usr/lib/old", "");
    fs::set_permissions(tree.at("base/usr"), fs::Permissions::from_mode(0o711)).unwrap();
    symlink("usr/lib", tree.at("base/lib")).unwrap();
    let entries = [
        file("lib/a", "a"),
        file("lib/sub/b", "b"),
        file("lib/.wh.old", ""),
        link("lib/c", b'1', "lib/a"),
    ];
    tree.settle(&entries).unwrap();
    assert!(!tree.at("top/lib").exists());
    assert_eq!(tree.text("top/usr/lib/a"), "a");
    assert_eq!(tree.text("top/usr/lib/sub/b"), "b");
    assert_eq!(tree.text("top/usr/lib/c"), "a");
    assert_eq!(tree.mode("top/usr"), 0o711);
    assert!(
        fs::symlink_metadata(tree.at("top/usr/lib/old"))
            .unwrap()
            .nlink()
            == 1
    );
}

#[test]
fn folders_of_both_names_merge() {
    let tree = Fixture::new();
    fs::create_dir_all(tree.at("base/usr/lib")).unwrap();
    symlink("usr/lib", tree.at("base/lib")).unwrap();
    let mut described = header(b"lib/sub", b'5', 0, b"");
    described[100..108].copy_from_slice(b"0000750\0");
    seal(&mut described);
    tree.settle(&[
        file("usr/lib/sub/x", "x"),
        described.to_vec(),
        file("lib/sub/y", "y"),
        file("lib/z", "z"),
    ])
    .unwrap();
    assert_eq!(tree.text("top/usr/lib/sub/x"), "x");
    assert_eq!(tree.text("top/usr/lib/sub/y"), "y");
    assert_eq!(tree.mode("top/usr/lib/sub"), 0o750);
}

#[test]
fn a_file_under_both_names_is_refused() {
    let tree = Fixture::new();
    fs::create_dir_all(tree.at("base/usr/lib")).unwrap();
    symlink("usr/lib", tree.at("base/lib")).unwrap();
    let done = tree.settle(&[folder("usr"), file("usr/lib/x", "1"), file("lib/x", "2")]);
    assert!(matches!(done, Err(Error::Layer { .. })));
}

#[test]
fn a_parents_symlink_out_of_the_image_stays_inside() {
    let tree = Fixture::new();
    symlink("../../../outside", tree.at("base/out")).unwrap();
    tree.settle(&[file("out/x", "x")]).unwrap();
    assert_eq!(tree.text("top/outside/x"), "x");
    assert!(!tree.at("outside").exists());
}

#[test]
fn hard_links_to_the_parents_are_copied_in() {
    let tree = Fixture::new();
    tree.write("base/bin/tool", "tool");
    fs::set_permissions(tree.at("base/bin/tool"), fs::Permissions::from_mode(0o4755)).unwrap();
    symlink("bin", tree.at("base/sbin")).unwrap();
    tree.settle(&[
        link("one", b'1', "bin/tool"),
        link("d/two", b'1', "sbin/tool"),
    ])
    .unwrap();
    assert_eq!(tree.text("top/one"), "tool");
    assert_eq!(tree.mode("top/one"), 0o4755);
    let inode = |path: &str| fs::metadata(tree.at(path)).unwrap().ino();
    assert_eq!(inode("top/one"), inode("top/d/two"));
}

#[test]
fn a_hard_link_to_what_the_layer_deletes_has_the_parents_content() {
    let tree = Fixture::new();
    tree.write("base/old", "content");
    tree.settle(&[file(".wh.old", ""), link("new", b'1', "old")])
        .unwrap();
    assert_eq!(tree.text("top/new"), "content");
}

#[test]
fn a_hard_link_to_nothing_is_refused() {
    let tree = Fixture::new();
    let done = tree.settle(&[link("x", b'1', "nowhere")]);
    assert!(done.unwrap_err().to_string().contains("no layer has"));
    let tree = Fixture::new();
    fs::create_dir(tree.at("base/d")).unwrap();
    let done = tree.settle(&[link("x", b'1', "d")]);
    assert!(done.unwrap_err().to_string().contains("folder"));
}

#[test]
fn nothing_pending_is_no_error() {
    let tree = Fixture::new();
    settle(&tree.at("top"), &[]).unwrap();
}
