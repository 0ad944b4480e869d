//! Tests of `remove`.

#![allow(clippy::unwrap_used)]
use super::*;
use crate::tree::disk_usage;
use std::fs;
use std::os::unix::fs::{symlink, PermissionsExt};

fn go() -> AtomicBool {
    AtomicBool::new(false)
}

fn tree() -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path().join("top");
    for folder in 0..20 {
        fs::create_dir_all(top.join(format!("d{folder}/e/f"))).unwrap();
        fs::write(top.join(format!("d{folder}/e/x")), vec![1; 5_000]).unwrap();
    }
    (dir, top)
}

#[test]
fn a_tree_goes_and_its_blocks_are_counted() {
    let (dir, top) = tree();
    fs::hard_link(top.join("d0/e/x"), top.join("d1/again")).unwrap();
    let held = disk_usage(&top, &go()).unwrap();
    assert!(held >= 20 * 8_192);
    assert_eq!(remove_tree(&top, &go()).unwrap(), held);
    assert!(!top.exists());
    assert_eq!(remove_tree(&top, &go()).unwrap(), 0);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_file_linked_from_elsewhere_gives_nothing_back() {
    let (dir, top) = tree();
    fs::hard_link(top.join("d0/e/x"), dir.path().join("kept")).unwrap();
    let held = disk_usage(&top, &go()).unwrap();
    assert_eq!(remove_tree(&top, &go()).unwrap(), held - 8_192);
}

#[test]
fn a_symlink_is_removed_and_not_what_it_names() {
    let (dir, top) = tree();
    fs::create_dir(dir.path().join("outside")).unwrap();
    fs::write(dir.path().join("outside/kept"), b"x").unwrap();
    symlink("../outside", top.join("link")).unwrap();
    symlink(dir.path().join("outside"), top.join("d3/link")).unwrap();
    remove_tree(&top, &go()).unwrap();
    assert!(dir.path().join("outside/kept").exists());
    symlink("outside", dir.path().join("itself")).unwrap();
    remove_tree(&dir.path().join("itself"), &go()).unwrap();
    assert!(dir.path().join("outside/kept").exists());
}

#[test]
fn folders_without_any_mode_go_too() {
    let (_dir, top) = tree();
    for path in ["d3/e/f", "d3/e", "d3", "d4/e"] {
        fs::set_permissions(top.join(path), fs::Permissions::from_mode(0o0)).unwrap();
    }
    remove_tree(&top, &go()).unwrap();
    assert!(!top.exists());
}

#[test]
fn a_single_thread_removal_takes_all_below() {
    let (dir, top) = tree();
    let parent = fs::File::open(dir.path()).unwrap();
    remove_at(parent.as_fd(), OsStr::new("top")).unwrap();
    assert!(!top.exists());
    remove_at(parent.as_fd(), OsStr::new("top")).unwrap();
}

#[test]
fn a_removal_can_be_stopped() {
    let (_dir, top) = tree();
    let stopped = remove_tree(&top, &AtomicBool::new(true));
    assert!(matches!(stopped, Err(Error::Interrupted)));
}

#[test]
fn a_chain_deeper_than_any_path_costs_few_descriptors() {
    for alone in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let top = fs::File::open(dir.path()).unwrap();
        let mut folder: OwnedFd = top.try_clone().unwrap().into();
        for _ in 0..3_000 {
            rustix::fs::mkdirat(&folder, "deep", rustix::fs::Mode::from_raw_mode(0o500)).unwrap();
            let next = open_folder(folder.as_fd(), OsStr::new("deep"), true).unwrap();
            // Names that the removal would give: taken, by a file and by a folder.
            rustix::fs::mkdirat(
                &next,
                ".img-removed-0",
                rustix::fs::Mode::from_raw_mode(0o700),
            )
            .unwrap();
            crate::attrs::create(
                next.as_fd(),
                OsStr::new(".img-removed-1"),
                rustix::fs::Mode::empty(),
            )
            .unwrap();
            folder = next;
        }
        if alone {
            remove_at(top.as_fd(), OsStr::new("deep")).unwrap();
        } else {
            remove_tree(&dir.path().join("deep"), &go()).unwrap();
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

#[test]
fn wide_folders_go_whole_and_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path().join("top");
    for number in 0..5_000 {
        fs::create_dir_all(top.join(format!("folders/{number}/x"))).unwrap();
        fs::create_dir_all(top.join("files")).unwrap();
        fs::write(top.join(format!("files/{number}")), b"x").unwrap();
    }
    let held = disk_usage(&top, &go()).unwrap();
    assert_eq!(remove_tree(&top, &go()).unwrap(), held);
    assert!(!top.exists());
}
