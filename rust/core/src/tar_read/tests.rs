//! Tests of `tar_read`.

#![allow(clippy::unwrap_used)]
use super::build::{body, entry, file, folder, header, link, pax, seal, tar};
use super::*;
use proptest::prelude::*;

fn all(stream: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>> {
    let mut archive = Archive::new(stream);
    let mut found = Vec::new();
    while let Some(entry) = archive.next_entry()? {
        let mut content = Vec::new();
        archive
            .read_to_end(&mut content)
            .map_err(|error| unwrap_error(error, "test"))?;
        found.push((entry, content));
    }
    Ok(found)
}

fn one(entries: &[Vec<u8>]) -> Entry {
    all(&tar(entries)).unwrap().remove(0).0
}

fn refused(stream: &[u8]) -> String {
    all(stream).unwrap_err().to_string()
}

#[test]
fn plain_entries_are_read() {
    let found = all(&tar(&[
        folder("./d/"),
        file("/d/f", "hello"),
        link("l", b'2', "../x"),
    ]))
    .unwrap();
    assert_eq!(found[0].0.path, b"d");
    assert_eq!(found[0].0.kind, Kind::Directory);
    assert_eq!(
        (&found[1].0.path[..], &found[1].1[..]),
        (&b"d/f"[..], &b"hello"[..])
    );
    assert_eq!(
        (found[1].0.mode, found[1].0.mtime, found[1].0.size),
        (0o644, 1_000, 5)
    );
    assert_eq!(found[2].0.kind, Kind::Symlink(b"../x".to_vec()));
}

#[test]
fn unread_bodies_are_skipped() {
    let stream = tar(&[file("a", &"x".repeat(5_000)), file("b", "y")]);
    let mut archive = Archive::new(&stream[..]);
    assert_eq!(archive.next_entry().unwrap().unwrap().path, b"a");
    assert_eq!(archive.next_entry().unwrap().unwrap().path, b"b");
    assert!(archive.next_entry().unwrap().is_none());
    assert!(archive.next_entry().unwrap().is_none());
}

#[test]
fn long_names_of_pax_and_gnu_are_read() {
    let long = "d/".repeat(150) + "file";
    assert_eq!(
        one(&[pax(&[("path", long.as_bytes())]), file("x", "")]).path,
        long.as_bytes()
    );
    let gnu = entry("././@LongLink", b'L', format!("{long}\0").as_bytes());
    assert_eq!(one(&[gnu, file("x", "")]).path, long.as_bytes());
    let gnu = entry("././@LongLink", b'K', format!("{long}\0").as_bytes());
    assert_eq!(
        one(&[gnu, link("x", b'2', "y")]).kind,
        Kind::Symlink(long.into_bytes())
    );
}

#[test]
fn a_ustar_prefix_is_joined_and_gnus_times_there_are_not() {
    let mut block = header(b"name", b'0', 0, b"");
    block[345..352].copy_from_slice(b"pre/fix");
    seal(&mut block);
    assert_eq!(one(&[block.to_vec()]).path, b"pre/fix/name");
    block[257..265].copy_from_slice(b"ustar  \0");
    seal(&mut block);
    assert_eq!(one(&[block.to_vec()]).path, b"name");
}

#[test]
fn nanosecond_times_are_read() {
    let time = |text: &str| {
        let found = one(&[pax(&[("mtime", text.as_bytes())]), file("x", "")]);
        (found.mtime, found.mtime_nanos)
    };
    assert_eq!(time("1234.5"), (1234, 500_000_000));
    assert_eq!(time("1234.0000000019"), (1234, 1));
    assert_eq!(time("-1.25"), (-2, 750_000_000));
    assert_eq!(time("-3"), (-3, 0));
}

#[test]
fn base_256_numbers_are_read() {
    let mut block = header(b"x", b'0', 0, b"");
    block[108..116].copy_from_slice(&[0x80, 0, 0, 0, 0xee, 0x6b, 0x28, 0]);
    block[136..148].copy_from_slice(&[0xff; 12]);
    seal(&mut block);
    let found = one(&[block.to_vec()]);
    assert_eq!((found.uid, found.mtime), (4_000_000_000, -1));
}

#[test]
fn xattrs_are_read_and_foreign_ones_left_out() {
    let records: [(&str, &[u8]); 4] = [
        ("SCHILY.xattr.user.b", b"2\n3"),
        ("SCHILY.xattr.user.a", b"1"),
        ("SCHILY.xattr.user.overlay.opaque", b"y"),
        ("SCHILY.xattr.security.selinux", b"label"),
    ];
    let found = one(&[pax(&records), file("x", "")]);
    let wanted = vec![
        (b"user.a".to_vec(), b"1".to_vec()),
        (b"user.b".to_vec(), b"2\n3".to_vec()),
    ];
    assert_eq!(found.xattrs, wanted);
}

#[test]
fn a_global_header_holds_until_overridden() {
    let mut global = pax(&[("uid", b"77")]);
    global[156] = b'g';
    let mut head: [u8; 512] = global[..512].try_into().unwrap();
    seal(&mut head);
    global[..512].copy_from_slice(&head);
    let stream = tar(&[
        global,
        file("a", ""),
        pax(&[("uid", b"88")]),
        file("b", ""),
        file("c", ""),
    ]);
    let ids: Vec<_> = all(&stream)
        .unwrap()
        .iter()
        .map(|(entry, _)| entry.uid)
        .collect();
    assert_eq!(ids, [77, 88, 77]);
}

/// The same file in every form: 4 bytes at 1,000 and 2 at 5,000 of 6,000.
fn sparse_forms() -> Vec<Vec<u8>> {
    let mut old = header(b"s", b'S', 6, b"");
    old[257..265].copy_from_slice(b"ustar  \0");
    for (index, number) in [1_000, 4, 5_000, 2].into_iter().enumerate() {
        let field = format!("{number:011o}\0");
        old[386 + 12 * index..398 + 12 * index].copy_from_slice(field.as_bytes());
    }
    old[483..495].copy_from_slice(format!("{:011o}\0", 6_000).as_bytes());
    seal(&mut old);
    let v00: [(&str, &[u8]); 6] = [
        ("GNU.sparse.size", b"6000"),
        ("GNU.sparse.numblocks", b"2"),
        ("GNU.sparse.offset", b"1000"),
        ("GNU.sparse.numbytes", b"4"),
        ("GNU.sparse.offset", b"5000"),
        ("GNU.sparse.numbytes", b"2"),
    ];
    let v01: [(&str, &[u8]); 3] = [
        ("GNU.sparse.size", b"6000"),
        ("GNU.sparse.name", b"s"),
        ("GNU.sparse.map", b"1000,4,5000,2"),
    ];
    let v10: [(&str, &[u8]); 4] = [
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"s"),
        ("GNU.sparse.realsize", b"6000"),
    ];
    let stored = [body(b"2\n1000\n4\n5000\n2\n"), b"abcdef".to_vec()].concat();
    vec![
        [old.to_vec(), body(b"abcdef")].concat(),
        [pax(&v00), file("s", "abcdef")].concat(),
        [pax(&v01), file("GNUSparseFile.1/s", "abcdef")].concat(),
        [pax(&v10), entry("GNUSparseFile.1/s", b'0', &stored)].concat(),
    ]
}

#[test]
fn every_form_of_a_sparse_file_is_read() {
    for form in sparse_forms() {
        let stream = tar(&[form, file("after", "x")]);
        let mut archive = Archive::new(&stream[..]);
        let found = archive.next_entry().unwrap().unwrap();
        assert_eq!((&found.path[..], found.size), (&b"s"[..], 6_000));
        let (first, second) = ((1_000, 4), (5_000, 2));
        let wanted = [first, second].map(|(offset, length)| Segment { offset, length });
        assert_eq!(archive.segments().unwrap(), wanted);
        let mut content = Vec::new();
        archive.read_to_end(&mut content).unwrap();
        assert_eq!(content, b"abcdef");
        assert_eq!(archive.next_entry().unwrap().unwrap().path, b"after");
        assert!(archive.segments().is_none());
    }
}

#[test]
fn sparse_maps_that_lie_are_refused() {
    for map in [
        "0,4,2,2",
        "1000,4,5000,3",
        "5999,6",
        "18446744073709551615,6",
        "1,2,3",
        "x,6",
    ] {
        let records = [
            ("GNU.sparse.size", &b"6000"[..]),
            ("GNU.sparse.map", map.as_bytes()),
        ];
        let stream = tar(&[pax(&records), file("s", "abcdef")]);
        assert!(refused(&stream).contains("sparse"), "{map}");
    }
}

#[test]
fn dotdot_out_of_the_layer_is_refused() {
    assert!(refused(&tar(&[file("a/../../etc/passwd", "")])).contains("out of the layer"));
    assert!(refused(&tar(&[pax(&[("path", b"../x")]), file("x", "")])).contains("out of"));
}

#[test]
fn a_hard_link_out_of_the_layer_is_refused() {
    assert!(refused(&tar(&[link("x", b'1', "../../etc/shadow")])).contains("hard link out"));
    assert_eq!(
        one(&[link("x", b'1', "/etc/x")]).kind,
        Kind::Hardlink(b"etc/x".to_vec())
    );
}

#[test]
fn a_truncated_archive_is_refused() {
    let stream = tar(&[file("a", &"x".repeat(2_000))]);
    for end in [100, 511, 513, 2_000] {
        assert!(refused(&stream[..end]).contains("truncated"), "{end}");
    }
}

#[test]
fn a_wrong_checksum_is_refused() {
    let mut stream = tar(&[file("a", "")]);
    stream[0] ^= 1;
    assert!(refused(&stream).contains("checksum"));
}

#[test]
fn an_endless_pax_header_is_refused() {
    let mut stream = header(b"x", b'x', 0, b"");
    stream[124..136].copy_from_slice(b"77777777777\0");
    seal(&mut stream);
    assert!(refused(&stream).contains("1 MiB"));
    let many = vec![pax(&[("comment", b"x")]); 1_000];
    assert!(refused(&tar(&many)).contains("too many"));
}

#[test]
fn broken_pax_records_are_refused() {
    for content in [
        "5 a=b", "x a=b\n", "99 a=b\n", "6 ab=\nX", "4 ab\n", "0 a=b\n", "2 \n",
    ] {
        let stream = tar(&[entry("p", b'x', content.as_bytes()), file("f", "")]);
        assert!(refused(&stream).contains("PAX"), "{content:?}");
    }
}

#[test]
fn a_nul_in_a_path_is_refused() {
    let stream = tar(&[pax(&[("path", b"a\0b")]), file("x", "")]);
    assert!(refused(&stream).contains("NUL"));
}

#[test]
fn a_path_that_no_system_call_takes_is_refused() {
    let long = vec![b'a'; 5_000];
    assert!(refused(&tar(&[pax(&[("path", &long)]), file("x", "")])).contains("4095"));
}

#[test]
fn what_is_no_tar_is_refused() {
    assert!(refused(&[b'x'; 2_000]).contains("no tar header"));
    assert!(all(b"").unwrap().is_empty());
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(stream in proptest::collection::vec(any::<u8>(), 0..4096)) {
        let _ = all(&stream);
    }

    #[test]
    fn no_damage_to_an_archive_makes_it_panic(
        place in 0_usize..8_000, with in any::<[u8; 12]>(), reseal in any::<bool>(),
    ) {
        let mut stream = tar(&[sparse_forms(), vec![pax(&[("mtime", b"1.5")]), file("a", "b")]].concat());
        let place = place % (stream.len() - 12);
        stream[place..place + 12].copy_from_slice(&with);
        if reseal {
            let start = place / 512 * 512;
            let mut block: [u8; 512] = stream[start..start + 512].try_into().unwrap();
            seal(&mut block);
            stream[start..start + 512].copy_from_slice(&block);
        }
        let _ = all(&stream);
    }
}
