//! [`detach`]: what a process that was forked off the builder leaves behind, before it serves the builder.
//!
//! Called first thing in the child by `outside` and `monitor`, each of which adds what is its own. The
//! process has one thread, and ends with its builder.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use crate::kernel;

/// Leaves the builder's descriptors, session, signals and folder behind; keeps its control socket.
///
/// Ctrl-C is the builder's to handle: it must not reach what is started here by way of the terminal.
///
/// # Errors
///
/// The kernel refuses a part of it: then the process must end. It ends here where the builder has.
pub fn detach(control: &OwnedFd, builder: u32, name: &CStr) -> io::Result<OwnedFd> {
    kernel::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, 0)?;
    if std::os::unix::process::parent_id() != builder {
        kernel::exit_now(0); // it ended before the signal was asked for
    }
    kernel::reset_signals();
    kernel::ignore_children();
    rustix::process::setsid()?;
    rustix::process::chdir("/")?;
    let control = rustix::io::fcntl_dupfd_cloexec(control, 10)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    // SAFETY: 3 becomes a copy of the control socket; whatever it was belongs to nobody in this
    // process, which uses no other descriptor of the builder's.
    let kept = unsafe {
        if libc::dup3(control.as_raw_fd(), 3, libc::O_CLOEXEC) < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(3)
    };
    std::mem::forget((control, null)); // closed with all others here
    kernel::close_from(4, false);
    rustix::thread::set_name(name)?;
    Ok(kept)
}
