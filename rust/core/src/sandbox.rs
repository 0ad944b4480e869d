//! The builder's side of containers: [`spawn`] and [`Container`], and the messages that cross to
//! the sandbox process (`monitor`), which does the work.
//!
//! A request is one packet with three descriptors: the specification, the output, and a socket of
//! this container's own for [`Report`]s. Threads share nothing else, so any of them may spawn, wait
//! or kill. A container's processes are all gone when its process 1 is, which a pidfd tells.

use std::io::{self, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
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

static CONTROL: RwLock<Option<OwnedFd>> = RwLock::new(None);

/// Takes the builder's end of the control socket; `monitor::start` calls it once.
pub(crate) fn connect(control: OwnedFd) {
    *CONTROL.write().unwrap_or_else(PoisonError::into_inner) = Some(control);
}

// ---- messages ---------------------------------------------------------------------------------

/// What a container's socket carries, from the sandbox process and from process 1.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// Process 1 exists; its pidfd comes with this.
    Born {
        /// Its id in the builder's namespace.
        pid: i32,
    },
    /// The program was executed (or told on the output why it could not be).
    Started {
        /// The container's root, as a path outside.
        root: Vec<u8>,
        /// What to remove afterwards.
        made: Vec<Made>,
    },
    /// The program ended.
    Exited {
        /// Its exit code, 128 and more for a signal.
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

/// What a container is made from, as the sandbox process gets it.
pub(crate) struct Request {
    pub(crate) spec: OwnedFd,
    pub(crate) output: OwnedFd,
    pub(crate) status: OwnedFd,
}

/// Waits for the next request; None when the builder is gone.
pub(crate) fn receive_request(control: BorrowedFd) -> io::Result<Option<Request>> {
    let mut byte = [0u8; 1];
    let (length, descriptors) = receive(control, &mut byte)?;
    if length == 0 {
        return Ok(None);
    }
    match <[OwnedFd; 3]>::try_from(descriptors) {
        Ok([spec, output, status]) => Ok(Some(Request {
            spec,
            output,
            status,
        })),
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
    pid: i32,
    pidfd: OwnedFd,
    status: OwnedFd,
    root: PathBuf,
    made: Vec<Made>,
    /// What the program's end was, where that came before the start was known.
    early: Option<i32>,
    /// The exit code, once every process is gone.
    ended: Mutex<Option<i32>>,
}

/// Starts a container from runtime-spec JSON; its standard output and error go to `output`.
///
/// Returns once the program is executed. A program that is not found is no error: it ends with 127.
/// Every process of the container ends with this process, however that ends.
pub fn spawn(spec: &str, output: BorrowedFd) -> Result<Container> {
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|error| cannot("make a socket", error.into()))?;
    let spec =
        in_memory(spec.as_bytes()).map_err(|error| cannot("hand over the runtime-spec", error))?;
    {
        let control = CONTROL.read().unwrap_or_else(PoisonError::into_inner);
        let control = control.as_ref().ok_or_else(|| Error::Sandbox {
            step: "start a container".to_owned(),
            source: io::Error::from_raw_os_error(libc::ESRCH),
            hint: "enter_namespace must be called first".to_owned(),
        })?;
        send(
            control.as_fd(),
            b"r",
            &[spec.as_fd(), output, theirs.as_fd()],
        )
        .map_err(|error| broken(&error.to_string()))?;
    }
    drop(theirs); // so that the socket ends when the container's side does
    await_start(ours)
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

/// Takes reports until process 1 is known and the program has started; they come in either order.
fn await_start(status: OwnedFd) -> Result<Container> {
    let mut born: Option<(i32, OwnedFd)> = None;
    let mut started: Option<(Vec<u8>, Vec<Made>)> = None;
    let mut early = None;
    while born.is_none() || started.is_none() {
        match receive_report(status.as_fd())? {
            Some((Report::Born { pid }, Some(pidfd))) => born = Some((pid, pidfd)),
            Some((Report::Started { root, made }, _)) => started = Some((root, made)),
            Some((Report::Exited { code }, _)) => early = Some(code),
            Some((report, _)) => {
                let refused = report.into_error();
                wait_until_gone(
                    born.as_ref().map(|(_, pidfd)| pidfd.as_fd()),
                    status.as_fd(),
                );
                refused?;
                return Err(broken("unexpected report"));
            }
            None => return Err(broken("the container's first process is gone")),
        }
    }
    match (born, started) {
        (Some((pid, pidfd)), Some((root, made))) => Ok(Container {
            pid,
            pidfd,
            status,
            root: PathBuf::from(std::ffi::OsString::from_vec(root)),
            made,
            early,
            ended: Mutex::new(None),
        }),
        _ => Err(broken("no start")),
    }
}

/// After a refusal: waits for process 1, so that the caller finds its mounts unused.
fn wait_until_gone(pidfd: Option<BorrowedFd>, status: BorrowedFd) {
    match pidfd {
        Some(pidfd) => {
            let _ = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None);
        }
        None => {
            // Process 1 may have failed before the report of its birth came.
            if let Ok(Some((Report::Born { .. }, Some(pidfd)))) = receive_report(status) {
                let _ = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None);
            }
        }
    }
}

impl Container {
    /// The id of its process 1 in the builder's namespace.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits for its end, at most so long. Gives the exit code (128 and more for a signal) once every
    /// process of it is gone and the mount points made for it are taken back; asked again, the same.
    pub fn wait_slice(&self, time: Duration) -> Result<Option<i32>> {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if ended.is_some() {
            return Ok(*ended);
        }
        let limit = rustix::event::Timespec {
            tv_sec: time.as_secs() as _,
            tv_nsec: time.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&limit)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(None),
            Ok(_) => {}
            Err(error) => return Err(cannot("wait for a container", error.into())),
        }
        let code = self.early.or_else(|| self.reported_end()).unwrap_or(KILLED);
        rootfs::take_back(&self.root, &self.made);
        *ended = Some(code);
        Ok(*ended)
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

    /// Process 1 is gone: what it said last is in the socket, or nothing is.
    fn reported_end(&self) -> Option<i32> {
        while let Ok(Some((report, _))) = receive_report(self.status.as_fd()) {
            if let Report::Exited { code } = report {
                return Some(code);
            }
        }
        None
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let ended = self
            .ended
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some();
        if !ended {
            self.kill();
            let _ = self.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_error_survives_the_way_through_a_report() {
        let error = Error::Sandbox {
            step: "mount proc at /proc".to_owned(),
            source: io::Error::from_raw_os_error(libc::EPERM),
            hint: "do this".to_owned(),
        };
        let bytes = serde_json::to_vec(&Report::from_error(&error)).unwrap();
        let report: Report = serde_json::from_slice(&bytes).unwrap();
        let Err(Error::Sandbox { step, source, hint }) = report.into_error() else {
            panic!("another kind")
        };
        assert_eq!(
            (step.as_str(), source.raw_os_error(), hint.as_str()),
            ("mount proc at /proc", Some(1), "do this")
        );
    }

    #[test]
    fn descriptors_cross_with_a_request() {
        let (a, b) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        let file = in_memory(b"text").unwrap();
        send(a.as_fd(), b"r", &[file.as_fd(), file.as_fd(), file.as_fd()]).unwrap();
        let request = receive_request(b.as_fd()).unwrap().unwrap();
        let mut text = String::new();
        io::Read::read_to_string(&mut std::fs::File::from(request.spec), &mut text).unwrap();
        assert_eq!(text, "text");
        drop(a);
        assert!(receive_request(b.as_fd()).unwrap().is_none());
    }

    #[test]
    fn a_request_without_its_descriptors_is_refused() {
        let (a, b) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        send(a.as_fd(), b"r", &[]).unwrap();
        assert!(receive_request(b.as_fd()).is_err());
    }
}
