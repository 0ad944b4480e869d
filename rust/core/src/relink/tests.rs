//! Tests of `relink`, through `copy`.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{symlink, MetadataExt, PermissionsExt};
use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::cancel::Cancel;
use crate::copy::{copy_layer, Request};
use crate::pack::pack_layer;
use crate::pipeline::Packed;
use crate::select::{self, Selection};

/// A context, and the layers that COPYs of it made.
struct Fixture {
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("context")).unwrap();
        Self { dir }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.path("context").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        let time = UNIX_EPOCH + Duration::from_secs(1_600_000_000);
        file.set_modified(time).unwrap();
    }

    /// Copies the context into the layer `name`, after the layer `earlier`.
    fn copy(&self, name: &str, earlier: Option<&str>) -> Packed {
        self.copy_with(name, earlier, Request::default())
    }

    fn copy_with(&self, name: &str, earlier: Option<&str>, request: Request) -> Packed {
        let selection = self.select();
        self.copy_selected(&selection, name, earlier, request)
    }

    fn select(&self) -> Selection {
        let request = select::Request {
            patterns: &[".".to_owned()],
            ..select::Request::default()
        };
        let context = self.path("context");
        let selection = Selection::new(&context, &request, &Cancel::default()).unwrap();
        selection.content_digest(None, &Cancel::default()).unwrap();
        selection
    }

    fn copy_selected(
        &self,
        selection: &Selection,
        name: &str,
        earlier: Option<&str>,
        request: Request,
    ) -> Packed {
        let upper = self.path(name);
        fs::create_dir(&upper).unwrap();
        let prints = |name: &str| self.path(&format!("{name}.prints"));
        let request = Request {
            dest: "/d/".to_owned(),
            threads: Some(2),
            earlier: earlier.map(|earlier| (self.path(earlier), prints(earlier))),
            fingerprints: Some(prints(name)),
            ..request
        };
        let packed = copy_layer(&[selection], &[], &upper, &request, &Cancel::default()).unwrap();
        let again = pack_layer(&upper, &crate::pack::Request::default(), &Cancel::default());
        assert_eq!(packed.diff_id, again.unwrap().diff_id);
        packed
    }

    fn inode(&self, path: &str) -> u64 {
        fs::symlink_metadata(self.path(path)).unwrap().ino()
    }

    /// Which of the files in `d` two layers share.
    fn shared(&self, one: &str, other: &str) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path(other).join("d"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| {
                let there = self.path(one).join("d").join(name);
                let here = self.inode(&format!("{other}/d/{name}"));
                fs::symlink_metadata(there).is_ok_and(|found| found.ino() == here)
            })
            .collect();
        names.sort();
        names
    }

    /// What a copy that has no earlier layer gives.
    fn alone(&self) -> Packed {
        let packed = self.copy("alone", None);
        fs::remove_dir_all(self.path("alone")).unwrap();
        packed
    }
}

#[test]
fn what_is_the_same_is_shared_and_the_layer_is_the_one_that_a_copy_gives() {
    let fixture = Fixture::new();
    for name in ["same", "content", "mode", "time", "gone", "type", "empty"] {
        fixture.write(name, if name == "empty" { "" } else { name });
    }
    let first = fixture.copy("a", None);
    let before = fs::read(fixture.path("a/d/content")).unwrap();
    fixture.write("content", "CONTENT");
    let context = fixture.path("context");
    fs::set_permissions(context.join("mode"), fs::Permissions::from_mode(0o600)).unwrap();
    let time = File::options().write(true).open(context.join("time"));
    time.unwrap().set_modified(UNIX_EPOCH).unwrap();
    fs::remove_file(context.join("gone")).unwrap();
    fs::remove_file(context.join("type")).unwrap();
    symlink("same", context.join("type")).unwrap();
    fixture.write("new", "new");
    let second = fixture.copy("b", Some("a"));
    assert_ne!(first.diff_id, second.diff_id);
    assert_eq!(second, fixture.alone());
    assert_eq!(fixture.shared("a", "b"), ["empty", "same"]);
    assert_eq!(fs::metadata(fixture.path("b/d/same")).unwrap().nlink(), 2);
    assert_eq!(fs::read(fixture.path("a/d/content")).unwrap(), before);
}

#[test]
fn a_layer_of_shared_files_is_shared_with_in_turn_and_outlives_the_first() {
    let fixture = Fixture::new();
    fixture.write("f", "one");
    fixture.copy("a", None);
    fixture.write("g", "two");
    fixture.copy("b", Some("a"));
    fs::remove_dir_all(fixture.path("a")).unwrap();
    fixture.write("h", "three");
    assert_eq!(fixture.copy("c", Some("b")), fixture.alone());
    assert_eq!(fixture.shared("b", "c"), ["f", "g"]);
}

#[test]
fn a_mode_that_chmod_gives_is_compared_as_the_layer_has_it() {
    let fixture = Fixture::new();
    fixture.write("f", "one");
    let with = |mode: &str| Request {
        mode: Some(mode.to_owned()),
        ..Request::default()
    };
    fixture.copy_with("a", None, with("u=rw,go="));
    fixture.copy_with("b", Some("a"), with("600"));
    fixture.copy_with("c", Some("b"), with("640"));
    assert_eq!(fixture.shared("a", "b"), ["f"]);
    assert!(fixture.shared("b", "c").is_empty());
}

#[test]
fn a_damaged_file_of_the_earlier_layer_is_told_and_nothing_is_taken_from_it() {
    let fixture = Fixture::new();
    fixture.write("f", "one");
    fixture.write("g", "two");
    fixture.copy("a", None);
    let time = fs::metadata(fixture.path("a/d/f")).unwrap().modified();
    fs::write(fixture.path("a/d/f"), "ONE").unwrap();
    let file = File::options().write(true).open(fixture.path("a/d/f"));
    file.unwrap().set_modified(time.unwrap()).unwrap();
    let packed = fixture.copy("b", Some("a"));
    let damaged = fixture.path("a/d/f").display().to_string();
    assert_eq!(packed.damaged.as_deref(), Some(&*damaged));
    assert_eq!(packed.diff_id, fixture.alone().diff_id);
    assert!(fixture.shared("a", "b").is_empty());
    assert_eq!(fs::read(fixture.path("b/d/f")).unwrap(), b"one");
}

#[test]
fn a_file_of_the_earlier_layer_that_is_short_or_gone_or_a_link_is_copied() {
    let fixture = Fixture::new();
    for name in ["short", "gone", "link", "fine"] {
        fixture.write(name, name);
    }
    fixture.copy("a", None);
    fs::write(fixture.path("a/d/short"), "").unwrap();
    fs::remove_file(fixture.path("a/d/gone")).unwrap();
    fs::remove_file(fixture.path("a/d/link")).unwrap();
    fs::write(fixture.path("a/d/elsewhere"), "link").unwrap();
    symlink("elsewhere", fixture.path("a/d/link")).unwrap();
    assert_eq!(fixture.copy("b", Some("a")), fixture.alone());
    assert_eq!(fixture.shared("a", "b"), ["fine"]);
}

#[test]
fn without_a_layer_or_its_fingerprints_all_is_copied() {
    let fixture = Fixture::new();
    fixture.write("f", "one");
    fixture.copy("a", None);
    fs::write(fixture.path("a.prints"), "something else").unwrap();
    fixture.copy("b", Some("a"));
    assert!(fixture.shared("a", "b").is_empty());
    fs::rename(fixture.path("b"), fixture.path("moved")).unwrap();
    fixture.copy("c", Some("b"));
    assert!(fixture.shared("moved", "c").is_empty());
}

#[test]
fn names_of_one_file_stay_together_and_are_nobody_elses() {
    let fixture = Fixture::new();
    fixture.write("f", "one");
    let context = fixture.path("context");
    fs::hard_link(context.join("f"), context.join("g")).unwrap();
    fixture.copy("a", None);
    assert_eq!(fixture.inode("a/d/f"), fixture.inode("a/d/g"));
    fs::remove_file(context.join("g")).unwrap();
    fixture.write("g", "one");
    assert_eq!(fixture.copy("b", Some("a")), fixture.alone());
    assert_ne!(fixture.inode("b/d/f"), fixture.inode("b/d/g"));
    assert!(fixture.shared("a", "b").is_empty());
    fs::remove_file(context.join("g")).unwrap();
    fs::hard_link(context.join("f"), context.join("g")).unwrap();
    assert_eq!(fixture.copy("c", Some("b")), fixture.alone());
    assert_eq!(fixture.shared("b", "c"), ["f"]);
}

#[test]
fn extended_attributes_are_compared_as_well() {
    let fixture = Fixture::new();
    fixture.write("f", "one");
    fixture.write("g", "two");
    let set = |value: &[u8]| {
        let (path, flags) = (fixture.path("context/f"), rustix::fs::XattrFlags::empty());
        rustix::fs::setxattr(&path, "user.mark", value, flags).unwrap();
    };
    set(b"1");
    fixture.copy("a", None);
    assert_eq!(fixture.copy("b", Some("a")), fixture.alone());
    assert_eq!(fixture.shared("a", "b"), ["f", "g"]);
    set(b"2");
    assert_eq!(fixture.copy("c", Some("b")), fixture.alone());
    assert_eq!(fixture.shared("b", "c"), ["g"]);
}

#[test]
fn a_file_that_changes_after_it_was_digested_is_what_its_digest_says_or_told() {
    let fixture = Fixture::new();
    fixture.write("f", "one");
    fixture.write("g", "two");
    let first = fixture.copy("a", None);
    let selection = fixture.select();
    fixture.write("f", "ONE");
    let shared = fixture.copy_selected(&selection, "b", Some("a"), Request::default());
    assert_eq!((&shared.diff_id, &shared.drifted), (&first.diff_id, &None));
    assert_eq!(fs::read(fixture.path("b/d/f")).unwrap(), b"one");
    let copied = fixture.copy_selected(&selection, "c", None, Request::default());
    assert_eq!(copied.drifted.as_deref(), Some("f"));
}

#[test]
fn a_file_with_as_many_names_as_it_can_have_is_copied() {
    let fixture = Fixture::new();
    fixture.write("f", "one");
    fixture.copy("a", None);
    let folder = fixture.path("names");
    fs::create_dir(&folder).unwrap();
    let full = (0..70_000).any(|number| {
        let name = folder.join(number.to_string());
        fs::hard_link(fixture.path("a/d/f"), name).is_err()
    });
    fixture.write("g", "two");
    assert_eq!(fixture.copy("b", Some("a")), fixture.alone());
    // Some file systems (tmpfs) know no limit.
    assert_eq!(fixture.shared("a", "b").is_empty(), full);
    assert_eq!(fs::read(fixture.path("b/d/f")).unwrap(), b"one");
}

#[test]
fn another_file_system_is_copied_to() {
    let fixture = Fixture::new();
    fixture.write("f", "one");
    fixture.copy("a", None);
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let prints = fixture.path("a.prints");
    let earlier = Earlier::open(&fixture.path("a"), &prints).unwrap();
    let other = File::open(memory.path()).unwrap();
    let here = fs::metadata(fixture.path("a")).unwrap().dev();
    if fs::metadata(memory.path()).unwrap().dev() != here {
        fs::create_dir(memory.path().join("d")).unwrap();
        let refused = earlier.link(b"d/f", other.as_fd());
        assert_eq!(refused, Err(Errno::XDEV));
    }
    let selection = fixture.select();
    let upper = memory.path().join("upper");
    fs::create_dir(&upper).unwrap();
    let request = Request {
        dest: "/d/".to_owned(),
        earlier: Some((fixture.path("a"), prints)),
        ..Request::default()
    };
    let packed = copy_layer(&[&selection], &[], &upper, &request, &Cancel::default()).unwrap();
    assert_eq!(packed, fixture.alone());
    assert_eq!(fs::read(upper.join("d/f")).unwrap(), b"one");
}
