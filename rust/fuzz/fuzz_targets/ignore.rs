//! Any lines compile or are refused; together they decide as each does alone; no walk prunes what
//! a later line brings back. The first line of the input is the path, the others are patterns.

#![no_main]

use img_core::ignore::Ignore;
use libfuzzer_sys::fuzz_target;

/// Judges a path with each line on its own: the last one that takes it or a parent decides.
fn slowly(lines: &[&[u8]], path: &[u8]) -> bool {
    let mut out = false;
    for &line in lines {
        // Alone, an exception shows only in what it brings back.
        let alone = [Ignore::new([line]), Ignore::new([&b"**"[..], line])];
        let [takes, leaves] = alone.map(|ignore| {
            let ignore = ignore.expect("a line that is valid among others is valid alone");
            ignore.excludes(path)
        });
        if takes {
            out = true;
        } else if !leaves {
            out = false;
        }
    }
    out
}

fuzz_target!(|data: &[u8]| {
    let mut lines = data.split(|&byte| byte == b'\n');
    let path = lines.next().unwrap_or_default();
    let lines: Vec<&[u8]> = lines.collect();
    let Ok(ignore) = Ignore::new(&lines) else {
        return;
    };
    let out = ignore.excludes(path);
    assert_eq!(ignore.excluding_line(path).is_some(), out);
    if path.is_empty() {
        return;
    }
    assert_eq!(slowly(&lines, path), out);
    for at in (0..path.len()).filter(|&at| path[at] == b'/') {
        let folder = ignore.walk_to(&path[..at]);
        assert!(out || !ignore.is_out(&folder) || ignore.may_return(&folder));
    }
});
