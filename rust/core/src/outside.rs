//! Programs of the host that must see the real user: git, and the ssh that git starts.
//!
//! [`start`] forks a small process while the builder has one thread and has not entered its
//! namespace yet (DESIGN D1); [`run`] has it run one program and gives a [`Running`]. Where it was not
//! started, [`run`] starts the program from this very process. A program has a session of its own, so
//! Ctrl-C does not reach it by way of the terminal and it can ask no questions on one; it ends with
//! its builder, and so does all that it started.
//!
//! It inherits the environment of this process but for what would lead git astray ([`inherits`]).

use std::ffi::OsString;
use std::io::{self, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::fs::{memfd_create, MemfdFlags, Mode};
use rustix::net::{
    recvmsg, sendmsg, socketpair, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage,
    RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use rustix::process::{kill_process_group, pidfd_open, Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};

use crate::detach::detach;
use crate::kernel::{self, Fork};
use crate::{idmap, Error, Result};

/// Most bytes of a program's output that are kept.
const LONGEST_OUTPUT: u64 = 64 << 20;

/// The socket on which the process outside takes requests.
static CONTROL: RwLock<Option<OwnedFd>> = RwLock::new(None);

/// One program to be run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Program {
    /// The program and its arguments; looked up in PATH.
    pub argv: Vec<String>,
    /// Variables over those that it inherits.
    pub env: Vec<(String, String)>,
    /// The folder that it starts in.
    pub cwd: PathBuf,
    /// Its standard input.
    pub stdin: Vec<u8>,
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Its exit code, 128 and more for a signal.
    pub code: i32,
    /// What it wrote, the first 64 MiB.
    pub stdout: Vec<u8>,
    /// What it complained of.
    pub stderr: Vec<u8>,
}

/// What comes back on a program's socket: its exit code, or why it could not be started.
#[derive(Debug, Serialize, Deserialize)]
enum Ending {
    Code(i32),
    Refused(i32),
}

/// Tells whether a program inherits a variable. `GIT_DIR` and its kin name a repository of whoever
/// calls us (a hook, say), and proxies are the caller's to give.
pub fn inherits(name: &str) -> bool {
    let proxy = name.to_ascii_lowercase().ends_with("_proxy");
    let git =
        name.starts_with("GIT_") && !name.starts_with("GIT_SSH") && !name.starts_with("GIT_SSL");
    !proxy && !git
}

fn failed(op: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::Io {
        op,
        path: PathBuf::from("(a program of the host)"),
        source,
    }
}

// ---- the process outside ------------------------------------------------------------------------

/// Forks the process outside. The caller has one thread. Calling it again does nothing.
pub fn start() -> Result<()> {
    let mut control = CONTROL.write().unwrap_or_else(PoisonError::into_inner);
    if control.is_some() {
        return Ok(());
    }
    idmap::refuse_threads()?;
    let failed = failed("start the process for");
    let (ours, theirs) = packets().map_err(&failed)?;
    let builder = std::process::id();
    match kernel::fork().map_err(&failed)? {
        Fork::Child => {
            drop(ours);
            serve(&theirs, builder)
        }
        Fork::Parent(_) => {
            *control = Some(ours);
            Ok(())
        }
    }
}

fn packets() -> io::Result<(OwnedFd, OwnedFd)> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    Ok(socketpair(family, kind, SocketFlags::CLOEXEC, None)?)
}

/// The process outside: it keeps the builder's ids and environment.
fn serve(control: &OwnedFd, builder: u32) -> ! {
    let Ok(control) = detach(control, builder, c"img-outside") else {
        kernel::exit_now(1)
    };
    loop {
        match receive(control.as_fd()) {
            Ok(Some(request)) => {
                if matches!(kernel::fork(), Ok(Fork::Child)) {
                    kernel::close_copy(control.as_fd());
                    attend(request)
                }
            }
            Ok(None) => kernel::exit_now(0),
            Err(_) => {} // a message without its descriptors: whoever sent it sees them closed
        }
    }
}

/// Runs one program to its end, or until the builder closes its end of the socket.
fn attend(request: [OwnedFd; 4]) -> ! {
    let [program, stdout, stderr, socket] = request;
    // SAFETY: SIG_DFL is valid; this process waits for its own child, where its parent waits for none.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    let started = read_program(program).and_then(|program| spawn(&program, stdout, stderr));
    let ending = match started {
        Ok(mut child) => {
            if !matches!(await_child(&child, Some(socket.as_fd()), None), Ok(true)) {
                end(&mut child);
                kernel::exit_now(0)
            }
            Ending::Code(code_of(&mut child))
        }
        Err(error) => Ending::Refused(error.raw_os_error().unwrap_or(libc::EIO)),
    };
    let bytes = serde_json::to_vec(&ending).unwrap_or_default();
    let _ = rustix::net::send(&socket, &bytes, SendFlags::NOSIGNAL); // a builder that is gone needs no answer
    kernel::exit_now(0)
}

fn read_program(file: OwnedFd) -> io::Result<Program> {
    let mut text = Vec::new();
    std::fs::File::from(file).read_to_end(&mut text)?;
    serde_json::from_slice(&text).map_err(|_| io::Error::from_raw_os_error(libc::EBADMSG))
}

/// Starts a program in a session of its own. It dies with the thread that started it.
fn spawn(program: &Program, stdout: OwnedFd, stderr: OwnedFd) -> io::Result<Child> {
    let [name, arguments @ ..] = program.argv.as_slice() else {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    };
    let inherited = std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(inherits));
    let mut command = Command::new(name);
    command
        .args(arguments)
        .env_clear()
        .envs(inherited)
        .envs(
            program
                .env
                .iter()
                .map(|(k, v)| (OsString::from(k), OsString::from(v))),
        )
        .current_dir(&program.cwd)
        .stdin(Stdio::from(in_memory(&program.stdin)?))
        .stdout(Stdio::from(stdout))
        .stderr(Stdio::from(stderr));
    // SAFETY: bare system calls only, which a child of a threaded process may make.
    unsafe {
        command.pre_exec(|| {
            kernel::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, 0)?;
            rustix::process::setsid()?;
            rustix::process::umask(Mode::from_raw_mode(0o022));
            Ok(())
        });
    }
    command.spawn()
}

fn in_memory(bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = std::fs::File::from(memfd_create("input", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    file.rewind()?; // the reader shares this offset
    Ok(file.into())
}

/// Waits for a child's end, at most so long; false where the time is over or `listener` is gone.
fn await_child(
    child: &Child,
    listener: Option<BorrowedFd>,
    time: Option<Duration>,
) -> io::Result<bool> {
    let pid = Pid::from_child(child);
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let limit = time.map(|time| Timespec {
        tv_sec: time.as_secs() as _,
        tv_nsec: time.subsec_nanos().into(),
    });
    loop {
        let mut fds = vec![PollFd::new(&pidfd, PollFlags::IN)];
        if let Some(listener) = &listener {
            fds.push(PollFd::new(listener, PollFlags::empty()));
        }
        match poll(&mut fds, limit.as_ref()) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(!fds[0].revents().is_empty()),
            Err(rustix::io::Errno::INTR) if time.is_some() => return Ok(false),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn code_of(child: &mut Child) -> i32 {
    match child.wait() {
        Ok(status) => kernel::exit_code(status.into_raw()),
        Err(_) => 128 + libc::SIGKILL,
    }
}

/// Ends a program and all that it started, which is in its session.
fn end(child: &mut Child) {
    let _ = kill_process_group(Pid::from_child(child), Signal::KILL); // it may have ended just now
    let _ = child.kill();
    let _ = child.wait();
}

// ---- the builder's side -------------------------------------------------------------------------

/// A program at work. Dropping it ends the program.
#[derive(Debug)]
pub struct Running {
    place: Place,
    stdout: std::fs::File,
    stderr: std::fs::File,
    program: PathBuf,
}

#[derive(Debug)]
enum Place {
    /// The socket tells the end; closing it ends the program.
    Outside(OwnedFd),
    /// A child of this process.
    Here(Child),
}

/// Starts a program outside, or in this process's own namespace where `start` was not called.
pub fn run(program: &Program) -> Result<Running> {
    let failed = failed("start");
    let output = || memfd_create("output", MemfdFlags::CLOEXEC).map_err(io::Error::from);
    let (stdout, stderr) = (output().map_err(&failed)?, output().map_err(&failed)?);
    let copies = (
        stdout.try_clone().map_err(&failed)?,
        stderr.try_clone().map_err(&failed)?,
    );
    let name = PathBuf::from(program.argv.first().map_or("", String::as_str));
    let control = CONTROL.read().unwrap_or_else(PoisonError::into_inner);
    let place = match &*control {
        Some(control) => {
            let text = serde_json::to_vec(program).map_err(|error| failed(error.into()))?;
            let request = in_memory(&text).map_err(&failed)?;
            let (ours, theirs) = packets().map_err(&failed)?;
            let descriptors = [
                request.as_fd(),
                copies.0.as_fd(),
                copies.1.as_fd(),
                theirs.as_fd(),
            ];
            send(control.as_fd(), &descriptors).map_err(&failed)?;
            Place::Outside(ours)
        }
        None => Place::Here(
            spawn(program, copies.0, copies.1).map_err(|source| Error::Io {
                op: "run",
                path: name.clone(),
                source,
            })?,
        ),
    };
    Ok(Running {
        place,
        stdout: stdout.into(),
        stderr: stderr.into(),
        program: name,
    })
}

fn send(socket: BorrowedFd, descriptors: &[BorrowedFd]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
    let bytes = [io::IoSlice::new(b"r")];
    rustix::io::retry_on_intr(|| sendmsg(socket, &bytes, &mut ancillary, SendFlags::NOSIGNAL))?;
    Ok(())
}

/// The next request; None when the builder is gone.
fn receive(socket: BorrowedFd) -> io::Result<Option<[OwnedFd; 4]>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0u8; 1];
    let message = rustix::io::retry_on_intr(|| {
        let mut slices = [io::IoSliceMut::new(&mut byte)];
        recvmsg(socket, &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
    })?;
    if message.bytes == 0 {
        return Ok(None);
    }
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    match descriptors.try_into() {
        Ok(descriptors) => Ok(Some(descriptors)),
        Err(_) => Err(io::Error::from_raw_os_error(libc::EBADMSG)),
    }
}

impl Running {
    /// Waits for the program's end, at most so long; None where it is still at work.
    ///
    /// An `Io` error names the program where it could not be started.
    pub fn wait_slice(&mut self, time: Duration) -> Result<Option<Outcome>> {
        let failed = failed("wait for");
        let code = match &mut self.place {
            Place::Here(child) => {
                if !await_child(child, None, Some(time)).map_err(&failed)? {
                    return Ok(None);
                }
                code_of(child)
            }
            Place::Outside(socket) => {
                let limit = Timespec {
                    tv_sec: time.as_secs() as _,
                    tv_nsec: time.subsec_nanos().into(),
                };
                match poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&limit)) {
                    Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(None),
                    Ok(_) => {}
                    Err(error) => return Err(failed(error.into())),
                }
                ending(socket.as_fd(), &self.program)?
            }
        };
        Ok(Some(Outcome {
            code,
            stdout: contents(&mut self.stdout).map_err(&failed)?,
            stderr: contents(&mut self.stderr).map_err(&failed)?,
        }))
    }
}

fn ending(socket: BorrowedFd, program: &std::path::Path) -> Result<i32> {
    let mut bytes = [0u8; 64];
    let length =
        rustix::net::recv(socket, &mut bytes[..], RecvFlags::empty()).map_or(0, |(n, _)| n);
    match serde_json::from_slice(&bytes[..length]) {
        Ok(Ending::Code(code)) => Ok(code),
        Ok(Ending::Refused(code)) => Err(Error::Io {
            op: "run",
            path: program.to_owned(),
            source: io::Error::from_raw_os_error(code),
        }),
        Err(_) => Ok(128 + libc::SIGKILL), // whoever ran it was killed, and it with them
    }
}

fn contents(file: &mut std::fs::File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.take(LONGEST_OUTPUT).read_to_end(&mut bytes)?;
    Ok(bytes)
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Place::Here(child) = &mut self.place {
            if !matches!(child.try_wait(), Ok(Some(_))) {
                end(child);
            }
        }
    }
}

#[cfg(test)]
mod tests;
