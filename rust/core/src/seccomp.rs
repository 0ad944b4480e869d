//! The system-call filter: [`Seccomp`], the runtime-spec's own form, compiled to a BPF program.
//!
//! `default_profile` gives the list that container engines agree on; `compile` turns any profile
//! into one program: a test of the architecture, then a binary search over ranges of numbers, so
//! that a call costs about eight instructions. Nothing here installs a filter (`payload` does).
//! Names and numbers stand in `syscalls/*.txt`; a name that an architecture lacks is skipped.
//! Source: runtime-spec v1.1, config-linux.md, "Seccomp".

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// `linux.seccomp` of a runtime-spec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Seccomp {
    /// For a known call that no rule matches.
    pub default_action: Action,
    /// The error number of a default `SCMP_ACT_ERRNO`; EPERM where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_errno_ret: Option<u32>,
    /// Architectures whose calls are let in at all; the machine's own where it is empty.
    #[serde(default)]
    pub architectures: Vec<String>,
    /// The rules; the first one that matches counts.
    #[serde(default)]
    pub syscalls: Vec<Rule>,
}

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// It is carried out.
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
    /// It returns an error number; 0 is a success that did nothing.
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
    /// It is carried out and logged.
    #[serde(rename = "SCMP_ACT_LOG")]
    Log,
    /// The thread gets SIGSYS.
    #[serde(rename = "SCMP_ACT_TRAP")]
    Trap,
    /// The thread dies.
    #[serde(rename = "SCMP_ACT_KILL_THREAD", alias = "SCMP_ACT_KILL")]
    KillThread,
    /// The process dies.
    #[serde(rename = "SCMP_ACT_KILL_PROCESS")]
    KillProcess,
}

/// Calls that share an action and conditions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// Names of calls.
    pub names: Vec<String>,
    /// What happens to them.
    pub action: Action,
    /// The error number of `SCMP_ACT_ERRNO`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno_ret: Option<u32>,
    /// All of these must hold for the rule to match.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<Condition>,
}

/// A test of one argument, 64 bits wide and unsigned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Condition {
    /// Which argument, 0 to 5.
    pub index: u32,
    /// What it is compared with; the mask where `op` is `SCMP_CMP_MASKED_EQ`.
    pub value: u64,
    /// What the masked argument must be.
    #[serde(default)]
    pub value_two: u64,
    /// The comparison.
    pub op: Compare,
}

/// A comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compare {
    /// Not equal.
    #[serde(rename = "SCMP_CMP_NE")]
    NotEqual,
    /// Less.
    #[serde(rename = "SCMP_CMP_LT")]
    Less,
    /// Less or equal.
    #[serde(rename = "SCMP_CMP_LE")]
    LessOrEqual,
    /// Equal.
    #[serde(rename = "SCMP_CMP_EQ")]
    Equal,
    /// Greater or equal.
    #[serde(rename = "SCMP_CMP_GE")]
    GreaterOrEqual,
    /// Greater.
    #[serde(rename = "SCMP_CMP_GT")]
    Greater,
    /// `argument & value == value_two`.
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEqual,
}

impl Seccomp {
    /// True where a call always reports success without being carried out.
    pub fn fakes(&self, name: &str) -> bool {
        self.syscalls.iter().any(|rule| {
            rule.action == Action::Errno
                && rule.errno_ret == Some(0)
                && rule.args.is_empty()
                && rule.names.iter().any(|known| known == name)
        })
    }
}

// ---- the default profile ----------------------------------------------------------------------

/// Calls that need no condition: those that an unprivileged program of any distribution makes, with
/// what the default capabilities open up (`chroot`). Left out are the ones that reach past the
/// container: mounts and namespaces, modules, keys, tracing by other users, `io_uring`, clocks, bpf.
const ALLOWED: &str = "\
    accept accept4 access adjtimex alarm arch_prctl bind brk cachestat capget chdir chmod chroot \
    clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 \
    clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 \
    dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait \
    epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 \
    fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fcntl fcntl64 fdatasync \
    fgetxattr file_getattr file_setattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64 \
    fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 \
    futex_wait futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu getcwd \
    getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 \
    getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid \
    getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname getsockopt gettid \
    gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 \
    inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup \
    io_submit ioctl ioprio_get ioprio_set ipc kill landlock_add_rule landlock_create_ruleset \
    landlock_restrict_self lgetxattr link linkat listen listmount listxattr listxattrat llistxattr \
    _llseek lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack membarrier \
    memfd_create memfd_secret mincore mkdir mkdirat mlock mlock2 mlockall mmap mmap2 modify_ldt \
    mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend \
    mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall \
    munmap name_to_handle_at nanosleep newfstatat _newselect open openat openat2 pause pidfd_open \
    pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl \
    pread64 preadv preadv2 prlimit64 process_mrelease process_vm_readv process_vm_writev pselect6 \
    pselect6_time64 ptrace pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recv \
    recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename \
    renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask \
    rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 \
    rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr \
    sched_getparam sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 \
    sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select \
    semctl semget semop semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg \
    sendto set_robust_list set_thread_area set_tid_address setitimer setpgid setpriority setrlimit \
    setsid setsockopt setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaction sigaltstack \
    signal signalfd signalfd4 sigpending sigprocmask sigreturn sigsuspend socketcall socketpair \
    splice stat stat64 statfs statfs64 statmount statx symlink symlinkat sync sync_file_range \
    syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime \
    timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 \
    timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink \
    unlinkat utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write \
    writev";

/// Calls that change owners and identities: carried out with a range of ids, faked with one id.
const OWNERS: &str = "\
    capset chown chown32 fchown fchown32 fchownat lchown lchown32 setfsgid setfsgid32 setfsuid \
    setfsuid32 setgid setgid32 setgroups setgroups32 setregid setregid32 setresgid setresgid32 \
    setresuid setresuid32 setreuid setreuid32 setuid setuid32";

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
const AF_VSOCK: u64 = 40;
/// `CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET`.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;
const FILE_TYPE: u64 = 0o170_000;

fn words(names: &str) -> Vec<String> {
    names.split_whitespace().map(str::to_owned).collect()
}

fn rule(names: &str, action: Action, errno: Option<u32>, args: Vec<Condition>) -> Rule {
    Rule {
        names: words(names),
        action,
        errno_ret: errno,
        args,
    }
}

fn test(index: u32, op: Compare, value: u64, value_two: u64) -> Condition {
    Condition {
        index,
        value,
        value_two,
        op,
    }
}

/// `default_profile` as runtime-spec JSON.
pub fn default_json(emulate_owners: bool) -> String {
    // Strings and numbers only: there is nothing in it that JSON cannot say.
    serde_json::to_string(&default_profile(emulate_owners)).unwrap_or_default()
}

/// The default list of container engines for the default capabilities.
///
/// With `emulate_owners`, what changes an owner or an identity, or makes a device, reports success
/// and does nothing: with one id only, packages that would fail install cleanly.
pub fn default_profile(emulate_owners: bool) -> Seccomp {
    let mut syscalls = vec![rule(ALLOWED, Action::Allow, None, vec![])];
    if emulate_owners {
        syscalls.push(rule(OWNERS, Action::Errno, Some(0), vec![]));
        for (name, index) in [("mknod", 1), ("mknodat", 2)] {
            for kind in [0o020_000, 0o060_000] {
                let is_device = test(index, Compare::MaskedEqual, FILE_TYPE, kind);
                syscalls.push(rule(name, Action::Errno, Some(0), vec![is_device]));
            }
        }
    } else {
        syscalls.push(rule(OWNERS, Action::Allow, None, vec![]));
    }
    syscalls.push(rule("mknod mknodat", Action::Allow, None, vec![]));
    // The execution domains that change nothing but names: Linux, BSD's, and UNAME26 with them.
    for domain in [0, 0x8, 0x20000, 0x20008, 0xffff_ffff] {
        let same = test(0, Compare::Equal, domain, 0);
        syscalls.push(rule("personality", Action::Allow, None, vec![same]));
    }
    let not_vsock = test(0, Compare::NotEqual, AF_VSOCK, 0);
    syscalls.push(rule("socket", Action::Allow, None, vec![not_vsock]));
    let no_namespaces = test(0, Compare::MaskedEqual, CLONE_NAMESPACES, 0);
    syscalls.push(rule("clone", Action::Allow, None, vec![no_namespaces]));
    // Its flags lie in memory, where no filter can see them; libraries fall back to clone.
    syscalls.push(rule("clone3", Action::Errno, Some(ENOSYS), vec![]));
    Seccomp {
        default_action: Action::Errno,
        default_errno_ret: Some(EPERM),
        architectures: MACHINE.iter().map(|arch| arch.name.to_owned()).collect(),
        syscalls,
    }
}

// ---- architectures ----------------------------------------------------------------------------

/// One system-call table.
struct Arch {
    /// Its name in a runtime-spec.
    name: &'static str,
    /// `AUDIT_ARCH_*` as the kernel reports it.
    audit: u32,
    /// Lines of `name number`.
    table: &'static str,
}

/// The tables that this machine's kernel may serve, its own first.
#[cfg(target_arch = "x86_64")]
const MACHINE: &[Arch] = &[
    Arch {
        name: "SCMP_ARCH_X86_64",
        audit: 0xc000_003e,
        table: include_str!("syscalls/x86_64.txt"),
    },
    Arch {
        name: "SCMP_ARCH_X86",
        audit: 0x4000_0003,
        table: include_str!("syscalls/x86.txt"),
    },
];
/// The tables that this machine's kernel may serve, its own first.
#[cfg(target_arch = "aarch64")]
const MACHINE: &[Arch] = &[Arch {
    name: "SCMP_ARCH_AARCH64",
    audit: 0xc000_00b7,
    table: include_str!("syscalls/aarch64.txt"),
}];

impl Arch {
    fn numbers(&self) -> impl Iterator<Item = (&'static str, u32)> {
        self.table.lines().filter_map(|line| {
            let (name, number) = line.split_once(' ')?;
            Some((name, number.parse().ok()?))
        })
    }
}

// ---- compiler ---------------------------------------------------------------------------------

/// One BPF instruction, laid out as the kernel's `sock_filter`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions skipped where a test holds.
    pub jt: u8,
    /// Instructions skipped where it does not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const IF_EQ: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const IF_GT: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
const IF_GE: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

const AT_NUMBER: u32 = 0; // offsets into struct seccomp_data
const AT_ARCH: u32 = 4;
const AT_ARGS: u32 = 16;

/// The longest program that the kernel takes (`BPF_MAXINSNS`).
const LONGEST: usize = 4096;

fn op(code: u16, k: u32) -> Instruction {
    Instruction {
        code,
        jt: 0,
        jf: 0,
        k,
    }
}

/// The kernel's return value for an action.
fn returned(action: Action, errno: Option<u32>) -> u32 {
    match action {
        Action::Allow => 0x7fff_0000,
        Action::Log => 0x7ffc_0000,
        Action::Errno => 0x0005_0000 | (errno.unwrap_or(EPERM) & 0xffff),
        Action::Trap => 0x0003_0000,
        Action::KillThread => 0,
        Action::KillProcess => 0x8000_0000,
    }
}

/// Compiles a profile for this machine.
///
/// Calls of an architecture that the profile does not list (and of x32), and calls newer than the
/// tables here, get ENOSYS, which programs answer with an older call.
pub fn compile(profile: &Seccomp) -> Result<Vec<Instruction>> {
    let refused = |feature: String| Error::Unsupported {
        feature,
        place: "linux.seccomp".to_owned(),
    };
    let mut conditions = profile.syscalls.iter().flat_map(|rule| &rule.args);
    if conditions.any(|condition| condition.index > 5)
        || profile.syscalls.iter().any(|rule| rule.args.len() > 6)
    {
        return Err(refused(
            "a system call of more than six arguments".to_owned(),
        ));
    }
    let mut program = vec![op(LOAD, AT_ARCH)];
    for (position, arch) in MACHINE.iter().enumerate() {
        let listed = profile.architectures.iter().any(|name| name == arch.name);
        if listed || (position == 0 && profile.architectures.is_empty()) {
            let section = arch_section(profile, arch);
            program.push(Instruction {
                jt: 1,
                ..op(IF_EQ, arch.audit)
            });
            program.push(op(JUMP, section.len() as u32));
            program.extend(section);
        }
    }
    program.push(op(RETURN, returned(Action::Errno, Some(ENOSYS))));
    if program.len() > LONGEST {
        return Err(refused(format!(
            "a filter of {} instructions",
            program.len()
        )));
    }
    Ok(program)
}

/// What one number, or a range of them that begins there, leads to.
#[derive(PartialEq, Clone)]
enum Outcome<'a> {
    Return(u32),
    Rules(Vec<&'a Rule>),
}

fn arch_section(profile: &Seccomp, arch: &Arch) -> Vec<Instruction> {
    let default = returned(profile.default_action, profile.default_errno_ret);
    let ranges = ranges(profile, arch, default);
    let mut section = vec![op(LOAD, AT_NUMBER)];
    section.extend(search(&ranges, default));
    section
}

/// Lays the numbers out as ranges with one outcome each, the last one open-ended.
fn ranges<'a>(profile: &'a Seccomp, arch: &Arch, default: u32) -> Vec<(u32, Outcome<'a>)> {
    let mut by_name: std::collections::HashMap<&str, Vec<&Rule>> = std::collections::HashMap::new();
    for rule in &profile.syscalls {
        for name in &rule.names {
            by_name.entry(name).or_default().push(rule);
        }
    }
    let mut known: Vec<(u32, Outcome)> = arch
        .numbers()
        .map(|(name, number)| (number, outcome(by_name.remove(name), default)))
        .collect();
    known.sort_by_key(|(number, _)| *number);
    let mut ranges: Vec<(u32, Outcome)> = vec![(0, Outcome::Return(default))];
    let mut add = |start: u32, outcome: Outcome<'a>| {
        if ranges.last().is_some_and(|(last, _)| *last == start) {
            ranges.pop();
        }
        if ranges.last().is_none_or(|(_, last)| *last != outcome) {
            ranges.push((start, outcome));
        }
    };
    let mut next = 0;
    for (number, outcome) in known {
        if number > next {
            add(next, Outcome::Return(default));
        }
        add(number, outcome);
        next = number + 1;
    }
    add(next, Outcome::Return(returned(Action::Errno, Some(ENOSYS))));
    ranges
}

fn outcome(rules: Option<Vec<&Rule>>, default: u32) -> Outcome<'_> {
    match rules {
        None => Outcome::Return(default),
        Some(rules) => match rules.first() {
            Some(first) if first.args.is_empty() => {
                Outcome::Return(returned(first.action, first.errno_ret))
            }
            _ => Outcome::Rules(rules),
        },
    }
}

/// A binary search; falls through nowhere, every path returns.
fn search(ranges: &[(u32, Outcome)], default: u32) -> Vec<Instruction> {
    match ranges {
        [] => vec![op(RETURN, default)],
        [(_, Outcome::Return(value))] => vec![op(RETURN, *value)],
        [(_, Outcome::Rules(rules))] => rules_code(rules, default),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let low = search(low, default);
            let mut code = vec![Instruction {
                jf: 1,
                ..op(IF_GE, high[0].0)
            }];
            // A conditional jump reaches 255 instructions, this one any distance.
            code.push(op(JUMP, low.len() as u32));
            code.extend(low);
            code.extend(search(high, default));
            code
        }
    }
}

fn rules_code(rules: &[&Rule], default: u32) -> Vec<Instruction> {
    let mut code = Vec::new();
    for rule in rules {
        let mut tests: Vec<Step> = Vec::new();
        for condition in &rule.args {
            tests.extend(condition_steps(condition));
        }
        let end = tests.len() + 1; // the rule's return stands between the tests and the next rule
        code.extend(resolve(&tests, end));
        code.push(op(RETURN, returned(rule.action, rule.errno_ret)));
        if rule.args.is_empty() {
            return code;
        }
    }
    code.push(op(RETURN, default));
    code
}

/// Where a test leads.
#[derive(Clone, Copy)]
enum Lead {
    /// The next instruction.
    On,
    /// Past the rest of this condition: it holds.
    Holds,
    /// Past the whole rule.
    Fails,
}

/// An instruction whose jumps are not numbers yet; `left` counts what remains of its condition.
struct Step {
    code: u16,
    k: u32,
    yes: Lead,
    no: Lead,
    left: usize,
}

fn resolve(tests: &[Step], end: usize) -> Vec<Instruction> {
    let distance = |at: usize, lead: Lead, left: usize| match lead {
        Lead::On => 0,
        Lead::Holds => left as u8,
        Lead::Fails => (end - at - 1) as u8, // six conditions of six steps stay far below 255
    };
    tests
        .iter()
        .enumerate()
        .map(|(at, step)| Instruction {
            code: step.code,
            jt: distance(at, step.yes, step.left),
            jf: distance(at, step.no, step.left),
            k: step.k,
        })
        .collect()
}

/// BPF is 32 bits wide: the upper half is compared first, then the lower one.
fn condition_steps(condition: &Condition) -> Vec<Step> {
    use Lead::{Fails, Holds, On};
    let at = AT_ARGS + 8 * condition.index;
    let (low_at, high_at) = (at, at + 4); // both architectures are little-endian
    let halves = |value: u64| ((value >> 32) as u32, value as u32);
    let (high, low) = halves(condition.value);
    let mut steps: Vec<(u16, u32, Lead, Lead)> = vec![(LOAD, high_at, On, On)];
    let ordered = |steps: &mut Vec<_>, last: u16, holds: Lead, fails: Lead| {
        steps.extend([
            (IF_GT, high, holds, On),
            (IF_EQ, high, On, fails),
            (LOAD, low_at, On, On),
            (last, low, holds, fails),
        ]);
    };
    match condition.op {
        Compare::Equal => steps.extend([
            (IF_EQ, high, On, Fails),
            (LOAD, low_at, On, On),
            (IF_EQ, low, On, Fails),
        ]),
        Compare::NotEqual => steps.extend([
            (IF_EQ, high, On, Holds),
            (LOAD, low_at, On, On),
            (IF_EQ, low, Fails, On),
        ]),
        Compare::MaskedEqual => {
            let (want_high, want_low) = halves(condition.value_two);
            steps.extend([
                (AND, high, On, On),
                (IF_EQ, want_high, On, Fails),
                (LOAD, low_at, On, On),
                (AND, low, On, On),
                (IF_EQ, want_low, On, Fails),
            ]);
        }
        Compare::Greater => ordered(&mut steps, IF_GT, Holds, Fails),
        Compare::GreaterOrEqual => ordered(&mut steps, IF_GE, Holds, Fails),
        Compare::LessOrEqual => ordered(&mut steps, IF_GT, Fails, Holds),
        Compare::Less => ordered(&mut steps, IF_GE, Fails, Holds),
    }
    let count = steps.len();
    steps
        .into_iter()
        .enumerate()
        .map(|(position, (code, k, yes, no))| Step {
            code,
            k,
            yes,
            no,
            left: count - position - 1,
        })
        .collect()
}

#[cfg(test)]
mod tests;
