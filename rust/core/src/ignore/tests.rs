//! Tests of `ignore`.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

/// (lines, path, excluded), worked out from the reference's rules by hand.
const TABLE: &[(&[&str], &str, bool)] = &[
    // Plain names are rooted and take what is below them.
    (&["foo"], "foo", true),
    (&["foo"], "foo/bar", true),
    (&["foo"], "bar/foo", false),
    (&["foo"], "foobar", false),
    (&["foo/bar"], "foo/bar", true),
    (&["foo/bar"], "foo", false),
    (&["foo/bar"], "foo/bar/baz/x", true),
    (&["/foo"], "foo", true),
    (&["/foo/"], "foo/x", true),
    (&["foo/"], "foo", true),
    (&["./foo"], "foo", true),
    (&["foo/../bar"], "bar", true),
    (&["foo//bar"], "foo/bar", true),
    (&["  foo  "], "foo", true),
    (&["../foo"], "foo", false),
    (&["/../foo"], "foo", true),
    (&["."], "foo", false),
    (&["/"], "foo", false),
    (&[""], "foo", false),
    // One star stays in its folder, but what is below a match goes with it.
    (&["*"], "foo", true),
    (&["*"], "foo/bar", true),
    (&["*.go"], "a.go", true),
    (&["*.go"], "d/a.go", false),
    (&["*/*.go"], "d/a.go", true),
    (&["*/*.go"], "a.go", false),
    (&["*/foo"], "a/foo/deep", true),
    (&["*/foo"], "a/b/foo", false),
    (&["a*"], "a", true),
    (&["a*c"], "abc", true),
    (&["a*c"], "a/c", false),
    (&["a*c"], "abcd", false),
    (&["*a*b*"], "xaybz", true),
    (&["temp?"], "tempa", true),
    (&["temp?"], "temp", false),
    (&["temp?"], "temp/", false),
    (&["a?b"], "a/b", false),
    (&["?"], "\u{5b57}", true),
    // Two stars.
    (&["**"], "any/thing", true),
    (&["**/*.go"], "a.go", true),
    (&["**/*.go"], "x/y/a.go", true),
    (&["**/foo"], "foo", true),
    (&["**/foo"], "a/b/foo", true),
    (&["**/foo"], "a/b/xfoo", false),
    (&["**/foo/bar"], "x/foo/bar", true),
    (&["**foo"], "xfoo", true),
    (&["**foo"], "a/xfoo", true),
    (&["foo**"], "foobar", true),
    (&["foo**"], "foobar/x", true),
    (&["foo/**"], "foo/x", true),
    (&["foo/**"], "foo", false),
    (&["a/**/b"], "a/b", true),
    (&["a/**/b"], "a/x/y/b", true),
    (&["a/**/b"], "a/x/yb", false),
    (&["a**b"], "ab", true),
    (&["a**b"], "axb", false),
    (&["a**b"], "ax/b", true),
    (&["a/**/b/**"], "a/x/b/c", true),
    (&["a/**/b/**"], "a/x/b", false),
    (&["**/.git"], ".git/config", true),
    (&["**/x*"], "a/b/x1/deep", true),
    (&["dir/**/*.log"], "dir/a.log", true),
    // Classes and escapes.
    (&["[a-c]x"], "bx", true),
    (&["[a-c]x"], "dx", false),
    (&["[^a-c]x"], "dx", true),
    (&["[^a-c]x"], "ax", false),
    (&["[abz]"], "z", true),
    (&["[\\]a]"], "]", true),
    (&["[a\\-c]"], "-", true),
    (&["[a\\-c]"], "b", false),
    (&["[.]x"], ".x", true),
    (&["\\*"], "*", true),
    (&["\\*"], "x", false),
    (&["a\\?"], "a?", true),
    (&["a.c"], "abc", false),
    (&["a+(b)|{c}$^"], "a+(b)|{c}$^", true),
    // What the translation makes of odd ones.
    (&["[*]"], "*", false),
    (&["[*]"], "[]", true),
    (&["[?]"], "?", false),
    (&["[?]"], "^]", true),
    (&["a\\d"], "a7", true),
    (&["a\\d"], "ad", false),
    (&["bin\\Debug"], "bin/ebug", true),
    (&["[[:alpha:]]x"], "qx", true),
    (&["[[:alpha:]]x"], ":x", false),
    (&["[^a]b"], "/b", true),
    (&["x[^a]b"], "x/b", true),
    (&["*|b"], "anything", true),
    (&["?x|b"], "a/b", true),
    (&["a|b"], "a", false),
    (&["?{2}"], "ab", true),
    (&["**/{{x}}/*.y"], "{{x}}/a.y", true),
    (&["*", "/!a"], "a", false),
    (&["/ a"], "a", true),
    (&["*^b"], "a^b", false),
    (&["**^?"], "ab/c", false),
    (&["**^?"], "b", true),
    (&["^b"], "^b", true),
    (&["**/x*"], "a\n/x", false),
    (&["**/x"], "a\n/x", true),
    (&["***"], "a/b", true),
    (&["a/***/b"], "a/x/y/b", true),
    // Exceptions: the last match wins.
    (&["*", "!foo"], "foo", false),
    (&["*", "!foo"], "bar", true),
    (&["*", "!foo"], "foo/bar", false),
    (&["foo", "!foo/bar"], "foo/bar", false),
    (&["foo", "!foo/bar"], "foo/baz", true),
    (&["foo", "!foo/bar"], "foo/bar/deep", false),
    (&["foo", "!foo/bar", "foo/bar/x"], "foo/bar/x", true),
    (&["!foo", "foo"], "foo", true),
    (&["!foo"], "foo", false),
    (
        &["*.md", "!README*.md", "README-secret.md"],
        "README-secret.md",
        true,
    ),
    (
        &["*.md", "!README*.md", "README-secret.md"],
        "README.md",
        false,
    ),
    (
        &["*.md", "README-secret.md", "!README*.md"],
        "README-secret.md",
        false,
    ),
    (&["**", "!**/keep"], "a/b/keep", false),
    (&["**", "!a/b/c"], "a/b/d", true),
    (&["**", "! /keep"], "keep", false),
    (&["docs/*", "!docs/*.md"], "docs/a.md", false),
];

#[test]
fn the_table_holds() {
    assert!(TABLE.len() >= 60);
    for (lines, path, excluded) in TABLE {
        let ignore = Ignore::new(*lines).unwrap();
        assert_eq!(
            ignore.excludes(path.as_bytes()),
            *excluded,
            "{lines:?} on {path}"
        );
    }
}

#[test]
fn a_pruned_folder_never_held_an_included_name() {
    // What excludes() includes below a folder, may_return() must not rule out.
    for (lines, path, excluded) in TABLE {
        let ignore = Ignore::new(*lines).unwrap();
        for (at, _) in path.match_indices('/') {
            let folder = &path.as_bytes()[..at];
            if !excluded && ignore.excludes(folder) {
                assert!(
                    ignore.may_return(&ignore.walk_to(folder)),
                    "{lines:?} on {path}"
                );
            }
        }
    }
}

#[test]
fn folders_that_nothing_brings_back_are_pruned() {
    let below = |lines: &[&str], folder: &str| {
        let ignore = Ignore::new(lines).unwrap();
        ignore.may_return(&ignore.walk_to(folder.as_bytes()))
    };
    assert!(!below(&["node_modules"], "node_modules"));
    assert!(!below(&["*", "!src"], "node_modules"));
    assert!(!below(&["*", "!src/*.c"], "lib"));
    assert!(below(&["*", "!src/*.c"], "src"));
    assert!(!below(&["*", "!src/*.c"], "src/deep"));
    assert!(below(&["*", "!src/**/x.c"], "src/deep"));
    assert!(below(&["*", "!*/keep"], "any"));
    assert!(!below(&["*", "!*/keep"], "any/deep"));
    assert!(below(&["*", "!**/keep"], "any/deep"));
    assert!(!below(&["!**/keep", "*"], "any/deep"));
    assert!(below(&["*", "!a/b/c"], "a/b"));
    assert!(!below(&["*", "!a/b/c"], "a/bc"));
    assert!(below(&["*", "!a/[b-d]/c"], "a/c"));
    assert!(!below(&["*", "!a/[b-d]/c"], "a/e"));
}

#[test]
fn the_line_that_takes_a_path_out_is_known() {
    let ignore = Ignore::new(["*.md", "", "docs", "!docs/a.md", "docs/a.md/x"]).unwrap();
    let line = |path: &str| ignore.excluding_line(path.as_bytes());
    assert_eq!(line("x.md"), Some(0));
    assert_eq!(line("docs"), Some(2));
    assert_eq!(line("docs/b"), Some(2));
    assert_eq!(line("docs/a.md"), None);
    assert_eq!(line("docs/a.md/x/y"), Some(4));
    assert_eq!(line("src"), None);
}

#[test]
fn a_bad_pattern_is_named() {
    for line in [
        "[a",
        "[]",
        "[-x]",
        "a\\",
        "!",
        "!/",
        "[a-]",
        "[z-a]",
        "a\\q",
        "x\\b",
        "[[:none:]]",
    ] {
        let error = Ignore::new([line]).unwrap_err().to_string();
        assert!(error.starts_with(line), "{error}");
    }
}

#[test]
fn a_pattern_of_many_stars_ends_soon() {
    let line = "*a".repeat(60) + "b";
    let ignore = Ignore::new([line]).unwrap();
    assert!(!ignore.excludes("a".repeat(4000).as_bytes()));
}

/// Judges a path with each line on its own: the last one that takes it or a parent decides.
fn slowly(lines: &[String], path: &[u8]) -> bool {
    lines.iter().fold(false, |out, line| {
        // Alone, an exception shows only in what it brings back.
        let takes = Ignore::new([line.as_str()]).unwrap().excludes(path);
        let leaves = Ignore::new(["**", line]).unwrap().excludes(path);
        takes || (out && leaves)
    })
}

fn line() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        4 => "[ab./]",
        2 => Just("*".to_owned()),
        2 => Just("**".to_owned()),
        2 => Just("/".to_owned()),
        1 => Just("?".to_owned()),
        1 => Just("[a-b]".to_owned()),
        1 => Just("[^a]".to_owned()),
        1 => Just("\\.".to_owned()),
        1 => Just("\\d".to_owned()),
        1 => Just("|".to_owned()),
        1 => Just("{1,2}".to_owned()),
        1 => Just("!".to_owned()),
    ];
    let body = proptest::collection::vec(part, 1..7).prop_map(|parts| parts.concat());
    (any::<bool>(), body).prop_map(|(not, body)| if not { format!("!{body}") } else { body })
}

/// More cases on request: `PROPTEST_CASES=1000000 cargo test ignore`.
mod properties {
    use super::*;

    proptest! {
        #[test]
        fn lines_together_are_as_lines_alone(
            lines in proptest::collection::vec(line(), 0..6),
            path in "[ab1.]{1,2}(/[ab1.]{1,2}){0,3}",
        ) {
            let Ok(ignore) = Ignore::new(&lines) else {
                return Ok(());
            };
            let path = path.as_bytes();
            prop_assert_eq!(ignore.excludes(path), slowly(&lines, path));
            prop_assert_eq!(ignore.excluding_line(path).is_some(), ignore.excludes(path));
            for at in (0..path.len()).filter(|&at| path[at] == b'/') {
                let folder = ignore.walk_to(&path[..at]);
                if ignore.is_out(&folder) && !ignore.excludes(path) {
                    prop_assert!(ignore.may_return(&folder));
                }
            }
        }

        #[test]
        fn any_lines_compile_or_are_refused(
            lines in proptest::collection::vec(any::<Vec<u8>>(), 0..4),
            path in any::<Vec<u8>>(),
        ) {
            if let Ok(ignore) = Ignore::new(&lines) {
                ignore.excludes(&path);
            }
        }
    }
}
