//! System calls that no crate wraps, each as a small safe function.
//!
//! Called by `idmap`, `rootfs`, `monitor` and `payload`; decides nothing by itself.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::seccomp::Instruction;

/// `mount_setattr(2)`: the mount is read-only.
pub const ATTR_RDONLY: u64 = 0x1;
/// Set-id bits are ignored.
pub const ATTR_NOSUID: u64 = 0x2;
/// Device nodes cannot be opened.
pub const ATTR_NODEV: u64 = 0x4;
/// Nothing can be executed.
pub const ATTR_NOEXEC: u64 = 0x8;
/// Access times are not kept.
pub const ATTR_NOATIME: u64 = 0x10;
/// Access times are kept at every access.
pub const ATTR_STRICTATIME: u64 = 0x20;
/// The field that the two above belong to; cleared before one of its values is set.
pub const ATTR_ATIME_FIELD: u64 = 0x70;
/// Access times of folders are not kept.
pub const ATTR_NODIRATIME: u64 = 0x80;

/// `struct mount_attr`.
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Changes the attributes of the mount behind `fd`, and of all below it where `recursive`.
/// Needs Linux 5.12.
pub fn mount_setattr(fd: BorrowedFd, set: u64, recursive: bool) -> io::Result<()> {
    let clear = if set & ATTR_ATIME_FIELD == 0 {
        0
    } else {
        ATTR_ATIME_FIELD
    };
    let attr = MountAttr {
        set,
        clear,
        propagation: 0,
        userns_fd: 0,
    };
    let depth = if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a constant C string, `attr` lives through the call and its size is given.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | depth,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    })
    .map(drop)
}

/// Which side of a fork this is.
pub enum Fork {
    /// The new process.
    Child,
    /// The one that forked, with the child's id.
    Parent(libc::pid_t),
}

/// Forks. The caller must have one thread only, so that the child may allocate and lock.
pub fn fork() -> io::Result<Fork> {
    // SAFETY: the process has one thread (every caller checks or is the sandbox process), so no
    // lock is held by a thread that the child lacks.
    match check(libc::c_long::from(unsafe { libc::fork() }))? {
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid as libc::pid_t)),
    }
}

/// Runs `child` in a new process, in new namespaces (`CLONE_NEW*` flags), that shares this one's
/// memory, while this one stands still until the child has executed a program or ended. What
/// `child` leaves in memory is seen here; descriptors, signals and folders are its own copies.
///
/// It copies no page tables, which is most of what a fork costs. The caller must have one thread
/// only. The child ends with code 1 where `child` returns.
pub fn run_beside<F: FnMut()>(namespaces: libc::c_int, child: &mut F) -> io::Result<libc::pid_t> {
    extern "C" fn enter<F: FnMut()>(child: *mut libc::c_void) -> libc::c_int {
        // SAFETY: the pointer is the `child` below, which nobody else uses while the parent waits.
        unsafe { (*child.cast::<F>())() };
        exit_now(1)
    }
    const STACK: usize = 1 << 20; // touched only as deep as it is used
    let mut stack = vec![0u128; STACK / size_of::<u128>()];
    let top = stack.as_mut_ptr_range().end.cast::<libc::c_void>();
    let flags = namespaces | libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the stack is aligned, grows down from its end, and outlives the child's use of it,
    // because CLONE_VFORK returns only when the child has left this memory. One thread: the child
    // may allocate, nobody holds the allocator's lock.
    let pid = unsafe { libc::clone(enter::<F>, top, flags, std::ptr::from_mut(child).cast()) };
    check(libc::c_long::from(pid)).map(|pid| pid as libc::pid_t)
}

/// Ends this process at once: no destructors, no buffers of the parent written twice.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Puts every signal back to its default and unblocks all.
pub fn reset_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: SIG_DFL is valid for every signal; the ones that cannot be set are refused.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: the set is initialised by sigemptyset before it is read.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Lets the kernel reap this process's children.
pub fn ignore_children() {
    // SAFETY: SIG_IGN for SIGCHLD has a defined meaning: children leave no zombies.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// Waits for any child: its pid and raw status, or None where there is no child left.
pub fn wait_any() -> Option<(libc::pid_t, libc::c_int)> {
    loop {
        let mut status = 0;
        // SAFETY: `status` is a live integer.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, 0) };
        if pid > 0 {
            return Some((pid, status));
        }
        if io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
            return None;
        }
    }
}

/// Waits for one child and gives its raw status.
pub fn wait_for(pid: libc::pid_t) -> io::Result<libc::c_int> {
    loop {
        let mut status = 0;
        // SAFETY: `status` is a live integer.
        if unsafe { libc::waitpid(pid, &raw mut status, 0) } == pid {
            return Ok(status);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINTR) {
            return Err(error);
        }
    }
}

/// The exit code that stands for a raw wait status: 128 plus the number for a signal.
pub fn exit_code(status: libc::c_int) -> i32 {
    if libc::WIFEXITED(status) {
        libc::WEXITSTATUS(status)
    } else {
        128 + libc::WTERMSIG(status)
    }
}

/// Closes descriptors from `first` up, at once or (`at_exec`) when a program is executed.
pub fn close_from(first: u32, at_exec: bool) {
    let flags = if at_exec {
        libc::CLOSE_RANGE_CLOEXEC
    } else {
        0
    };
    // SAFETY: closes descriptors of this freshly forked process only; its code uses none of them.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flags) };
    if done == 0 {
        return;
    }
    // Before Linux 5.11, or behind a filter that does not know the call.
    for fd in first as i32..65536 {
        // SAFETY: as above.
        unsafe {
            if at_exec {
                libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
            } else {
                libc::close(fd);
            }
        }
    }
}

/// Closes this process's copy of a descriptor that another process, sharing the memory, still owns.
pub fn close_copy(fd: BorrowedFd) {
    // SAFETY: the table of descriptors is this process's own, and it uses the descriptor no more.
    unsafe { libc::close(fd.as_raw_fd()) };
}

/// Gives this process a session keyring of its own, so that none of the user's keys are in reach.
pub fn new_session_keyring() {
    // SAFETY: KEYCTL_JOIN_SESSION_KEYRING (1) with no name takes no pointer. Failing is harmless:
    // a kernel without keys has none to hide.
    unsafe { libc::syscall(libc::SYS_keyctl, 1, 0) };
}

/// Sets the three user ids.
pub fn set_uid(uid: u32) -> io::Result<()> {
    // SAFETY: takes plain integers.
    check(libc::c_long::from(unsafe {
        libc::setresuid(uid, uid, uid)
    }))
    .map(drop)
}

/// Sets the three group ids.
pub fn set_gid(gid: u32) -> io::Result<()> {
    // SAFETY: takes plain integers.
    check(libc::c_long::from(unsafe {
        libc::setresgid(gid, gid, gid)
    }))
    .map(drop)
}

/// Sets the supplementary groups.
pub fn set_groups(groups: &[u32]) -> io::Result<()> {
    // SAFETY: pointer and length belong to one slice.
    check(libc::c_long::from(unsafe {
        libc::setgroups(groups.len(), groups.as_ptr())
    }))
    .map(drop)
}

/// Sets one resource limit by its kernel number.
pub fn set_rlimit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit64 {
        rlim_cur: soft,
        rlim_max: hard,
    };
    let none: *mut libc::rlimit64 = std::ptr::null_mut();
    // SAFETY: `limit` lives through the call and no old value is asked for.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, &raw const limit, none) })
        .map(drop)
}

/// `prctl(2)` with integer arguments.
pub fn prctl(option: libc::c_int, a: libc::c_ulong, b: libc::c_ulong) -> io::Result<libc::c_int> {
    // SAFETY: callers pass only options whose arguments are integers.
    check(libc::c_long::from(unsafe {
        libc::prctl(option, a, b, 0, 0)
    }))
    .map(|value| value as libc::c_int)
}

/// Capability sets as bit masks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CapSets {
    /// In force now.
    pub effective: u64,
    /// May be put in force.
    pub permitted: u64,
    /// Kept over exec by files that say so.
    pub inheritable: u64,
}

/// `struct __user_cap_header_struct`, version 3.
#[repr(C)]
struct CapHeader {
    version: u32,
    pid: libc::c_int,
}
const CAP_VERSION_3: u32 = 0x2008_0522;

/// This process's capabilities.
pub fn cap_get() -> io::Result<CapSets> {
    let header = CapHeader {
        version: CAP_VERSION_3,
        pid: 0,
    };
    let mut data = [0u32; 6]; // twice effective, permitted, inheritable: low words, then high ones
                              // SAFETY: version 3 writes two structs of three words.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) })?;
    let wide = |low: usize| u64::from(data[low]) | (u64::from(data[low + 3]) << 32);
    Ok(CapSets {
        effective: wide(0),
        permitted: wide(1),
        inheritable: wide(2),
    })
}

/// Replaces this process's capabilities.
pub fn cap_set(sets: CapSets) -> io::Result<()> {
    let header = CapHeader {
        version: CAP_VERSION_3,
        pid: 0,
    };
    let words = [sets.effective, sets.permitted, sets.inheritable];
    let low = words.map(|word| word as u32);
    let high = words.map(|word| (word >> 32) as u32);
    let data = [low, high];
    // SAFETY: version 3 reads two structs of three words.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }).map(drop)
}

/// Installs a system-call filter for this thread and all that it will run.
pub fn install_filter(program: &[Instruction]) -> io::Result<()> {
    let filter = libc::sock_fprog {
        len: program.len() as libc::c_ushort, // the compiler gives at most 4096
        filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut(),
    };
    // Without SPEC_ALLOW, kernels before 5.16 slow every process under a filter down.
    let flags = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    // SAFETY: Instruction is laid out as sock_filter, and the program lives through the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const filter,
        )
    })
    .map(drop)
}

/// Brings up `lo` in this network namespace.
///
/// Any socket carries the request; one of UNIX's makes "no other socket was opened" plain to see.
pub fn loopback_up() -> io::Result<()> {
    use rustix::net::{socket, AddressFamily, SocketType};
    let socket = socket(AddressFamily::UNIX, SocketType::DGRAM, None)?;
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which lives through the call.
    check(libc::c_long::from(unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request)
    }))
    .map(drop)
}

/// The login name of a user, from whatever the system's name service says.
pub fn user_name(uid: u32) -> Option<String> {
    let mut buffer = vec![0u8; 16 * 1024];
    // SAFETY: all-zero is a valid passwd to be filled in.
    let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
    let mut found: *mut libc::passwd = std::ptr::null_mut();
    // SAFETY: every pointer is live and the buffer's length is given.
    let failed = unsafe {
        libc::getpwuid_r(
            uid,
            &raw mut entry,
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            &raw mut found,
        )
    };
    if failed != 0 || found.is_null() {
        return None;
    }
    // SAFETY: pw_name points into `buffer`, which is still alive, and ends with a NUL.
    let name = unsafe { std::ffi::CStr::from_ptr(entry.pw_name) };
    name.to_str().ok().map(str::to_owned)
}

/// Overwrites this process's copy of its command line and environment with `title`.
///
/// Containers can read their process 1's command line; it must not show the builder's.
pub fn hide_arguments(title: &[u8]) {
    let Some((start, end, environment_end)) = argument_area() else {
        return;
    };
    let area = (environment_end - start).min(4 << 20);
    // SAFETY: the kernel names this range as the process's own argument and environment strings,
    // which lie in one writable stretch of the stack. The process is a fresh fork with a copy
    // of its own; its code reads neither arguments nor environment.
    let area = unsafe { std::slice::from_raw_parts_mut(start as *mut u8, area) };
    area.fill(0);
    let room = (end - start).saturating_sub(1).min(area.len());
    let title = &title[..title.len().min(room)];
    area[..title.len()].copy_from_slice(title);
}

/// Start and end of the arguments and end of the environment. Source: proc(5), /proc/pid/stat.
fn argument_area() -> Option<(usize, usize, usize)> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name, in brackets, may hold blanks; what follows starts with field 3.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<usize>().ok();
    let (start, end) = (field(48)?, field(49)?);
    let (environment_start, environment_end) = (field(50)?, field(51)?);
    let in_order = start > 0 && start < end && environment_start <= environment_end;
    (in_order && end == environment_start).then_some((start, end, environment_end))
}
