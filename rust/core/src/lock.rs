//! File locks that die with their process: [`attempt`] asks for one without waiting.
//!
//! The store's cache folders are held by them. Source: flock(2).

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::fs::{flock, FlockOperation};

/// How long to leave a lock alone that somebody else holds.
pub const PAUSE: Duration = Duration::from_millis(20);

/// Takes the lock of an open file, for one holder or for several; false where others hold it.
pub fn attempt(file: BorrowedFd, shared: bool) -> io::Result<bool> {
    let operation = if shared {
        FlockOperation::NonBlockingLockShared
    } else {
        FlockOperation::NonBlockingLockExclusive
    };
    match flock(file, operation) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    #[test]
    fn one_holder_keeps_all_others_out_and_several_share() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = || File::open(file.path()).unwrap();
        let (one, two, three) = (open(), open(), open());
        assert!(attempt(one.as_fd(), true).unwrap());
        assert!(attempt(two.as_fd(), true).unwrap());
        assert!(!attempt(three.as_fd(), false).unwrap());
        drop((one, two));
        assert!(attempt(three.as_fd(), false).unwrap());
        assert!(!attempt(open().as_fd(), true).unwrap());
    }
}
