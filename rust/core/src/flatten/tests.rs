//! Tests of `flatten`.

#![allow(clippy::unwrap_used)]
use super::*;
use crate::attrs::{make_opaque, make_whiteout};
use std::fs::{self, File};
use std::os::unix::fs::{symlink, MetadataExt, PermissionsExt};

struct Fixture {
    dir: tempfile::TempDir,
    layers: Vec<PathBuf>,
}

fn fixture(count: usize) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let layers: Vec<_> = (0..count)
        .map(|index| dir.path().join(index.to_string()))
        .collect();
    for layer in &layers {
        fs::create_dir(layer).unwrap();
    }
    fs::create_dir(dir.path().join("flat")).unwrap();
    Fixture { dir, layers }
}

impl Fixture {
    fn file(&self, layer: usize, path: &str, content: &str) -> PathBuf {
        let path = self.layers[layer].join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    fn whiteout(&self, layer: usize, folder: &str, name: &str) {
        let folder = self.layers[layer].join(folder);
        fs::create_dir_all(&folder).unwrap();
        make_whiteout(File::open(folder).unwrap().as_fd(), OsStr::new(name)).unwrap();
    }

    fn flat(&self, path: &str) -> PathBuf {
        self.dir.path().join("flat").join(path)
    }

    fn run(&self, owners: Owners) {
        let stop = AtomicBool::new(false);
        flatten(&self.layers, &self.flat(""), owners, &stop).unwrap();
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.flat(path)).unwrap()
    }
}

#[test]
fn the_uppermost_wins_and_deleted_names_are_gone() {
    let tree = fixture(3);
    tree.file(0, "etc/a", "base");
    tree.file(0, "etc/b", "base");
    tree.file(0, "gone/x", "base");
    tree.file(1, "etc/a", "upper");
    tree.whiteout(1, "", "gone");
    tree.whiteout(2, "etc", "b");
    tree.whiteout(2, "etc", "never");
    tree.run(Owners::Keep);
    assert_eq!(tree.text("etc/a"), "upper");
    for gone in ["etc/b", "etc/never", "gone"] {
        assert!(!tree.flat(gone).exists(), "{gone}");
    }
}

#[test]
fn an_opaque_folder_hides_and_leaves_no_mark() {
    let tree = fixture(2);
    tree.file(0, "d/old", "x");
    tree.file(1, "d/new", "x");
    make_opaque(File::open(tree.layers[1].join("d")).unwrap().as_fd()).unwrap();
    tree.run(Owners::Keep);
    assert!(!tree.flat("d/old").exists() && tree.flat("d/new").exists());
    let found = read_open(File::open(tree.flat("d")).unwrap().as_fd())
        .unwrap()
        .unwrap();
    assert_eq!(found.mark, Mark::Plain);
}

#[test]
fn types_may_change_between_layers() {
    let tree = fixture(3);
    tree.file(0, "a/x", "0");
    tree.file(1, "a", "1");
    tree.file(2, "a/y", "2");
    tree.file(0, "b", "0");
    tree.file(1, "b/z", "1");
    symlink("/etc", tree.layers[2].join("b")).unwrap();
    tree.run(Owners::Keep);
    assert!(!tree.flat("a/x").exists());
    assert_eq!(tree.text("a/y"), "2");
    assert_eq!(fs::read_link(tree.flat("b")).unwrap(), Path::new("/etc"));
}

#[test]
fn hard_links_modes_and_times_are_kept() {
    let tree = fixture(1);
    let first = tree.file(0, "d/a", "x");
    fs::hard_link(&first, tree.layers[0].join("b")).unwrap();
    fs::set_permissions(&first, fs::Permissions::from_mode(0o4751)).unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::new(1_000, 7);
    File::open(tree.layers[0].join("d"))
        .unwrap()
        .set_modified(time)
        .unwrap();
    tree.run(Owners::Keep);
    let (a, b) = (
        fs::metadata(tree.flat("d/a")).unwrap(),
        fs::metadata(tree.flat("b")).unwrap(),
    );
    assert_eq!(a.ino(), b.ino());
    assert_eq!(a.mode() & 0o7777, 0o4751);
    assert_eq!(
        fs::metadata(tree.flat("d")).unwrap().modified().unwrap(),
        time
    );
}

#[test]
fn without_owners_everything_is_the_callers() {
    let tree = fixture(1);
    let path = tree.file(0, "a", "x");
    if std::os::unix::fs::chown(&path, Some(33), Some(44)).is_err() {
        return; // with one id there is no other to give it to
    }
    tree.run(Owners::Drop);
    assert_eq!(fs::metadata(tree.flat("a")).unwrap().uid(), 0);
}

#[test]
fn a_flattening_can_be_stopped() {
    let tree = fixture(1);
    tree.file(0, "a", "x");
    let stopped = flatten(
        &tree.layers,
        &tree.flat(""),
        Owners::Keep,
        &AtomicBool::new(true),
    );
    assert!(matches!(stopped, Err(Error::Interrupted)));
}
