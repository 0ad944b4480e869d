//! Tests of `changes`.

#![allow(clippy::unwrap_used)]
use super::*;
use crate::attrs::{read, Mark};
use crate::flatten::flatten;
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{symlink, MetadataExt, PermissionsExt};
use std::sync::atomic::AtomicBool;

/// Layers, the tree flattened from them, and the upper folder to fill.
struct Fixture {
    dir: tempfile::TempDir,
    layers: Vec<PathBuf>,
    before: Before,
}

/// A tree of the names in `files` (a trailing `/` is a folder), recorded.
fn fixture(files: &[&str]) -> Fixture {
    with_layer(|layer| {
        for name in files {
            let path = layer.join(name);
            if name.ends_with('/') {
                fs::create_dir_all(path).unwrap();
            } else {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "content").unwrap();
            }
        }
    })
}

fn with_layer(fill: impl FnOnce(&Path)) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let layer = dir.path().join("layer");
    for name in ["layer", "root", "upper"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    fill(&layer);
    let (layers, root) = (vec![layer], dir.path().join("root"));
    flatten(&layers, &root, Owners::Keep, &AtomicBool::new(false)).unwrap();
    let before = Before::record(&root, &Cancel::default()).unwrap();
    Fixture {
        dir,
        layers,
        before,
    }
}

impl Fixture {
    fn root(&self, path: &str) -> PathBuf {
        self.dir.path().join("root").join(path)
    }

    fn upper(&self, path: &str) -> PathBuf {
        self.dir.path().join("upper").join(path)
    }

    /// Computes the changes: each path of the upper folder, with `=` for a plain object,
    /// `-` for a whiteout, `!` for an opaque folder.
    fn changes(&self) -> Vec<String> {
        let upper = self.upper("");
        self.before
            .changes(&self.layers, &upper, &Cancel::default())
            .unwrap();
        let mut found = BTreeMap::new();
        list(&upper, "", &mut found);
        let line = |(path, mark): (String, Mark)| match mark {
            Mark::Plain => format!("={path}"),
            Mark::Whiteout => format!("-{path}"),
            Mark::Opaque => format!("!{path}"),
        };
        found.into_iter().map(line).collect()
    }
}

fn list(folder: &Path, prefix: &str, found: &mut BTreeMap<String, Mark>) {
    let open = File::open(folder).unwrap();
    for name in names_of(open.as_fd()).unwrap() {
        let path = format!("{prefix}{}", name.to_str().unwrap());
        let attrs = read(open.as_fd(), &name).unwrap().unwrap();
        found.insert(path.clone(), attrs.mark);
        if folder.join(&name).symlink_metadata().unwrap().is_dir() {
            list(&folder.join(&name), &format!("{path}/"), found);
        }
    }
}

fn set_times(path: &Path, from: &Path) {
    let time = fs::metadata(from).unwrap().modified().unwrap();
    File::open(path).unwrap().set_modified(time).unwrap();
}

#[test]
fn nothing_done_is_no_change() {
    let tree = fixture(&["etc/passwd", "empty/", "a/b/c"]);
    fs::read(tree.root("etc/passwd")).unwrap();
    assert!(tree.changes().is_empty());
}

#[test]
fn new_objects_come_with_the_folders_that_lead_to_them() {
    let tree = fixture(&["etc/passwd", "usr/lib/x", "usr/share/y"]);
    fs::write(tree.root("usr/lib/new"), "new").unwrap();
    symlink("x", tree.root("usr/lib/link")).unwrap();
    fs::create_dir_all(tree.root("opt/deep")).unwrap();
    fs::write(tree.root("opt/deep/file"), "new").unwrap();
    let wanted = [
        "=opt",
        "=opt/deep",
        "=opt/deep/file",
        "=usr",
        "=usr/lib",
        "=usr/lib/link",
        "=usr/lib/new",
    ];
    assert_eq!(tree.changes(), wanted);
    assert_eq!(fs::read(tree.upper("usr/lib/new")).unwrap(), b"new");
}

#[test]
fn a_change_that_keeps_size_and_time_is_seen() {
    let tree = fixture(&["a", "b"]);
    fs::write(tree.root("a"), "CONTENT").unwrap();
    set_times(&tree.root("a"), &tree.layers[0].join("a"));
    let (then, now) = (tree.layers[0].join("a"), tree.root("a"));
    let (then, now) = (fs::metadata(then).unwrap(), fs::metadata(now).unwrap());
    assert_eq!(
        (then.len(), then.mtime(), then.mtime_nsec()),
        (now.len(), now.mtime(), now.mtime_nsec())
    );
    assert_eq!(tree.changes(), ["=a"]);
    assert_eq!(fs::read(tree.upper("a")).unwrap(), b"CONTENT");
}

#[test]
fn modes_of_files_and_folders_are_changes() {
    let tree = fixture(&["d/f", "e/f"]);
    fs::set_permissions(tree.root("d/f"), Permissions::from_mode(0o4755)).unwrap();
    fs::set_permissions(tree.root("e"), Permissions::from_mode(0o1777)).unwrap();
    assert_eq!(tree.changes(), ["=d", "=d/f", "=e"]);
    let mode = |path| fs::metadata(tree.upper(path)).unwrap().mode() & 0o7777;
    assert_eq!((mode("d/f"), mode("e")), (0o4755, 0o1777));
}

#[test]
fn an_attribute_of_a_folder_is_a_change() {
    let tree = fixture(&["d/f", "e/f"]);
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(tree.root("d"), "user.note", b"x", flags).unwrap();
    assert_eq!(tree.changes(), ["=d"]);
    let mut value = [0_u8; 8];
    let length = rustix::fs::getxattr(tree.upper("d"), "user.note", &mut value[..]).unwrap();
    assert_eq!(&value[..length], b"x");
}

#[test]
fn an_attribute_of_a_file_is_a_change() {
    let tree = fixture(&["d/f", "e/f"]);
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(tree.root("d/f"), "user.note", b"x", flags).unwrap();
    assert_eq!(tree.changes(), ["=d", "=d/f"]);
    let mut value = [0_u8; 8];
    let length = rustix::fs::getxattr(tree.upper("d/f"), "user.note", &mut value[..]).unwrap();
    assert_eq!(&value[..length], b"x");
}

#[test]
fn owners_are_changes() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let tree = fixture(&["f", "g", "d/f"]);
    std::os::unix::fs::chown(tree.root("f"), Some(7), Some(8)).unwrap();
    std::os::unix::fs::chown(tree.root("d"), Some(7), Some(8)).unwrap();
    assert_eq!(tree.changes(), ["=d", "=f"]);
    for name in ["d", "f"] {
        let found = fs::metadata(tree.upper(name)).unwrap();
        assert_eq!((found.uid(), found.gid()), (7, 8), "{name}");
    }
}

#[test]
fn what_was_deleted_is_a_whiteout() {
    let tree = fixture(&["etc/a", "etc/b", "lib/x/y"]);
    fs::remove_file(tree.root("etc/a")).unwrap();
    fs::remove_dir_all(tree.root("lib/x")).unwrap();
    assert_eq!(tree.changes(), ["=etc", "-etc/a", "=lib", "-lib/x"]);
}

#[test]
fn a_folder_that_was_made_anew_is_opaque() {
    let tree = fixture(&["d/old", "d/deep/old", "f"]);
    fs::remove_dir_all(tree.root("d")).unwrap();
    fs::create_dir(tree.root("d")).unwrap();
    fs::write(tree.root("d/new"), "").unwrap();
    fs::remove_file(tree.root("f")).unwrap();
    fs::create_dir(tree.root("f")).unwrap();
    assert_eq!(tree.changes(), ["!d", "=d/new", "!f"]);
}

#[test]
fn a_file_in_a_folders_place_needs_no_mark() {
    let tree = fixture(&["d/old", "e/old"]);
    fs::remove_dir_all(tree.root("d")).unwrap();
    fs::write(tree.root("d"), "").unwrap();
    fs::remove_dir_all(tree.root("e")).unwrap();
    symlink("d", tree.root("e")).unwrap();
    assert_eq!(tree.changes(), ["=d", "=e"]);
}

#[test]
fn a_renamed_folder_is_new_and_its_old_name_is_gone() {
    let tree = fixture(&["old/a/b", "other"]);
    fs::rename(tree.root("old"), tree.root("new")).unwrap();
    assert_eq!(tree.changes(), ["=new", "=new/a", "=new/a/b", "-old"]);
}

#[test]
fn folders_that_changed_places_are_both_replaced() {
    let tree = fixture(&["a/1", "b/2"]);
    fs::rename(tree.root("a"), tree.root("t")).unwrap();
    fs::rename(tree.root("b"), tree.root("a")).unwrap();
    fs::rename(tree.root("t"), tree.root("b")).unwrap();
    assert_eq!(tree.changes(), ["!a", "=a/2", "!b", "=b/1"]);
}

#[test]
fn a_new_hard_link_brings_its_file() {
    let tree = fixture(&["d/a", "e/"]);
    fs::hard_link(tree.root("d/a"), tree.root("e/b")).unwrap();
    assert_eq!(tree.changes(), ["=d", "=d/a", "=e", "=e/b"]);
    let inode = |path| fs::metadata(tree.upper(path)).unwrap().ino();
    assert_eq!(inode("d/a"), inode("e/b"));
}

#[test]
fn a_removed_hard_link_leaves_the_other_name_unchanged() {
    let linked = |layer: &Path| {
        fs::write(layer.join("a"), "content").unwrap();
        fs::hard_link(layer.join("a"), layer.join("b")).unwrap();
    };
    let tree = with_layer(linked);
    fs::remove_file(tree.root("a")).unwrap();
    assert_eq!(tree.changes(), ["-a"]);
    let tree = with_layer(linked);
    fs::remove_file(tree.root("a")).unwrap();
    fs::write(tree.root("b"), "CONTENT").unwrap();
    set_times(&tree.root("b"), &tree.layers[0].join("b"));
    assert_eq!(tree.changes(), ["-a", "=b"]);
}

#[test]
fn a_changed_symlink_is_a_change() {
    let tree = with_layer(|layer| symlink("one", layer.join("link")).unwrap());
    fs::remove_file(tree.root("link")).unwrap();
    symlink("two", tree.root("link")).unwrap();
    assert_eq!(tree.changes(), ["=link"]);
    let link = fs::read_link(tree.upper("link")).unwrap();
    assert_eq!(link, Path::new("two"));
}

#[test]
fn a_device_made_to_look_like_a_whiteout_deletes_nothing() {
    let tree = fixture(&["etc/a"]);
    fs::create_dir(tree.root("new")).unwrap();
    let device = |path: &str| {
        let mode = Mode::empty();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            tree.root(path),
            FileType::CharacterDevice,
            mode,
            0,
        )
        .unwrap();
    };
    device("etc/x");
    device("new/x");
    assert_eq!(tree.changes(), ["=etc", "=new"]);
}

#[test]
fn folders_keep_their_times() {
    let tree = fixture(&["d/a", "d/b"]);
    fs::remove_file(tree.root("d/a")).unwrap();
    let time = std::time::UNIX_EPOCH + Duration::new(1_000, 7);
    File::open(tree.root("d"))
        .unwrap()
        .set_modified(time)
        .unwrap();
    assert_eq!(tree.changes(), ["=d", "-d/a"]);
    assert_eq!(
        fs::metadata(tree.upper("d")).unwrap().modified().unwrap(),
        time
    );
}
