//! The builder's side of containers: [`spawn`] and [`Container`], and the messages that cross to
//! the workers of the sandbox process (`monitor`), which do the work.
//!
//! A worker runs one container at a time and has a socket of its own: a request is one packet with
//! two descriptors, the specification and the output; [`Report`]s come back. Idle workers wait in
//! `IDLE`. Threads share nothing else, so any of them may spawn, wait or kill.

use std::io::{self, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Duration;

use rustix::event::{poll, PollFd, PollFlags};
use rustix::net::{
    recvmsg, sendmsg, socketpair, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage,
    RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
    SocketType,
};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::rootfs::{self, Made};
use crate::{Error, Result};

/// The exit code of a container that was killed.
const KILLED: i32 = 128 + libc::SIGKILL;
/// Longest report: what a container sends is small, but lists the mount points that it made.
const LONGEST_REPORT: usize = 256 * 1024;

/// The socket on which the sandbox process is asked for workers.
static CONTROL: RwLock<Option<OwnedFd>> = RwLock::new(None);
/// Sockets of workers that have nothing to do.
static IDLE: Mutex<Vec<OwnedFd>> = Mutex::new(Vec::new());

/// Takes the builder's end of the control socket; `monitor::start` calls it once.
pub(crate) fn connect(control: OwnedFd) {
    *CONTROL.write().unwrap_or_else(PoisonError::into_inner) = Some(control);
}

// ---- messages ---------------------------------------------------------------------------------

/// What a worker's socket carries, from process 1 and then from the worker itself.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The program was executed (or told on the output why it could not be); with process 1's pidfd.
    Started {
        /// The container's root, as a path outside.
        root: Vec<u8>,
        /// What to remove afterwards.
        made: Vec<Made>,
    },
    /// Every process is gone, and the worker free again.
    Ended {
        /// The program's exit code, 128 and more for a signal.
        code: i32,
    },
    /// A step was refused: `Error::Sandbox`.
    Refused {
        /// The step's name.
        step: String,
        /// The operating system's answer.
        errno: i32,
        /// What to do.
        hint: String,
    },
    /// `Error::Unsupported`.
    Unsupported {
        /// What is not known.
        feature: String,
        /// Where it was met.
        place: String,
    },
}

impl Report {
    pub(crate) fn from_error(error: &Error) -> Report {
        match error {
            Error::Sandbox { step, source, hint } => Report::Refused {
                step: step.clone(),
                errno: source.raw_os_error().unwrap_or(libc::EIO),
                hint: hint.clone(),
            },
            Error::Unsupported { feature, place } => Report::Unsupported {
                feature: feature.clone(),
                place: place.clone(),
            },
            other => Report::Refused {
                step: other.to_string(),
                errno: libc::EIO,
                hint: String::new(),
            },
        }
    }

    /// The error that this reports, if it does.
    fn into_error(self) -> Result<(), Error> {
        match self {
            Report::Refused { step, errno, hint } => Err(Error::Sandbox {
                step,
                source: io::Error::from_raw_os_error(errno),
                hint,
            }),
            Report::Unsupported { feature, place } => Err(Error::Unsupported { feature, place }),
            _ => Ok(()),
        }
    }
}

fn broken(what: &str) -> Error {
    Error::Sandbox {
        step: format!("hear from the sandbox process ({what})"),
        source: io::Error::from_raw_os_error(libc::EPIPE),
        hint: "it was killed, perhaps for want of memory".to_owned(),
    }
}

/// What a container is made from, as a worker gets it.
pub(crate) struct Request {
    pub(crate) spec: OwnedFd,
    pub(crate) output: OwnedFd,
}

/// Waits until a worker is wanted, and gives its socket; None when the builder is gone.
pub(crate) fn receive_worker(control: BorrowedFd) -> io::Result<Option<OwnedFd>> {
    Ok(receive_with(control)?.map(|[socket]| socket))
}

/// Waits for the next request; None when the builder is gone.
pub(crate) fn receive_request(socket: BorrowedFd) -> io::Result<Option<Request>> {
    Ok(receive_with(socket)?.map(|[spec, output]| Request { spec, output }))
}

/// One message with exactly `N` descriptors; None at the end.
fn receive_with<const N: usize>(socket: BorrowedFd) -> io::Result<Option<[OwnedFd; N]>> {
    let (length, descriptors) = receive(socket, &mut [0u8; 1])?;
    if length == 0 {
        return Ok(None);
    }
    match descriptors.try_into() {
        Ok(descriptors) => Ok(Some(descriptors)),
        Err(_) => Err(io::Error::from_raw_os_error(libc::EBADMSG)),
    }
}

/// Sends a report; a builder that no longer listens is no concern of the container's.
pub(crate) fn send_report(status: BorrowedFd, report: &Report, with: Option<BorrowedFd>) {
    let bytes = serde_json::to_vec(report).unwrap_or_default();
    let descriptors: Vec<BorrowedFd> = with.into_iter().collect();
    let _ = send(status, &bytes, &descriptors);
}

fn send(socket: BorrowedFd, bytes: &[u8], descriptors: &[BorrowedFd]) -> rustix::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    let bytes = [IoSlice::new(bytes)];
    rustix::io::retry_on_intr(|| sendmsg(socket, &bytes, &mut ancillary, SendFlags::NOSIGNAL))
        .map(drop)
}

fn receive(socket: BorrowedFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let message = loop {
        let mut slices = [IoSliceMut::new(buffer)];
        match recvmsg(socket, &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    if message.flags.contains(ReturnFlags::TRUNC) {
        return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
    }
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    Ok((message.bytes, descriptors))
}

/// The next report; None at the end.
fn receive_report(status: BorrowedFd) -> Result<Option<(Report, Option<OwnedFd>)>> {
    let mut buffer = vec![0u8; LONGEST_REPORT];
    let (length, descriptors) =
        receive(status, &mut buffer).map_err(|error| broken(&error.to_string()))?;
    if length == 0 {
        return Ok(None);
    }
    let report =
        serde_json::from_slice(&buffer[..length]).map_err(|error| broken(&error.to_string()))?;
    Ok(Some((report, descriptors.into_iter().next())))
}

// ---- containers -------------------------------------------------------------------------------

/// A running container. Dropping it kills what still runs.
#[derive(Debug)]
pub struct Container {
    pidfd: OwnedFd,
    root: PathBuf,
    made: Vec<Made>,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    /// The worker's socket tells the end.
    Running(OwnedFd),
    /// The exit code; every process is gone.
    Ended(i32),
}

/// Starts a container from runtime-spec JSON; its standard output and error go to `output`.
///
/// Returns once the program is executed. A program that is not found is no error: it ends with 127.
/// Every process of the container ends with this process, however that ends.
pub fn spawn(spec: &str, output: BorrowedFd) -> Result<Container> {
    let spec = in_memory(spec.as_bytes()).map_err(|error| cannot("hand over the spec", error))?;
    let request = [spec.as_fd(), output];
    let idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner).pop();
    // An idle worker may have been killed meanwhile: a new one is asked for then.
    if let Some(worker) = idle.filter(|worker| send(worker.as_fd(), b"r", &request).is_ok()) {
        return await_start(worker);
    }
    let worker = new_worker()?;
    send(worker.as_fd(), b"r", &request).map_err(|error| request_failed(error.into()))?;
    await_start(worker)
}

fn request_failed(error: io::Error) -> Error {
    match error.raw_os_error() {
        Some(libc::EPIPE | libc::ECONNRESET) => broken(&error.to_string()),
        _ => cannot("ask for a container", error),
    }
}

fn new_worker() -> Result<OwnedFd> {
    let (ours, theirs) = packets().map_err(|error| cannot("make a socket", error.into()))?;
    let control = CONTROL.read().unwrap_or_else(PoisonError::into_inner);
    let control = control.as_ref().ok_or_else(|| Error::Sandbox {
        step: "start a container".to_owned(),
        source: io::Error::from_raw_os_error(libc::ESRCH),
        hint: "enter_namespace must be called first".to_owned(),
    })?;
    send(control.as_fd(), b"w", &[theirs.as_fd()]).map_err(|error| request_failed(error.into()))?;
    Ok(ours)
}

/// A pair of sockets that keep messages apart.
pub(crate) fn packets() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    socketpair(family, kind, SocketFlags::CLOEXEC, None)
}

fn cannot(step: &str, source: io::Error) -> Error {
    Error::Sandbox {
        step: step.to_owned(),
        source,
        hint: String::new(),
    }
}

fn in_memory(bytes: &[u8]) -> io::Result<OwnedFd> {
    use std::io::Seek;
    let fd = rustix::fs::memfd_create("runtime-spec", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(fd);
    file.write_all(bytes)?;
    file.rewind()?; // the reader shares this offset
    Ok(file.into())
}

/// Takes the first report: the program has started, or a step was refused.
fn await_start(worker: OwnedFd) -> Result<Container> {
    match receive_report(worker.as_fd())? {
        Some((Report::Started { root, made }, Some(pidfd))) => Ok(Container {
            pidfd,
            root: PathBuf::from(std::ffi::OsString::from_vec(root)),
            made,
            state: Mutex::new(State::Running(worker)),
        }),
        Some((Report::Ended { .. }, _)) => {
            set_idle(worker);
            Err(broken("the container's first process was killed"))
        }
        Some((report, _)) => {
            let refused = report.into_error();
            set_idle(worker);
            refused?;
            Err(broken("unexpected report"))
        }
        None => Err(broken("its worker is gone")),
    }
}

fn set_idle(worker: OwnedFd) {
    IDLE.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(worker);
}

impl Container {
    /// The id of its process 1 in the builder's namespace; 0 once it is gone.
    pub fn pid(&self) -> i32 {
        let info = format!("/proc/self/fdinfo/{}", self.pidfd.as_raw_fd());
        let text = std::fs::read_to_string(info).unwrap_or_default();
        let pid = text.lines().find_map(|line| line.strip_prefix("Pid:"));
        pid.and_then(|pid| pid.trim().parse().ok())
            .map_or(0, |pid: i32| pid.max(0))
    }

    /// Waits for its end, at most so long. Gives the exit code (128 and more for a signal) once every
    /// process of it is gone and the mount points made for it are taken back; asked again, the same.
    pub fn wait_slice(&self, time: Duration) -> Result<Option<i32>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let worker = match &*state {
            State::Ended(code) => return Ok(Some(*code)),
            State::Running(worker) => worker,
        };
        if !readable(worker.as_fd(), Some(time))? {
            return Ok(None);
        }
        let code = match receive_report(worker.as_fd()) {
            Ok(Some((Report::Ended { code }, _))) => Some(code),
            _ => None,
        };
        if code.is_none() {
            // The worker was killed: process 1 gets the signal too, and is soon gone.
            self.kill();
            readable(self.pidfd.as_fd(), None)?;
        }
        let ended = State::Ended(code.unwrap_or(KILLED));
        if let (State::Running(worker), Some(_)) = (std::mem::replace(&mut *state, ended), code) {
            set_idle(worker);
        }
        rootfs::take_back(&self.root, &self.made);
        Ok(Some(code.unwrap_or(KILLED)))
    }

    /// Waits for its end.
    pub fn wait(&self) -> Result<i32> {
        loop {
            if let Some(code) = self.wait_slice(Duration::from_secs(3600))? {
                return Ok(code);
            }
        }
    }

    /// Ends every process of it at once. Safe from any thread, at any time, more than once.
    pub fn kill(&self) {
        // A pidfd never means another process; of an ended one the kernel says so, which is fine.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
    }
}

/// Waits until a descriptor has something to read, at most so long. An interrupt ends the wait too.
fn readable(fd: BorrowedFd, time: Option<Duration>) -> Result<bool> {
    let limit = time.map(|time| rustix::event::Timespec {
        tv_sec: time.as_secs() as _,
        tv_nsec: time.subsec_nanos().into(),
    });
    loop {
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], limit.as_ref()) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) if time.is_some() => return Ok(false),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(cannot("wait for a container", error.into())),
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if matches!(state, State::Running(_)) {
            self.kill();
            let _ = self.wait();
        }
    }
}

#[cfg(test)]
mod tests;
