//! Tests of `stack`.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::symlink;

use super::*;

struct Fixture {
    dir: tempfile::TempDir,
    stack: Stack,
}

fn layers(count: usize) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let dirs: Vec<PathBuf> = (0..count)
        .map(|index| dir.path().join(index.to_string()))
        .collect();
    for layer in &dirs {
        fs::create_dir(layer).unwrap();
    }
    Fixture {
        stack: Stack::new(dirs),
        dir,
    }
}

impl Fixture {
    fn at(&self, layer: usize, path: &str) -> PathBuf {
        let on_disk = self.dir.path().join(layer.to_string()).join(path);
        fs::create_dir_all(on_disk.parent().unwrap()).unwrap();
        on_disk
    }

    fn file(&self, layer: usize, path: &str) {
        fs::write(self.at(layer, path), format!("{layer}:{path}")).unwrap();
    }

    fn link(&self, layer: usize, path: &str, target: &str) {
        symlink(target, self.at(layer, path)).unwrap();
    }

    fn whiteout(&self, layer: usize, path: &str) {
        let on_disk = self.at(layer, path);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            on_disk,
            FileType::CharacterDevice,
            Mode::empty(),
            0,
        )
        .unwrap();
    }

    fn opaque(&self, layer: usize, path: &str) {
        let on_disk = self.at(layer, path);
        fs::create_dir_all(&on_disk).unwrap();
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::lsetxattr(on_disk, XATTR_OPAQUE, b"y", flags).unwrap();
    }

    fn layer_of(&self, path: &str) -> Option<usize> {
        self.stack
            .lookup(Path::new(path))
            .unwrap()
            .map(|found| found.layer)
    }

    fn resolve(&self, path: &str) -> String {
        let real = self.stack.resolve(Path::new(path)).unwrap();
        real.to_str().unwrap().to_owned()
    }
}

#[test]
fn the_uppermost_file_wins_and_folders_merge() {
    let tree = layers(3);
    tree.file(0, "etc/passwd");
    tree.file(0, "etc/group");
    tree.file(2, "etc/passwd");
    assert_eq!(tree.layer_of("/etc/passwd"), Some(2));
    assert_eq!(tree.layer_of("etc/group"), Some(0));
    assert_eq!(tree.layer_of("etc"), Some(2));
    assert_eq!(tree.layer_of("/"), Some(2));
    assert_eq!(tree.layer_of("etc/shadow"), None);
    assert_eq!(tree.layer_of("etc/passwd/below"), None);
}

#[test]
fn a_whiteout_hides_what_is_below() {
    let tree = layers(3);
    tree.file(0, "a/b/c");
    tree.whiteout(1, "a/b");
    assert_eq!(tree.layer_of("a/b"), None);
    assert_eq!(tree.layer_of("a/b/c"), None);
    tree.file(2, "a/b/d");
    assert_eq!(tree.layer_of("a/b"), Some(2));
    assert_eq!(tree.layer_of("a/b/c"), None);
    assert_eq!(tree.layer_of("a/b/d"), Some(2));
}

#[test]
fn an_opaque_folder_hides_what_is_below() {
    let tree = layers(2);
    tree.file(0, "a/old");
    tree.opaque(1, "a");
    tree.file(1, "a/new");
    assert_eq!(tree.layer_of("a/old"), None);
    assert_eq!(tree.layer_of("a/new"), Some(1));
}

#[test]
fn a_file_over_a_folder_hides_it_and_a_folder_over_a_file_starts_anew() {
    let tree = layers(3);
    tree.file(0, "a/x");
    tree.file(1, "a");
    assert_eq!(tree.layer_of("a"), Some(1));
    assert_eq!(tree.layer_of("a/x"), None);
    tree.file(2, "a/y");
    assert_eq!(tree.layer_of("a"), Some(2));
    assert_eq!(tree.layer_of("a/x"), None);
}

#[test]
fn lookup_follows_no_symlink() {
    let tree = layers(1);
    tree.file(0, "real/x");
    tree.link(0, "link", "real");
    tree.link(0, "host", "/etc");
    assert!(tree
        .stack
        .lookup(Path::new("link"))
        .unwrap()
        .unwrap()
        .is_symlink());
    assert_eq!(tree.layer_of("link/x"), None);
    assert_eq!(tree.layer_of("host/passwd"), None);
    assert_eq!(tree.layer_of("real/../real/x"), None);
}

#[test]
fn a_symlink_of_one_layer_is_not_followed_in_another() {
    let tree = layers(2);
    tree.link(0, "lib", "/etc");
    tree.file(1, "lib/x");
    assert_eq!(tree.layer_of("lib/passwd"), None);
    assert_eq!(tree.layer_of("lib/x"), Some(1));
}

#[test]
fn resolve_restarts_absolute_targets_at_the_root() {
    let tree = layers(2);
    tree.file(0, "usr/lib/x");
    tree.link(0, "lib", "/usr/lib");
    tree.link(1, "usr/lib/up", "../lib/x");
    assert_eq!(tree.resolve("/lib/x"), "usr/lib/x");
    assert_eq!(tree.resolve("/lib/up"), "usr/lib/x");
    assert_eq!(tree.resolve("/lib"), "usr/lib");
}

#[test]
fn resolve_clamps_parent_steps() {
    let tree = layers(1);
    tree.link(0, "out", "../../../../etc");
    assert_eq!(tree.resolve("/out/passwd"), "etc/passwd");
    assert_eq!(tree.resolve("../../x"), "x");
    assert_eq!(tree.resolve("/"), "");
    assert_eq!(tree.resolve("a/./b/../c"), "a/c");
}

#[test]
fn resolve_takes_missing_tails_as_written() {
    let tree = layers(1);
    tree.file(0, "opt/x");
    tree.link(0, "app", "opt/app");
    assert_eq!(tree.resolve("/app/new/deep"), "opt/app/new/deep");
    assert_eq!(tree.resolve("/opt/x/y"), "opt/x/y");
    assert_eq!(tree.resolve("/new/../opt/z"), "opt/z");
}

#[test]
fn resolve_ends_loops() {
    let tree = layers(1);
    tree.link(0, "a", "b");
    tree.link(0, "b", "a");
    let error = tree.stack.resolve(Path::new("/a/x")).unwrap_err();
    assert!(error.to_string().contains("symbolic links"), "{error}");
}

#[test]
fn resolve_below_a_folder_takes_it_for_the_root_and_does_not_leave_it() {
    let tree = layers(2);
    tree.file(0, "r/usr/lib/x");
    for (name, target) in [
        ("lib", "usr/lib"),
        ("abs", "/usr"),
        ("up", "../b"),
        ("a", "a"),
    ] {
        tree.link(1, &format!("r/{name}"), target);
    }
    tree.link(1, "r/usr/back", "../lib");
    let resolve = |path: &str| tree.stack.resolve_below(Path::new("r"), Path::new(path));
    assert_eq!(resolve("r/lib/x").unwrap(), Path::new("r/usr/lib/x"));
    assert_eq!(resolve("r/abs/n").unwrap(), Path::new("r/usr/n"));
    assert_eq!(resolve("r/usr/back").unwrap(), Path::new("r/usr/lib"));
    assert!(resolve("r/up/x").is_err());
    assert!(resolve("r/a/x").is_err());
}

#[test]
fn reading_in_layers_stays_inside_and_is_bounded() {
    let tree = layers(2);
    tree.file(0, "usr/etc/passwd");
    tree.link(0, "etc", "/usr/etc");
    tree.link(1, "esc", "/nowhere/else");
    let read = |path: &str, limit| read_in_layers(tree.stack.dirs(), Path::new(path), limit);
    assert_eq!(
        read("/etc/passwd", 100).unwrap().unwrap(),
        b"0:usr/etc/passwd"
    );
    assert_eq!(read("/esc", 100).unwrap(), None);
    assert_eq!(read("/etc", 100).unwrap(), None);
    assert!(read("/etc/passwd", 3).is_err());
    assert_eq!(read_in_layers(&[], Path::new("/etc"), 3).unwrap(), None);
}
