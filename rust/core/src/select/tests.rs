//! Tests of `select`.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{symlink, PermissionsExt};

use super::*;
use crate::memo::DigestMemo;
use crate::Error;

/// Destinations, as a tour shows them; the same as are told of each object alone.
fn dests(selection: &Selection) -> Vec<String> {
    let (mut found, mut tour) = (Vec::new(), selection.tour());
    while let Some(at) = tour.next() {
        assert_eq!(tour.dest(), selection.dest(at));
        assert_eq!(tour.path(), selection.path(at));
        found.push(String::from_utf8(selection.dest(at)).unwrap());
    }
    assert_eq!(found.len(), selection.count());
    found
}

struct Fixture {
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for file in [
            "a.txt",
            "b.md",
            "src/x.c",
            "src/deep/y.c",
            "src/deep.c",
            "lib/z",
        ] {
            let path = dir.path().join("root").join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
        symlink("x.c", dir.path().join("root/src/link")).unwrap();
        Self { dir }
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.dir.path().join("root").join(path)
    }

    fn try_select(
        &self,
        patterns: &[&str],
        ignore: &[&str],
        exclude: &[&str],
    ) -> Result<Selection> {
        self.try_request(patterns, ignore, exclude, false)
    }

    fn try_request(
        &self,
        patterns: &[&str],
        ignore: &[&str],
        exclude: &[&str],
        parents: bool,
    ) -> Result<Selection> {
        let bytes = |lines: &[&str]| {
            let lines = lines.iter().map(|line| line.as_bytes().to_vec());
            lines.collect::<Vec<_>>()
        };
        let words: Vec<String> = patterns.iter().map(|&word| word.to_owned()).collect();
        let request = Request {
            patterns: &words,
            ignore: &bytes(ignore),
            exclude: &bytes(exclude),
            hidden: true,
            parents,
            ..Request::default()
        };
        Selection::new(&self.path(""), &request, &Cancel::default())
    }

    fn names(&self, patterns: &[&str], ignore: &[&str], exclude: &[&str]) -> Vec<String> {
        dests(&self.try_select(patterns, ignore, exclude).unwrap())
    }

    fn hidden(&self, patterns: &[&str], ignore: &[&str]) -> Vec<String> {
        let selection = self.try_select(patterns, ignore, &[]).unwrap();
        let text = |path: &Vec<u8>| String::from_utf8(path.clone()).unwrap();
        let mut hidden: Vec<String> = selection.hidden().iter().map(text).collect();
        hidden.sort();
        hidden
    }

    fn with_parents(&self, pattern: &str, exclude: &[&str]) -> Vec<String> {
        dests(&self.try_request(&[pattern], &[], exclude, true).unwrap())
    }

    fn digest(&self, patterns: &[&str], memo: Option<&DigestMemo>) -> String {
        let selection = self.try_select(patterns, &[], &[]).unwrap();
        selection.content_digest(memo, &Cancel::default()).unwrap()
    }
}

#[test]
fn a_folder_means_its_contents_and_a_file_itself() {
    let tree = Fixture::new();
    let contents = ["deep", "deep/y.c", "deep.c", "link", "x.c"];
    assert_eq!(tree.names(&["src"], &[], &[]), contents);
    assert_eq!(tree.names(&["src/x.c"], &[], &[]), ["x.c"]);
    assert_eq!(tree.names(&["."], &[], &[]).len(), 10);
}

#[test]
fn ignored_names_are_left_out_and_exceptions_come_back() {
    let tree = Fixture::new();
    assert_eq!(
        tree.names(&["."], &["src/deep", "*.md", "lib"], &[]),
        ["a.txt", "src", "src/deep.c", "src/link", "src/x.c"]
    );
    assert_eq!(
        tree.names(&["."], &["*", "!src/deep/y.c"], &[]),
        ["src", "src/deep", "src/deep/y.c"]
    );
    assert_eq!(tree.names(&["src"], &["src/*", "!src/x.c"], &[]), ["x.c"]);
    assert!(tree
        .try_select(&["a*", "b*"], &["a.txt"], &[])
        .unwrap()
        .ignored());
}

#[test]
fn what_is_left_out_is_known_by_its_topmost_names() {
    let tree = Fixture::new();
    assert_eq!(
        tree.hidden(&["."], &["src/deep", "*.md", "lib"]),
        ["b.md", "lib", "src/deep"]
    );
    assert_eq!(
        tree.hidden(&["src"], &["src/deep", "!src/deep/none"]),
        ["src/deep"]
    );
    assert_eq!(tree.hidden(&["src"], &["**/y.c"]), ["src/deep/y.c"]);
}

#[test]
fn exclude_is_relative_to_each_folder_and_no_matter_for_files() {
    let tree = Fixture::new();
    assert_eq!(
        tree.names(&["src"], &[], &["deep", "link"]),
        ["deep.c", "x.c"]
    );
    assert_eq!(
        tree.names(&["*.txt", "b.md"], &[], &["*"]),
        ["a.txt", "b.md"]
    );
    assert_eq!(
        tree.names(&["src"], &[], &["**", "!deep/y.c"]),
        ["deep", "deep/y.c"]
    );
}

#[test]
fn parents_are_kept_from_the_pivot_on() {
    let tree = Fixture::new();
    let deep = ["src", "src/deep", "src/deep/y.c"];
    for pattern in [
        "src/deep/y.c",
        "/src/deep",
        "./src/deep/.",
        "s*/**/y.c",
        "**/y.c",
    ] {
        assert_eq!(tree.with_parents(pattern, &[]), deep, "{pattern}");
    }
    assert_eq!(tree.with_parents("src/./deep", &[]), ["deep", "deep/y.c"]);
    assert_eq!(tree.with_parents("src/deep/./y*", &[]), ["y.c"]);
    assert_eq!(
        tree.with_parents("s*/./deep*", &[]),
        ["deep", "deep/y.c", "deep.c"]
    );
    assert_eq!(tree.with_parents("src/./.", &["deep*"]), ["link", "x.c"]);
    assert_eq!(
        tree.with_parents("src/**/*.c", &["src/deep"]),
        ["src", "src/deep.c", "src/x.c"]
    );
    assert!(tree.with_parents("src/./none*", &[]).is_empty());
    assert!(tree.with_parents("none*/./x", &[]).is_empty());
    assert!(tree.with_parents("a.txt/./x", &[]).is_empty());
    for missing in ["src/none", "none/./x", "src/./none"] {
        let error = tree.try_request(&[missing], &[], &[], true).unwrap_err();
        assert!(error.to_string().starts_with(missing), "{error}");
    }
    assert!(tree.try_request(&["lib/z"], &["lib"], &[], true).is_err());
    assert!(tree.try_request(&["lib/z"], &[], &["lib"], true).is_ok());
}

#[test]
fn a_word_without_a_wildcard_must_name_something() {
    let tree = Fixture::new();
    for patterns in [&["none"][..], &["*.txt", "none"], &["a.txt", "none"]] {
        let error = tree.try_select(patterns, &[], &[]).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Copy {
                    not_found: true,
                    ..
                }
            ),
            "{error}"
        );
    }
    assert_eq!(tree.names(&["*.none", "a.txt"], &[], &[]), ["a.txt"]);
    assert!(tree.names(&["*.none"], &[], &[]).is_empty());
}

#[test]
fn the_digest_moves_with_content_and_mode_and_not_with_time() {
    let tree = Fixture::new();
    let before = tree.digest(&["src"], None);
    let file = fs::File::options()
        .write(true)
        .open(tree.path("src/x.c"))
        .unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(tree.digest(&["src"], None), before);
    fs::set_permissions(tree.path("src/x.c"), fs::Permissions::from_mode(0o600)).unwrap();
    let mode = tree.digest(&["src"], None);
    assert_ne!(mode, before);
    fs::write(tree.path("src/x.c"), "other").unwrap();
    assert_ne!(tree.digest(&["src"], None), mode);
}

#[test]
fn the_memo_changes_no_digest() {
    let tree = Fixture::new();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(tree.path("src/x.c"), "user.note", b"1", flags).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(50));
    let memo = DigestMemo::open(&tree.dir.path().join("memo"));
    let plain = tree.digest(&["."], None);
    assert_eq!(tree.digest(&["."], Some(&memo)), plain);
    assert_eq!(memo.len(), 6);
    assert_eq!(tree.digest(&["."], Some(&memo)), plain);
    rustix::fs::setxattr(tree.path("src/x.c"), "user.note", b"2", flags).unwrap();
    assert_ne!(tree.digest(&["."], Some(&memo)), plain);
    fs::write(tree.path("a.txt"), "A.TXT").unwrap();
    assert_eq!(tree.digest(&["."], Some(&memo)), tree.digest(&["."], None));
}

#[test]
fn listed_files_have_digests() {
    let tree = Fixture::new();
    let listed = tree.try_select(&["lib"], &[], &[]).unwrap();
    let listed = listed.listed(&Cancel::default()).unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].path.as_str(), listed[0].size), ("lib/z", 5));
    assert_eq!(
        listed[0].digest,
        format!("blake3:{}", blake3::hash(b"lib/z").to_hex())
    );
}

#[test]
fn paths_are_those_of_the_files_that_are_taken() {
    let tree = Fixture::new();
    let selection = tree
        .try_select(&["src", "a.txt"], &["src/deep"], &[])
        .unwrap();
    let mut paths = selection.file_paths();
    paths.sort();
    assert_eq!(paths, ["a.txt", "src/deep.c", "src/x.c"]);
}

#[test]
fn a_digest_tells_links_apart_that_are_copied_and_no_others() {
    let tree = Fixture::new();
    let digest = |exclude: &[&str]| {
        let selection = tree.try_select(&["src"], &[], exclude).unwrap();
        selection.content_digest(None, &Cancel::default()).unwrap()
    };
    fs::write(tree.path("src/copy.c"), "src/x.c").unwrap();
    let (apart, alone) = (digest(&[]), digest(&["copy.c"]));
    fs::hard_link(tree.path("src/x.c"), tree.path("elsewhere")).unwrap();
    assert_eq!(digest(&[]), apart);
    fs::remove_file(tree.path("src/copy.c")).unwrap();
    fs::hard_link(tree.path("src/x.c"), tree.path("src/copy.c")).unwrap();
    assert_ne!(digest(&[]), apart);
    assert_eq!(digest(&["copy.c"]), alone);
}

#[test]
fn the_modes_of_an_index_stand_in_the_place_of_the_disk_s() {
    let fixture = Fixture::new();
    let listing = b"100755 0 0\ta.txt\x00100644 0 0\tb.md\0";
    let select = |index: Option<&[u8]>| {
        let modes = index.map(|bytes| Arc::new(IndexModes::parse(bytes).unwrap()));
        let request = Request {
            patterns: &["*.*".to_owned(), "src".to_owned()],
            modes,
            ..Request::default()
        };
        Selection::new(&fixture.path(""), &request, &Cancel::default()).unwrap()
    };
    let digest = |selection: &Selection| {
        let digest = selection.content_digest(None, &Cancel::default());
        digest.unwrap()
    };
    let (before, disk) = (select(Some(listing)), digest(&select(None)));
    for (path, mode) in [("a.txt", 0o600), ("b.md", 0o777), ("src/deep", 0o700)] {
        fs::set_permissions(fixture.path(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    let after = select(Some(listing));
    assert!(after.altered());
    assert_eq!(digest(&before), digest(&after));
    assert_ne!(disk, digest(&select(None)));
    assert!(!select(None).altered());
}
