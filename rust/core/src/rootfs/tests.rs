//! Tests of `rootfs`.

#![allow(clippy::unwrap_used)]
use super::*;
use std::os::unix::fs::symlink;

/// A tree over a plain folder: making mount points needs no mount.
fn tree(folder: &Path) -> Tree {
    let root = fs::open(folder, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let device = fs::fstat(&root).unwrap().st_dev;
    Tree {
        root,
        device,
        made: Vec::new(),
        empty: None,
    }
}

#[test]
fn a_missing_mount_point_is_made_and_taken_back_with_the_times() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("etc")).unwrap();
    let before = std::fs::metadata(folder.path().join("etc"))
        .unwrap()
        .modified()
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    let mut tree = tree(folder.path());
    tree.target(Path::new("/etc/a/b/file"), false).unwrap();
    assert!(folder.path().join("etc/a/b/file").is_file());
    assert_eq!(tree.made.len(), 3);
    take_back(folder.path(), &tree.made);
    assert!(!folder.path().join("etc/a").exists());
    assert_eq!(
        std::fs::metadata(folder.path().join("etc"))
            .unwrap()
            .modified()
            .unwrap(),
        before
    );
}

#[test]
fn a_mount_point_behind_a_dangling_absolute_symlink_is_made_inside_the_root() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("etc")).unwrap();
    symlink(
        "/run/x/../resolv.conf",
        folder.path().join("etc/resolv.conf"),
    )
    .unwrap();
    let mut tree = tree(folder.path());
    std::fs::create_dir_all(folder.path().join("run/x")).unwrap();
    tree.target(Path::new("/etc/resolv.conf"), false).unwrap();
    assert!(folder.path().join("run/resolv.conf").is_file());
    take_back(folder.path(), &tree.made);
    assert!(!folder.path().join("run/resolv.conf").exists());
    assert!(folder.path().join("etc/resolv.conf").is_symlink());
}

#[test]
fn a_symlink_that_climbs_out_stays_inside_the_root() {
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().join("root");
    std::fs::create_dir(&root).unwrap();
    symlink("../../../outside", root.join("link")).unwrap();
    let mut tree = tree(&root);
    tree.target(Path::new("/link/file"), false).unwrap();
    assert!(!outer.path().join("outside").exists());
    assert!(root.join("outside/file").is_file());
}

#[test]
fn a_symlink_loop_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    symlink("b", folder.path().join("a")).unwrap();
    symlink("a", folder.path().join("b")).unwrap();
    assert_eq!(
        tree(folder.path())
            .target(Path::new("/a/x"), false)
            .unwrap_err(),
        Errno::LOOP
    );
}

#[test]
fn a_mount_point_that_was_written_to_stays() {
    let folder = tempfile::tempdir().unwrap();
    let mut tree = tree(folder.path());
    tree.target(Path::new("/data/cache"), true).unwrap();
    std::fs::write(folder.path().join("data/kept"), "x").unwrap();
    take_back(folder.path(), &tree.made);
    assert!(folder.path().join("data/kept").exists() && !folder.path().join("data/cache").exists());
}

#[test]
fn an_unknown_option_of_a_bind_mount_is_refused() {
    let text = r#"{"destination":"/x","type":"bind","source":"/y","options":["idmap"]}"#;
    let mount: Mount = serde_json::from_str(text).unwrap();
    assert!(matches!(
        Options::parse(&mount),
        Err(Error::Unsupported { .. })
    ));
}
