//! The sandbox process, its workers, and process 1 of each container.
//!
//! `start` forks the sandbox process off the builder while that has one thread, no secrets in its
//! memory and few pages. It only forks workers: one for each container that runs at the same time,
//! used again for the next. A worker takes a request (`sandbox::spawn`) and makes process 1 of the
//! container, which shares the worker's memory while that stands still: no page table is copied,
//! and everything here is ordinary single-threaded code, where a child of the threaded builder
//! could do nothing but bare system calls.
//!
//! Who dies with whom: the sandbox process gets SIGKILL when the builder ends, a worker when the
//! sandbox process ends, process 1 when its worker ends, and the kernel ends a container's processes
//! with its process 1. None of them changes its ids or runs a program, which would clear that signal.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{poll, PollFd, PollFlags};
use rustix::fs::Mode;

use crate::detach::detach;
use crate::kernel::{self, Fork};
use crate::sandbox::{self, Report, Request};
use crate::seccomp::{self, Instruction, Seccomp};
use crate::spec::{NamespaceKind, Spec};
use crate::{payload, rootfs, Error, Result};

/// What containers see as the command line of their process 1.
const TITLE: &[u8] = b"img-sandbox";

fn step(name: &str) -> impl Fn(std::io::Error) -> Error + '_ {
    move |source| Error::Sandbox {
        step: name.to_owned(),
        source,
        hint: String::new(),
    }
}

/// Forks the sandbox process. The caller has one thread.
pub fn start() -> Result<()> {
    let failed = step("start the sandbox process");
    let (ours, theirs) = sandbox::packets().map_err(|error| failed(error.into()))?;
    let builder = std::process::id();
    match kernel::fork().map_err(&failed)? {
        Fork::Child => {
            drop(ours);
            serve(&theirs, builder)
        }
        Fork::Parent(_) => {
            sandbox::connect(ours);
            Ok(())
        }
    }
}

/// Leaves the builder behind, its arguments and its mask of modes as well.
fn leave(control: &OwnedFd, builder: u32) -> std::io::Result<OwnedFd> {
    let kept = detach(control, builder, c"img-sandbox")?;
    rustix::process::umask(Mode::empty());
    kernel::hide_arguments(TITLE);
    // Out of reach of a privileged container's debugger.
    kernel::prctl(libc::PR_SET_DUMPABLE, 0, 0)?;
    Ok(kept)
}

fn serve(control: &OwnedFd, builder: u32) -> ! {
    let Ok(control) = leave(control, builder) else {
        kernel::exit_now(1)
    };
    loop {
        match sandbox::receive_worker(control.as_fd()) {
            Ok(Some(socket)) => {
                if matches!(kernel::fork(), Ok(Fork::Child)) {
                    kernel::close_copy(control.as_fd());
                    work(&socket)
                }
            }
            Ok(None) => kernel::exit_now(0),
            Err(_) => {} // a message without its socket: whoever sent it sees that closed
        }
    }
}

/// One container after another, until the builder closes its end.
fn work(socket: &OwnedFd) -> ! {
    if live_with_parent(socket.as_fd()).is_err() {
        kernel::exit_now(1);
    }
    let mut filters = Filters::default();
    loop {
        match sandbox::receive_request(socket.as_fd()) {
            Ok(Some(request)) => {
                let report = match run(request, socket.as_fd(), &mut filters) {
                    Ok(code) => Report::Ended { code },
                    Err(error) => Report::from_error(&error),
                };
                sandbox::send_report(socket.as_fd(), &report, None);
            }
            _ => kernel::exit_now(0),
        }
    }
}

/// The last filter compiled: the steps of a build share one.
#[derive(Default)]
struct Filters {
    profile: Option<Seccomp>,
    program: Vec<Instruction>,
}

impl Filters {
    fn of(&mut self, profile: &Seccomp) -> Result<&[Instruction]> {
        if self.profile.as_ref() != Some(profile) {
            self.program = seccomp::compile(profile)?;
            self.profile = Some(profile.clone());
        }
        Ok(&self.program)
    }
}

/// Runs one container to its end; every process of it is gone, and its output closed, on return.
fn run(request: Request, socket: BorrowedFd, filters: &mut Filters) -> Result<i32> {
    let spec = read_spec(request.spec)?;
    let filter = match &spec.linux.seccomp {
        Some(profile) => Some(filters.of(profile)?),
        None => None,
    };
    let mut outcome = None;
    let pid = kernel::run_beside(spec.namespace_flags(), &mut || {
        outcome = Some(process_one(&spec, filter, &request.output, socket));
        kernel::exit_now(0)
    });
    let pid = pid.map_err(|source| Error::Sandbox {
        step: "make the container's namespaces (clone)".to_owned(),
        hint: namespace_hint(&source).to_owned(),
        source,
    })?;
    let status = kernel::wait_for(pid).map_err(step("wait for a container"))?;
    match outcome {
        Some(outcome) if status == 0 => outcome,
        killed => {
            // It may have been struck down in the middle of writing this.
            std::mem::forget(killed);
            Ok(kernel::exit_code(status))
        }
    }
}

fn namespace_hint(error: &std::io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOSPC) => {
            "too many namespaces; as root, raise user.max_pid_namespaces and its kin (sysctl)"
        }
        Some(libc::EPERM) => "this container or kernel does not let this process make namespaces",
        Some(libc::EAGAIN) => {
            "too many processes; raise the limit (ulimit -u, or the container's pids limit)"
        }
        _ => "",
    }
}

fn read_spec(file: OwnedFd) -> Result<Spec> {
    let mut text = Vec::new();
    std::fs::File::from(file)
        .read_to_end(&mut text)
        .map_err(step("read the runtime-spec"))?;
    Spec::parse(&text)
}

// ---- process 1 of a container -----------------------------------------------------------------

/// Sets the container up, runs its program, reaps everything, and gives the program's exit code;
/// process 1 ends then, upon which the kernel kills whatever is left in the container.
fn process_one(
    spec: &Spec,
    filter: Option<&[Instruction]>,
    output: &OwnedFd,
    socket: BorrowedFd,
) -> Result<i32> {
    let failed = step("start the container");
    live_with_parent(socket).map_err(&failed)?;
    // The id is 1 in here; the descriptor means this process in the builder too.
    let this = rustix::process::getpid();
    let pidfd = rustix::process::pidfd_open(this, rustix::process::PidfdFlags::empty())
        .map_err(|error| failed(error.into()))?;
    let made = set_up(spec)?;
    let program = start_program(spec, filter, output)?;
    kernel::close_copy(output.as_fd());
    let root = spec.root.path.0.clone();
    sandbox::send_report(socket, &Report::Started { root, made }, Some(pidfd.as_fd()));
    Ok(reap_until(program))
}

fn live_with_parent(socket: BorrowedFd) -> std::io::Result<()> {
    kernel::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, 0)?;
    // Whoever ended before that call sent no signal: but then the builder's end is closed.
    let mut fds = [PollFd::new(&socket, PollFlags::empty())];
    let now = rustix::event::Timespec::default();
    poll(&mut fds, Some(&now))?;
    if fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR) {
        kernel::exit_now(0);
    }
    kernel::reset_signals();
    Ok(())
}

fn set_up(spec: &Spec) -> Result<Vec<rootfs::Made>> {
    kernel::new_session_keyring();
    if let Some(hostname) = &spec.hostname {
        rustix::system::sethostname(hostname.as_bytes())
            .map_err(|error| step("set the host name")(error.into()))?;
    }
    if spec.owns(NamespaceKind::Network) {
        kernel::loopback_up().map_err(step("bring up the loopback interface"))?;
    }
    rootfs::enter(spec)
}

/// Starts the program and waits until it is executed. The child shares this process's memory until
/// then, so that an error need not be sent: it is simply there.
fn start_program(
    spec: &Spec,
    filter: Option<&[Instruction]>,
    output: &OwnedFd,
) -> Result<libc::pid_t> {
    let failed = step("start the program");
    let mut refused = None;
    let pid = kernel::run_beside(0, &mut || {
        refused = Some(match redirect(output) {
            Ok(()) => payload::become_program(spec, filter),
            Err(error) => failed(error),
        });
    });
    match refused {
        None => pid.map_err(&failed),
        Some(error) => Err(error),
    }
}

/// Standard input stays `/dev/null`; nothing but the three standard descriptors outlives exec.
fn redirect(output: &OwnedFd) -> std::io::Result<()> {
    rustix::stdio::dup2_stdout(output)?;
    rustix::stdio::dup2_stderr(output)?;
    kernel::close_from(3, true);
    Ok(())
}

/// Reaps whatever becomes an orphan until the program itself ends; gives its exit code.
fn reap_until(program: libc::pid_t) -> i32 {
    while let Some((pid, status)) = kernel::wait_any() {
        if pid == program {
            return kernel::exit_code(status);
        }
    }
    128 + libc::SIGKILL
}
