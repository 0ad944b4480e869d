//! Entering the namespaces that make this process root over its own ids: [`enter`] and [`Namespace`].
//!
//! Called once by the door, before the process has a second thread (DESIGN D1). It tries real
//! privilege, then a range of ids through `newuidmap`, then one id; a refusal names the knob that
//! refused. At the end it forks the sandbox process (`monitor`), which must be single-threaded too.
//! Source: `user_namespaces(7)`, "User and group ID mappings"; subuid(5).

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::{env, fs, process};

use rustix::mount::{mount_change, MountPropagationFlags};
use rustix::process::{getegid, geteuid};

use crate::kernel::{self, Fork};
use crate::{monitor, Error, Result};

/// How much of the id space this process rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Real privilege: every id.
    Root,
    /// A range of ids.
    Mapped,
    /// One id only: owners cannot be told apart.
    Single,
}

impl Kind {
    /// The word that the door uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Root => "root",
            Kind::Mapped => "mapped",
            Kind::Single => "single",
        }
    }
}

/// First id inside, first id outside, count.
pub type Extent = (u32, u32, u32);

/// What this process runs as once `enter` returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// How much of the id space it rules.
    pub kind: Kind,
    /// Users.
    pub uid_map: Vec<Extent>,
    /// Groups.
    pub gid_map: Vec<Extent>,
    /// Why not `Mapped`, as a sentence with what to do; empty where it is, or is `Root`.
    pub reason: String,
}

static ENTERED: OnceLock<Namespace> = OnceLock::new();

const CAP_SYS_ADMIN: u32 = 21;
/// A process cannot have more extents than this in one map. Source: `user_namespaces(7)`.
const MOST_EXTENTS: usize = 340;

/// Makes this process root over its own ids, with mounts of its own, and starts the sandbox
/// process. Calling it again gives the same value. `single` asks for one id, whatever is at hand.
///
/// Supplementary groups stay: the user may need one to read the build context. Containers drop them.
pub fn enter(single: bool) -> Result<Namespace> {
    if let Some(namespace) = ENTERED.get() {
        return Ok(namespace.clone());
    }
    refuse_threads()?;
    let namespace = if !single && enter_as_root()? {
        describe(String::new())?
    } else {
        let reason = enter_as_user(single)?;
        describe(reason)?
    };
    // A process that cannot be dumped has its /proc files owned by the real root: unreadable to us.
    kernel::prctl(libc::PR_SET_DUMPABLE, 1, 0)
        .map_err(|e| refused("make /proc/self readable", e))?;
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .map_err(|e| refused("make the mounts private", e.into()))?;
    monitor::start()?;
    Ok(ENTERED.get_or_init(|| namespace).clone())
}

/// What `enter` gave, if it was called.
pub fn entered() -> Option<&'static Namespace> {
    ENTERED.get()
}

/// Namespaces belong to threads: the others would stay outside.
pub(crate) fn refuse_threads() -> Result<()> {
    let threads = fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads > 1 {
        return Err(Error::Sandbox {
            step: format!("enter a namespace with {threads} threads"),
            source: io::Error::from_raw_os_error(libc::EINVAL),
            hint: "call it before the process starts a second thread".to_owned(),
        });
    }
    Ok(())
}

/// Real privilege needs a mount namespace alone. False where there is none, or it does not suffice.
fn enter_as_root() -> Result<bool> {
    let capable = kernel::cap_get().is_ok_and(|caps| caps.effective & (1 << CAP_SYS_ADMIN) != 0);
    if !geteuid().is_root() || !capable {
        return Ok(false);
    }
    match unshare(libc::CLONE_NEWNS) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(false),
        Err(error) => Err(refused("make a mount namespace", error)),
    }
}

fn unshare(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: takes flags only; the process has one thread, so no thread is left behind.
    match unsafe { libc::unshare(flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

// ---- an ordinary user -------------------------------------------------------------------------

/// What a helper, which stays outside, does to the namespace once it exists.
enum Task {
    /// Runs `newuidmap` or `newgidmap`.
    Run(PathBuf, Vec<String>),
    /// Writes a map itself, as root without `CAP_SYS_ADMIN` may.
    Write(PathBuf, String),
}

/// A forked process that waits for a byte, does its task and says on `complaints` what went wrong.
struct Helper {
    pid: libc::pid_t,
    go: OwnedFd,
    complaints: OwnedFd,
}

/// Enters a user namespace; gives the reason for having one id only, or nothing.
fn enter_as_user(single: bool) -> Result<String> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let planned = if single {
        Err("one id was asked for".to_owned())
    } else {
        plan(uid, gid)
    };
    // Forked first: what is inside the namespace already cannot write a map of outside ids.
    let (helpers, mut reason) = match planned {
        Ok(tasks) => (helpers(tasks)?, String::new()),
        Err(reason) => (Vec::new(), reason),
    };
    unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS)
        .map_err(|error| refused("make a user namespace", error))?;
    // Both at once: each is a program of its own that takes a few milliseconds to start.
    helpers.iter().for_each(Helper::release);
    for helper in helpers {
        if let Err(complaint) = helper.end() {
            reason = complaint;
        }
    }
    if !reason.is_empty() {
        map_one_id(uid, gid).map_err(|error| refused("map the user's own id", error))?;
    }
    kernel::set_gid(0).map_err(|error| refused("become group 0", error))?;
    kernel::set_uid(0).map_err(|error| refused("become user 0", error))?;
    Ok(reason)
}

/// The two tasks that map a range, or the sentence that says what is missing.
fn plan(uid: u32, gid: u32) -> Result<[Task; 2], String> {
    let pid = process::id();
    if uid == 0 {
        return plan_as_root(pid);
    }
    let name = kernel::user_name(uid);
    let uids = ranges_of("/etc/subuid", name.as_deref(), uid)?;
    let gids = ranges_of("/etc/subgid", name.as_deref(), uid)?;
    let task = |program: &str, own: u32, ranges: &[(u32, u32)]| {
        let path = find_program(program).ok_or_else(|| {
            format!("{program} is not installed; install the package uidmap (or shadow-utils)")
        })?;
        Ok::<Task, String>(Task::Run(path, map_words(pid, own, ranges)))
    };
    Ok([
        task("newuidmap", uid, &uids)?,
        task("newgidmap", gid, &gids)?,
    ])
}

/// User 0 of a container that may not mount: its ids are all mapped already, and are carried over.
fn plan_as_root(pid: u32) -> Result<[Task; 2], String> {
    let task = |kind: &str| {
        let map = read_map(&format!("/proc/self/{kind}")).map_err(|error| error.to_string())?;
        if map.iter().map(|extent| u64::from(extent.2)).sum::<u64>() < 2 {
            return Err(format!(
                "this container has one id only (/proc/self/{kind})"
            ));
        }
        let mut text = String::new();
        for (inside, _, count) in map {
            let _ = writeln!(text, "{inside} {inside} {count}");
        }
        Ok(Task::Write(format!("/proc/{pid}/{kind}").into(), text))
    };
    Ok([task("uid_map")?, task("gid_map")?])
}

/// The user's ranges in `file`, or the sentence that says how to get one.
fn ranges_of(file: &str, name: Option<&str>, uid: u32) -> Result<Vec<(u32, u32)>, String> {
    let who = name.map_or_else(|| uid.to_string(), str::to_owned);
    let mut text = String::new();
    if let Ok(file) = fs::File::open(file) {
        let _ = file.take(4 << 20).read_to_string(&mut text);
    }
    let ranges = parse_ranges(&text, name, uid);
    if ranges.is_empty() {
        return Err(format!(
            "no range for {who} in {file}; as root: usermod --add-subuids 100000-165535 \
             --add-subgids 100000-165535 {who}"
        ));
    }
    Ok(ranges)
}

/// Ranges (first id, count) of a subuid file for a user by name or by number, overlaps left out.
fn parse_ranges(text: &str, name: Option<&str>, uid: u32) -> Vec<(u32, u32)> {
    let number = uid.to_string();
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for line in text.lines() {
        let mut fields = line.trim().split(':');
        let (Some(owner), Some(first), Some(count)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let (Ok(first), Ok(count)) = (first.parse::<u32>(), count.parse::<u32>()) else {
            continue;
        };
        let Some(end) = first.checked_add(count) else {
            continue;
        };
        let owned = Some(owner) == name || owner == number;
        let apart = |&(other, length): &(u32, u32)| end <= other || first >= other + length;
        let holds_self = first <= uid && uid < end;
        if owned
            && count > 0
            && !holds_self
            && ranges.iter().all(apart)
            && ranges.len() < MOST_EXTENTS - 1
        {
            ranges.push((first, count));
        }
    }
    ranges
}

/// `<pid> 0 <own id> 1`, then every range, one after another from inside id 1 up.
fn map_words(pid: u32, own: u32, ranges: &[(u32, u32)]) -> Vec<String> {
    let mut words = vec![pid.to_string(), "0".into(), own.to_string(), "1".into()];
    let mut inside = 1u32;
    for &(first, count) in ranges {
        let count = count.min(u32::MAX - 1 - inside);
        if count == 0 {
            break;
        }
        words.extend([inside.to_string(), first.to_string(), count.to_string()]);
        inside += count;
    }
    words
}

/// An executable on PATH or where distributions put set-user-id programs.
fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .filter(|folder| folder.is_absolute())
        .chain(["/usr/bin", "/usr/sbin", "/bin", "/sbin", "/usr/local/bin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|path| {
            fs::metadata(path)
                .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        })
}

fn helpers(tasks: [Task; 2]) -> Result<Vec<Helper>> {
    tasks
        .into_iter()
        .map(|task| Helper::start(&task).map_err(|error| refused("start a helper process", error)))
        .collect()
}

impl Helper {
    fn start(task: &Task) -> io::Result<Helper> {
        let (wait, go) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let (complaints, voice) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        match kernel::fork()? {
            Fork::Parent(pid) => Ok(Helper {
                pid,
                go,
                complaints,
            }),
            Fork::Child => {
                drop((go, complaints));
                let mut byte = [0];
                let told = fs::File::from(wait).read(&mut byte);
                if matches!(told, Ok(1)) {
                    kernel::exit_now(i32::from(!task.carry_out(voice)));
                }
                kernel::exit_now(1)
            }
        }
    }

    /// Lets the helper go on. One that is gone already says so at its end.
    fn release(&self) {
        let _ = rustix::io::write(&self.go, b"g");
    }

    /// Waits for the helper's end; the error is a full sentence.
    fn end(self) -> Result<(), String> {
        let mut complaint = String::new();
        let _ = fs::File::from(self.complaints)
            .take(4096)
            .read_to_string(&mut complaint);
        match kernel::wait_for(self.pid).map(kernel::exit_code) {
            Ok(0) => Ok(()),
            Ok(code) if complaint.trim().is_empty() => {
                Err(format!("mapping the ids failed with code {code}"))
            }
            Ok(_) => Err(complaint.trim().replace('\n', "; ")),
            Err(error) => Err(format!("waiting for the id mapping: {error}")),
        }
    }
}

impl Task {
    /// Runs in the helper. True where it worked; `Run` returns only if it did not.
    fn carry_out(&self, voice: OwnedFd) -> bool {
        let mut voice_again = voice.try_clone().ok().map(fs::File::from);
        let (what, error) = match self {
            Task::Run(program, words) => {
                let mut command = Command::new(program);
                command
                    .args(words)
                    .stdin(Stdio::null())
                    .stdout(Stdio::null());
                (program, command.stderr(Stdio::from(voice)).exec())
            }
            Task::Write(path, text) => match fs::write(path, text) {
                Ok(()) => return true,
                Err(error) => (path, error),
            },
        };
        if let Some(voice) = &mut voice_again {
            let _ = write!(voice, "{}: {error}", what.display());
        }
        false
    }
}

/// Maps the user's own id to 0, in a further namespace where a helper has written half of a map.
fn map_one_id(uid: u32, gid: u32) -> io::Result<()> {
    let (mut uid, mut gid) = (uid, gid);
    let written = |file: &str| fs::read_to_string(file).is_ok_and(|text| !text.trim().is_empty());
    let (has_uids, has_gids) = (written("/proc/self/uid_map"), written("/proc/self/gid_map"));
    if has_uids || has_gids {
        write_own(
            if has_uids { None } else { Some(uid) },
            if has_gids { None } else { Some(gid) },
        )?;
        unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS)?;
        (uid, gid) = (0, 0);
    }
    write_own(Some(uid), Some(gid))
}

fn write_own(uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    if let Some(gid) = gid {
        // Without this an unprivileged process may not write a group map (user_namespaces(7)).
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    }
    match uid {
        Some(uid) => fs::write("/proc/self/uid_map", format!("0 {uid} 1")),
        None => Ok(()),
    }
}

// ---- what it came to --------------------------------------------------------------------------

/// Reads back what the kernel says, which is what counts.
fn describe(reason: String) -> Result<Namespace> {
    let read = |file: &str| read_map(file).map_err(|error| refused("read the id map", error));
    let (uid_map, gid_map) = (read("/proc/self/uid_map")?, read("/proc/self/gid_map")?);
    let count = |map: &[Extent]| map.iter().map(|extent| u64::from(extent.2)).sum::<u64>();
    let kind = if uid_map == [(0, 0, u32::MAX)] {
        Kind::Root
    } else if count(&uid_map) > 1 && count(&gid_map) > 1 {
        Kind::Mapped
    } else {
        Kind::Single
    };
    let reason = if kind == Kind::Single && reason.is_empty() {
        "the namespace that this process was started in has one id only".to_owned()
    } else {
        reason
    };
    Ok(Namespace {
        kind,
        uid_map,
        gid_map,
        reason,
    })
}

fn read_map(file: &str) -> io::Result<Vec<Extent>> {
    let text = fs::read_to_string(file)?;
    Ok(text
        .lines()
        .filter_map(|line| {
            let mut numbers = line.split_whitespace().map(str::parse::<u32>);
            Some((
                numbers.next()?.ok()?,
                numbers.next()?.ok()?,
                numbers.next()?.ok()?,
            ))
        })
        .collect())
}

/// The error for a refused step, with the knob that most likely refused it.
fn refused(step: &str, source: io::Error) -> Error {
    let knob = |path: &str| {
        fs::read_to_string(Path::new("/proc/sys").join(path)).map(|text| text.trim().to_owned())
    };
    let is = |path: &str, value: &str| knob(path).is_ok_and(|found| found == value);
    let hint = if is("kernel/unprivileged_userns_clone", "0") {
        "user namespaces are switched off; as root: sysctl -w kernel.unprivileged_userns_clone=1"
    } else if is("user/max_user_namespaces", "0") {
        "user namespaces are switched off; as root: sysctl -w user.max_user_namespaces=15000"
    } else if is("kernel/apparmor_restrict_unprivileged_userns", "1") {
        "AppArmor restricts user namespaces; as root: sysctl -w \
         kernel.apparmor_restrict_unprivileged_userns=0, or give this program a profile that has `userns,`"
    } else if fs::read_to_string("/proc/self/status").is_ok_and(|text| text.contains("Seccomp:\t2"))
    {
        "this container's system-call filter forbids namespaces; start it with \
         --security-opt seccomp=unconfined (Kubernetes: seccompProfile type Unconfined)"
    } else if source.raw_os_error() == Some(libc::ENOSPC) {
        "too many namespaces are in use, or nested too deep; as root: sysctl -w user.max_user_namespaces=15000"
    } else {
        "this kernel or container does not let an ordinary user make namespaces"
    };
    Error::Sandbox {
        step: step.to_owned(),
        source,
        hint: hint.to_owned(),
    }
}

#[cfg(test)]
mod tests;
