//! The sandbox process, and process 1 of each container.
//!
//! `start` forks the sandbox process off the builder while that has one thread, no secrets in its
//! memory and few pages. It waits for requests (`sandbox::spawn`), and for each one forks process 1
//! of a container into new namespaces. So everything here runs single-threaded and is ordinary
//! code, where a child of the threaded builder could do nothing but bare system calls.
//!
//! Who dies with whom: the sandbox process gets SIGKILL when the builder ends, each process 1 gets
//! it when the sandbox process ends, and the kernel ends a container's processes with its process 1.
//! None of the two ever changes its credentials or runs a program, which would clear that signal.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{poll, PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::net::{socketpair, AddressFamily, SocketFlags, SocketType};

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
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|error| failed(error.into()))?;
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

/// Leaves everything of the builder's behind: its descriptors, session, signals, arguments.
fn detach(control: &OwnedFd, builder: u32) -> std::io::Result<OwnedFd> {
    kernel::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, 0)?;
    if std::os::unix::process::parent_id() != builder {
        kernel::exit_now(0); // it ended before the signal was asked for
    }
    kernel::reset_signals();
    kernel::ignore_children();
    // Ctrl-C is the builder's to handle: it must not reach the containers by way of the terminal.
    rustix::process::setsid()?;
    rustix::process::umask(Mode::empty());
    rustix::process::chdir("/")?;
    let control = rustix::io::fcntl_dupfd_cloexec(control, 10)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    let kept = {
        use std::os::fd::{AsRawFd, FromRawFd};
        // SAFETY: 3 becomes a copy of the control socket; whatever it was belongs to nobody in
        // this process, which uses no other descriptor of the builder's.
        unsafe {
            if libc::dup3(control.as_raw_fd(), 3, libc::O_CLOEXEC) < 0 {
                return Err(std::io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(3)
        }
    };
    std::mem::forget((control, null)); // closed with all others here
    kernel::close_from(4, false);
    kernel::hide_arguments(TITLE);
    rustix::thread::set_name(c"img-sandbox")?;
    // Out of reach of a privileged container's debugger.
    kernel::prctl(libc::PR_SET_DUMPABLE, 0, 0)?;
    Ok(kept)
}

fn serve(control: &OwnedFd, builder: u32) -> ! {
    let Ok(control) = detach(control, builder) else {
        kernel::exit_now(1)
    };
    let mut filters = Filters::default();
    loop {
        match sandbox::receive_request(control.as_fd()) {
            Ok(Some(request)) => handle(&control, request, &mut filters),
            Ok(None) => kernel::exit_now(0),
            Err(_) => {} // a request without its descriptors: whoever sent it sees its socket closed
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

fn handle(control: &OwnedFd, request: Request, filters: &mut Filters) {
    let status = request.status.as_fd();
    let prepared = read_spec(&request.spec).and_then(|spec| {
        let filter = spec
            .linux
            .seccomp
            .as_ref()
            .map(|profile| filters.of(profile));
        Ok((filter.transpose()?.map(<[_]>::to_vec), spec))
    });
    let (filter, spec) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return sandbox::send_report(status, &Report::from_error(&error), None),
    };
    match kernel::fork_into(spec.namespace_flags()) {
        Ok(None) => {
            // SAFETY: this is a fresh fork that never returns to the loop; `control` is not used again.
            unsafe { libc::close(std::os::fd::AsRawFd::as_raw_fd(control)) };
            process_one(&spec, filter.as_deref(), request)
        }
        Ok(Some((pid, pidfd))) => {
            sandbox::send_report(status, &Report::Born { pid }, Some(pidfd.as_fd()));
        }
        Err(source) => {
            let error = Error::Sandbox {
                step: "make the container's namespaces (clone)".to_owned(),
                hint: namespace_hint(&source).to_owned(),
                source,
            };
            sandbox::send_report(status, &Report::from_error(&error), None);
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

fn read_spec(file: &OwnedFd) -> Result<Spec> {
    let failed = step("read the runtime-spec");
    let mut text = Vec::new();
    let file = file.try_clone().map_err(&failed)?;
    std::fs::File::from(file)
        .read_to_end(&mut text)
        .map_err(&failed)?;
    Spec::parse(&text)
}

// ---- process 1 of a container -----------------------------------------------------------------

/// Sets the container up, runs its program, reaps everything, and ends with the program: upon which
/// the kernel kills whatever is left in the container.
fn process_one(spec: &Spec, filter: Option<&[Instruction]>, request: Request) -> ! {
    let Request { output, status, .. } = request;
    if live_with_builder(status.as_fd()).is_err() {
        kernel::exit_now(1);
    }
    let started = set_up(spec).and_then(|made| {
        let program = start_program(spec, filter, &output)?;
        Ok((made, program))
    });
    drop(output); // readers of the output see its end when the last program closes it
    match started {
        Ok((made, program)) => {
            let root = spec.root.path.0.clone();
            sandbox::send_report(status.as_fd(), &Report::Started { root, made }, None);
            let code = reap_until(program);
            sandbox::send_report(status.as_fd(), &Report::Exited { code }, None);
        }
        Err(error) => sandbox::send_report(status.as_fd(), &Report::from_error(&error), None),
    }
    kernel::exit_now(0)
}

fn live_with_builder(status: BorrowedFd) -> std::io::Result<()> {
    kernel::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, 0)?;
    // Whoever ended before that call sent no signal: but then the builder's end is closed.
    let mut fds = [PollFd::new(&status, PollFlags::empty())];
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
    let pid = kernel::fork_for_exec(&mut || {
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
