//! Tests of `tree`; those of `remove` compare with it.

#![allow(clippy::unwrap_used)]
use super::*;
use std::fs;

#[test]
fn every_inode_is_counted_once_and_a_missing_path_holds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let go = AtomicBool::new(false);
    for folder in 0..20 {
        fs::create_dir_all(dir.path().join(format!("d{folder}/e"))).unwrap();
        fs::write(dir.path().join(format!("d{folder}/e/x")), vec![1; 5_000]).unwrap();
    }
    let held = disk_usage(dir.path(), &go).unwrap();
    fs::hard_link(dir.path().join("d0/e/x"), dir.path().join("d1/again")).unwrap();
    assert!(held >= 20 * 8_192);
    assert_eq!(disk_usage(dir.path(), &go).unwrap(), held);
    assert_eq!(disk_usage(&dir.path().join("none"), &go).unwrap(), 0);
}
