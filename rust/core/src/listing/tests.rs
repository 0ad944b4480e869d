//! Tests of `listing`.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::PathBuf;

use super::*;
use crate::cancel::Cancel;
use crate::select::Request;

struct Fixture {
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("lists")).unwrap();
        let fixture = Self { dir };
        for file in ["a", "app/run.sh", "app/x.py", "lib.d", "lib/deep/z"] {
            fixture.file(file, file);
        }
        symlink("a", fixture.path("link")).unwrap();
        fixture
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join("root").join(path)
    }

    fn file(&self, path: &str, content: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    }

    fn list(&self) -> PathBuf {
        let request = Request {
            patterns: &[".".to_owned()],
            ..Request::default()
        };
        let cancel = Cancel::default();
        let selection = Selection::new(&self.path(""), &request, &cancel).unwrap();
        selection.content_digest(None, &cancel).unwrap();
        let folder = self.dir.path().join("lists");
        folder.join(write(&[&selection], &folder).unwrap())
    }

    /// What differs after some change, as text.
    fn after(&self, change: impl FnOnce(&Self)) -> Vec<String> {
        let old = self.list();
        change(self);
        let compared = compare(&old, &self.list(), 100).unwrap();
        assert_eq!(compared.total, compared.differences.len());
        let line = |one: &Difference| {
            let path = String::from_utf8_lossy(&one.path);
            format!("{} {path} {} {}", one.change.name(), one.old, one.new)
        };
        compared.differences.iter().map(line).collect()
    }
}

#[test]
fn each_change_of_a_file_is_named() {
    let fixture = Fixture::new();
    let found = fixture.after(|fixture| {
        fixture.file("app/x.py", "longer than before");
        fs::set_permissions(
            fixture.path("app/run.sh"),
            fs::Permissions::from_mode(0o664),
        )
        .unwrap();
        fs::remove_file(fixture.path("a")).unwrap();
        fs::remove_file(fixture.path("link")).unwrap();
        symlink("lib.d", fixture.path("link")).unwrap();
        fixture.file("b", "");
    });
    assert_eq!(
        found,
        [
            "removed a  ",
            "mode app/run.sh 644 664",
            "content app/x.py 8 18",
            "added b  ",
            "target link a lib.d",
        ]
    );
}

#[test]
fn the_same_files_give_one_listing_and_no_difference() {
    let fixture = Fixture::new();
    let old = fixture.list();
    fixture.file("a", "a");
    assert_eq!(fixture.list(), old);
    assert_eq!(compare(&old, &old, 9), Some(Compared::default()));
    assert_eq!(fs::read_dir(old.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn equal_lengths_are_no_equal_contents() {
    let fixture = Fixture::new();
    let found = fixture.after(|fixture| fixture.file("a", "b"));
    assert_eq!(found, ["content a 1 1"]);
}

#[test]
fn a_folder_that_came_or_went_is_told_once() {
    let fixture = Fixture::new();
    let old = fixture.list();
    fs::remove_dir_all(fixture.path("lib")).unwrap();
    for number in 0..50 {
        fixture.file(&format!("new/{number}/x"), "");
    }
    let compared = compare(&old, &fixture.list(), 9).unwrap();
    assert_eq!((compared.added, compared.removed), (101, 3));
    let told: Vec<(&[u8], &str)> = compared
        .differences
        .iter()
        .map(|one| (one.path.as_slice(), one.new.as_str()))
        .collect();
    assert_eq!(told, [(&b"lib/"[..], "2"), (&b"new/"[..], "100")]);
}

#[test]
fn a_file_in_the_place_of_a_folder_is_a_change_of_type() {
    let fixture = Fixture::new();
    let found = fixture.after(|fixture| {
        fs::remove_dir_all(fixture.path("lib")).unwrap();
        fixture.file("lib", "");
        fs::remove_file(fixture.path("a")).unwrap();
        fixture.file("a/b", "");
    });
    assert_eq!(found, ["type a/ file folder", "type lib folder file"]);
}

#[test]
fn no_more_is_told_than_was_asked_for_and_all_is_counted() {
    let fixture = Fixture::new();
    let old = fixture.list();
    for number in 0..50 {
        fixture.file(&format!("n{number}"), "");
    }
    let compared = compare(&old, &fixture.list(), 3).unwrap();
    assert_eq!((compared.differences.len(), compared.total), (3, 50));
    assert_eq!(compared.added, 50);
}

#[test]
fn a_damaged_or_missing_listing_is_none() {
    let fixture = Fixture::new();
    let list = fixture.list();
    assert_eq!(compare(&list, &list.with_file_name("other"), 9), None);
    let good = fs::read(&list).unwrap();
    for length in [0, 4, good.len() / 2, good.len() - 1] {
        fs::write(&list, &good[..length]).unwrap();
        assert_eq!(compare(&list, &list, 9), None);
    }
    let other = zstd::bulk::compress(b"imglist1\xff\xff\xff\xff", 1).unwrap();
    fs::write(&list, other).unwrap();
    assert_eq!(compare(&list, &list, 9), None);
}
