//! The last steps before the image's own program: identity, privileges, filter, exec.
//!
//! Runs in a child that shares the memory of the container's process 1, which waits meanwhile. The order matters:
//! bounding set while `CAP_SETPCAP` is there, groups before users, the filter last, because it may
//! refuse or fake any of the earlier steps. A program that cannot be executed is no error of the
//! sandbox: the line that a shell would print goes to the output, with exit code 127 or 126.
//! Source: capabilities(7), "Transformation of capabilities during `execve()`"; seccomp(2).

use std::ffi::CString;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use crate::kernel::{self, CapSets};
use crate::seccomp::Instruction;
use crate::spec::{capability_mask, Process, Spec};
use crate::{Error, Result};

const CAP_SYS_ADMIN: u64 = 1 << 21;
/// Where programs are looked for if the image sets no PATH.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn step(name: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Sandbox {
        step: name.into(),
        source,
        hint: String::new(),
    }
}

/// Becomes the container's program. Returns only the error of a step before exec.
pub fn become_program(spec: &Spec, filter: Option<&[Instruction]>) -> Error {
    match prepare(spec, filter) {
        Ok((argv, envp)) => execute(&spec.process, &argv, &envp),
        Err(error) => error,
    }
}

type Strings = Vec<CString>;

fn prepare(spec: &Spec, filter: Option<&[Instruction]>) -> Result<(Strings, Strings)> {
    let process = &spec.process;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(
        process.user.umask.unwrap_or(0o022),
    ));
    enter(process.cwd.path())?;
    for limit in &process.rlimits {
        kernel::set_rlimit(limit.number()?, limit.soft, limit.hard)
            .map_err(step(format!("set {}", limit.kind)))?;
    }
    rustix::process::setsid().map_err(|error| step("start a session")(error.into()))?;
    let fakes_ids = spec
        .linux
        .seccomp
        .as_ref()
        .is_some_and(|profile| profile.fakes("setresuid"));
    drop_bounding(process)?;
    become_user(process, fakes_ids)?;
    set_capabilities(process, filter.is_some())?;
    if process.no_new_privileges {
        kernel::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).map_err(step("set no_new_privs"))?;
    }
    let argv = strings(process.args.iter().map(|arg| arg.0.clone()))?;
    let envp = strings(process.env.iter().map(|entry| entry.0.clone()))?;
    if let Some(program) = filter {
        kernel::install_filter(program).map_err(step("install the system-call filter"))?;
    }
    Ok((argv, envp))
}

/// Enters the working directory, made where the image names one that it does not have.
///
/// This comes before the identity changes: an image may have a folder that its user cannot search.
fn enter(cwd: &Path) -> Result<()> {
    let failed =
        |error: io::Error| step(format!("enter the working directory {}", cwd.display()))(error);
    match rustix::process::chdir(cwd) {
        Err(rustix::io::Errno::NOENT) => {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(cwd)
                .map_err(failed)?;
            rustix::process::chdir(cwd)
        }
        other => other,
    }
    .map_err(|error| failed(error.into()))
}

fn strings(words: impl Iterator<Item = Vec<u8>>) -> Result<Strings> {
    words
        .map(|word| CString::new(word).map_err(|error| step("pass the arguments")(error.into())))
        .collect()
}

fn drop_bounding(process: &Process) -> Result<()> {
    let keep = capability_mask(&process.capabilities.bounding)?;
    for number in 0..64 {
        // EINVAL: past the last capability of this kernel.
        if kernel::prctl(libc::PR_CAPBSET_READ, number, 0).is_err() {
            break;
        }
        if keep & (1 << number) == 0 {
            kernel::prctl(libc::PR_CAPBSET_DROP, number, 0)
                .map_err(step("limit the capabilities"))?;
        }
    }
    Ok(())
}

/// Takes the spec's user, groups first. With one id, and a filter that fakes identity changes
/// for the image's programs, it is faked here too: the process stays user 0.
fn become_user(process: &Process, fakes_ids: bool) -> Result<()> {
    let user = &process.user;
    let no_id = |name: String| {
        move |source: io::Error| {
            Error::Sandbox {
            step: name,
            source,
            hint: "this build has one id only; give the user a range: as root, usermod --add-subuids \
                   100000-165535 --add-subgids 100000-165535 NAME, with the package uidmap installed"
                .to_owned(),
        }
        }
    };
    kernel::prctl(libc::PR_SET_KEEPCAPS, 1, 0).map_err(step("keep the capabilities"))?;
    match kernel::set_groups(&user.additional_gids) {
        // setgroups is denied for good in a namespace with one id: the user's groups remain.
        Err(_) if fakes_ids => {}
        Err(error)
            if user.additional_gids.is_empty() && error.raw_os_error() == Some(libc::EPERM) => {}
        other => other.map_err(no_id(format!("set the groups {:?}", user.additional_gids)))?,
    }
    if !fakes_ids {
        kernel::set_gid(user.gid).map_err(no_id(format!("become group {}", user.gid)))?;
        kernel::set_uid(user.uid).map_err(no_id(format!("become user {}", user.uid)))?;
    }
    kernel::prctl(libc::PR_SET_KEEPCAPS, 0, 0)
        .map_err(step("keep the capabilities"))
        .map(drop)
}

/// Sets what exec starts from. `CAP_SYS_ADMIN` stays for the filter's sake where it must: exec
/// takes it away, since it is in neither the bounding nor the ambient set.
fn set_capabilities(process: &Process, filter: bool) -> Result<()> {
    let wanted = &process.capabilities;
    let have = kernel::cap_get().map_err(step("read the capabilities"))?;
    let mask = |names: &[String]| Ok::<u64, Error>(capability_mask(names)? & have.permitted);
    let for_filter = if filter && !process.no_new_privileges {
        CAP_SYS_ADMIN & have.permitted
    } else {
        0
    };
    let permitted = mask(&wanted.permitted)?;
    let sets = CapSets {
        effective: (mask(&wanted.effective)? & permitted) | for_filter,
        permitted: permitted | for_filter,
        inheritable: mask(&wanted.inheritable)?,
    };
    kernel::cap_set(sets).map_err(step("set the capabilities"))?;
    let ambient = mask(&wanted.ambient)? & permitted & sets.inheritable;
    for number in (0..64).filter(|number| ambient & (1 << number) != 0) {
        kernel::prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong,
            number,
        )
        .map_err(step("raise the ambient capabilities"))?;
    }
    Ok(())
}

/// Executes the program, or says on the output why not, and ends with the code a shell would give.
fn execute(process: &Process, argv: &[CString], envp: &[CString]) -> Error {
    let name = argv[0].as_bytes();
    let mut refused = None;
    for candidate in candidates(name, process) {
        match exec(&candidate, argv, envp).raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => {}
            // A shell goes on looking along the PATH, and says this if nothing better comes.
            Some(libc::EACCES) => refused = Some(libc::EACCES),
            other => {
                refused = other;
                break;
            }
        }
    }
    let (reason, code) = match refused {
        None => ("not found".to_owned(), 127),
        Some(libc::EACCES) => ("Permission denied".to_owned(), 126),
        Some(libc::ENOEXEC) => (
            "Exec format error: not a program of this machine".to_owned(),
            126,
        ),
        Some(libc::E2BIG) => ("Argument list too long".to_owned(), 126),
        Some(number) => (io::Error::from_raw_os_error(number).to_string(), 126),
    };
    let line = format!("{}: {reason}\n", String::from_utf8_lossy(name));
    let _ = rustix::io::write(rustix::stdio::stderr(), line.as_bytes());
    kernel::exit_now(code)
}

/// Where the program may lie: as named if there is a slash in it, else along the spec's own PATH.
fn candidates(name: &[u8], process: &Process) -> Vec<CString> {
    let path = process
        .env
        .iter()
        .rev()
        .find_map(|entry| entry.0.strip_prefix(b"PATH="));
    let join = |folder: &[u8]| match folder {
        b"" => name.to_vec(), // an empty element of PATH is the working directory
        folder => [folder, b"/", name].concat(),
    };
    let paths: Vec<Vec<u8>> = match name {
        b"" => vec![],
        name if name.contains(&b'/') => vec![name.to_vec()],
        _ => path
            .unwrap_or(DEFAULT_PATH)
            .split(|byte| *byte == b':')
            .map(join)
            .collect(),
    };
    paths
        .into_iter()
        .filter_map(|path| CString::new(path).ok())
        .collect()
}

fn exec(program: &CString, argv: &[CString], envp: &[CString]) -> io::Error {
    let pointers = |words: &[CString]| -> Vec<*const libc::c_char> {
        words
            .iter()
            .map(|word| word.as_ptr())
            .chain([std::ptr::null()])
            .collect()
    };
    let (argv, envp) = (pointers(argv), pointers(envp));
    // SAFETY: both arrays end with a null pointer, and what they point to lives through the call.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    io::Error::last_os_error()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn process(env: &str) -> Process {
        serde_json::from_str(&format!(r#"{{"args":["x"],"cwd":"/","env":[{env}]}}"#)).unwrap()
    }

    fn found(name: &str, env: &str) -> Vec<String> {
        let paths = candidates(name.as_bytes(), &process(env));
        paths
            .into_iter()
            .map(|path| path.into_string().unwrap())
            .collect()
    }

    #[test]
    fn programs_are_looked_up_on_the_containers_path() {
        assert_eq!(found("sh", r#""PATH=/a::/b""#), ["/a/sh", "sh", "/b/sh"]);
        assert_eq!(found("./sh", r#""PATH=/a""#), ["./sh"]);
        assert_eq!(found("sh", r#""PATHS=/a""#)[0], "/usr/local/sbin/sh");
        assert!(found("", "").is_empty());
    }
}
