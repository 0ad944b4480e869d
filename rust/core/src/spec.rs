//! The part of the OCI runtime-spec that the sandbox carries out: [`Spec`], parsed and checked.
//!
//! Read by the sandbox process from JSON. What is not understood is refused by name, never ignored:
//! a container that lacks something it was promised is worse than none.
//! Source: runtime-spec v1.1, config.md and config-linux.md.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;

use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, Serialize};

use crate::seccomp::Seccomp;
use crate::{Error, Result};

/// A path, argument or variable: any bytes. In JSON, a byte that is not UTF-8 is a lone surrogate
/// U+DC80 to U+DCFF, as Python's `surrogateescape` writes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    /// As a path.
    pub fn path(&self) -> &Path {
        use std::os::unix::ffi::OsStrExt;
        Path::new(std::ffi::OsStr::from_bytes(&self.0))
    }

    /// For messages.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Take;
        impl Visitor<'_> for Take {
            type Value = Bytes;
            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("a string")
            }
            fn visit_str<E>(self, text: &str) -> Result<Bytes, E> {
                Ok(Bytes(text.as_bytes().to_vec()))
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(unescape_surrogates(bytes)))
            }
        }
        deserializer.deserialize_bytes(Take)
    }
}

/// U+DC80 to U+DCFF, which arrive as `ED B2 80` to `ED B3 BF`, become the bytes that they stand for.
fn unescape_surrogates(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, tail @ ..] = rest {
        if let [0xed, high @ (0xb2 | 0xb3), low @ 0x80..=0xbf, after @ ..] = rest {
            out.push(((high & 1) << 6) | (low & 0x3f) | 0x80);
            rest = after;
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    out
}

/// One container.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// Version of the specification; not looked at.
    #[serde(default)]
    pub oci_version: String,
    /// The root file system.
    pub root: Root,
    /// Mounts, in order.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// What runs.
    pub process: Process,
    /// Host name in the container.
    #[serde(default)]
    pub hostname: Option<String>,
    /// What Linux adds.
    pub linux: Linux,
    /// For people; not looked at.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// The root file system.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Root {
    /// Absolute path outside, mounted already.
    pub path: Bytes,
    /// True where the container may not write to it.
    #[serde(default)]
    pub readonly: bool,
}

/// One mount.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mount {
    /// Absolute path inside.
    pub destination: Bytes,
    /// File system, or `bind`.
    #[serde(default, rename = "type")]
    pub kind: String,
    /// What is bound: a path outside.
    #[serde(default)]
    pub source: Bytes,
    /// As fstab(5) has them.
    #[serde(default)]
    pub options: Vec<String>,
}

/// What runs.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Process {
    /// Must be false: output goes to a descriptor.
    #[serde(default)]
    pub terminal: bool,
    /// Who it runs as.
    #[serde(default)]
    pub user: User,
    /// Program and arguments.
    pub args: Vec<Bytes>,
    /// `NAME=value`; nothing else is in the environment.
    #[serde(default)]
    pub env: Vec<Bytes>,
    /// Working directory, which must exist.
    pub cwd: Bytes,
    /// Privileges; none where it is absent.
    #[serde(default)]
    pub capabilities: Capabilities,
    /// Resource limits.
    #[serde(default)]
    pub rlimits: Vec<Rlimit>,
    /// True where no program may raise its privileges.
    #[serde(default)]
    pub no_new_privileges: bool,
}

/// Who a process runs as.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct User {
    /// User.
    #[serde(default)]
    pub uid: u32,
    /// Group.
    #[serde(default)]
    pub gid: u32,
    /// Permission bits taken away from new files; 022 where it is absent.
    #[serde(default)]
    pub umask: Option<u32>,
    /// Supplementary groups.
    #[serde(default)]
    pub additional_gids: Vec<u32>,
}

/// Capability sets, by name. Source: capabilities(7).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Capabilities {
    /// The most that any program may get.
    #[serde(default)]
    pub bounding: Vec<String>,
    /// In force at the start.
    #[serde(default)]
    pub effective: Vec<String>,
    /// Kept over exec by files that say so.
    #[serde(default)]
    pub inheritable: Vec<String>,
    /// May be put in force.
    #[serde(default)]
    pub permitted: Vec<String>,
    /// Kept over exec by any file.
    #[serde(default)]
    pub ambient: Vec<String>,
}

/// One resource limit.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rlimit {
    /// `RLIMIT_*`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The limit in force.
    pub soft: u64,
    /// How far it may be raised.
    pub hard: u64,
}

/// What Linux adds.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Linux {
    /// Namespaces that are the container's own.
    pub namespaces: Vec<Namespace>,
    /// Paths that read as empty.
    #[serde(default)]
    pub masked_paths: Vec<Bytes>,
    /// Paths that cannot be written.
    #[serde(default)]
    pub readonly_paths: Vec<Bytes>,
    /// System-call filter.
    #[serde(default)]
    pub seccomp: Option<Seccomp>,
}

/// One namespace of the container.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Namespace {
    /// Which.
    #[serde(rename = "type")]
    pub kind: NamespaceKind,
}

/// Namespaces that can be the container's own. The user namespace is the builder's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceKind {
    /// Processes.
    Pid,
    /// Interfaces, ports, abstract sockets.
    Network,
    /// Mounts.
    Mount,
    /// Shared memory and message queues.
    Ipc,
    /// Host name.
    Uts,
    /// Control groups.
    Cgroup,
}

impl NamespaceKind {
    fn flag(self) -> libc::c_int {
        match self {
            NamespaceKind::Pid => libc::CLONE_NEWPID,
            NamespaceKind::Network => libc::CLONE_NEWNET,
            NamespaceKind::Mount => libc::CLONE_NEWNS,
            NamespaceKind::Ipc => libc::CLONE_NEWIPC,
            NamespaceKind::Uts => libc::CLONE_NEWUTS,
            NamespaceKind::Cgroup => libc::CLONE_NEWCGROUP,
        }
    }
}

/// File systems that can be mounted, besides bind mounts.
pub const FILESYSTEMS: [&str; 5] = ["proc", "sysfs", "tmpfs", "devpts", "mqueue"];

fn unsupported(feature: impl Into<String>, place: &str) -> Error {
    Error::Unsupported {
        feature: feature.into(),
        place: place.to_owned(),
    }
}

impl Spec {
    /// Parses and checks a specification.
    ///
    /// Fails with `Unsupported` for what is known JSON but not known here.
    pub fn parse(json: &[u8]) -> Result<Spec> {
        let spec: Spec = serde_json::from_slice(json).map_err(|error| {
            if error.is_data() {
                return unsupported(error.to_string(), "the runtime-spec");
            }
            Error::Sandbox {
                step: format!("read the runtime-spec ({error})"),
                source: io::Error::from_raw_os_error(libc::EINVAL),
                hint: String::new(),
            }
        })?;
        spec.check()?;
        Ok(spec)
    }

    /// The `CLONE_NEW*` flags of its namespaces.
    pub fn namespace_flags(&self) -> libc::c_int {
        self.linux
            .namespaces
            .iter()
            .fold(0, |flags, namespace| flags | namespace.kind.flag())
    }

    /// True where the container has a namespace of this kind of its own.
    pub fn owns(&self, kind: NamespaceKind) -> bool {
        self.linux
            .namespaces
            .iter()
            .any(|namespace| namespace.kind == kind)
    }

    fn check(&self) -> Result<()> {
        for (kind, name) in [(NamespaceKind::Pid, "pid"), (NamespaceKind::Mount, "mount")] {
            if !self.owns(kind) {
                let feature = format!("a container without a {name} namespace of its own");
                return Err(unsupported(feature, "linux.namespaces"));
            }
        }
        if self.process.terminal {
            return Err(unsupported("a terminal", "process.terminal"));
        }
        if self.process.args.is_empty() {
            return Err(unsupported("a container without a program", "process.args"));
        }
        if self.hostname.is_some() && !self.owns(NamespaceKind::Uts) {
            return Err(unsupported(
                "a host name without a uts namespace",
                "hostname",
            ));
        }
        self.check_strings()?;
        self.mounts.iter().try_for_each(Mount::check)?;
        let sets = &self.process.capabilities;
        for names in [
            &sets.bounding,
            &sets.effective,
            &sets.inheritable,
            &sets.permitted,
            &sets.ambient,
        ] {
            capability_mask(names)?;
        }
        self.process
            .rlimits
            .iter()
            .try_for_each(|limit| limit.number().map(drop))
    }

    fn check_strings(&self) -> Result<()> {
        let linux = self
            .linux
            .masked_paths
            .iter()
            .chain(&self.linux.readonly_paths);
        let inside = linux.chain(self.mounts.iter().map(|mount| &mount.destination));
        let paths = inside.chain([&self.root.path, &self.process.cwd]);
        for path in paths.clone() {
            if !path.0.starts_with(b"/") {
                return Err(unsupported(
                    format!("the relative path {:?}", path.text()),
                    "the runtime-spec",
                ));
            }
        }
        let words = self.process.args.iter().chain(&self.process.env);
        let sources = self.mounts.iter().map(|mount| &mount.source);
        match paths
            .chain(words)
            .chain(sources)
            .find(|word| word.0.contains(&0))
        {
            Some(word) => Err(unsupported(
                format!("a NUL byte in {:?}", word.text()),
                "the runtime-spec",
            )),
            None => Ok(()),
        }
    }
}

impl Mount {
    /// True where it shows something of the host's.
    pub fn is_bind(&self) -> bool {
        self.kind == "bind"
            || self
                .options
                .iter()
                .any(|option| option == "bind" || option == "rbind")
    }

    fn check(&self) -> Result<()> {
        if self.is_bind() {
            if !self.source.0.starts_with(b"/") {
                return Err(unsupported(
                    format!("the relative source {:?}", self.source.text()),
                    "mounts",
                ));
            }
            return Ok(());
        }
        if FILESYSTEMS.contains(&self.kind.as_str()) {
            return Ok(());
        }
        Err(unsupported(
            format!("the mount type {:?}", self.kind),
            "mounts",
        ))
    }
}

impl Rlimit {
    /// The kernel's number. Source: getrlimit(2); the same on x86 and on 64-bit ARM.
    pub fn number(&self) -> Result<u32> {
        const NAMES: [&str; 16] = [
            "CPU",
            "FSIZE",
            "DATA",
            "STACK",
            "CORE",
            "RSS",
            "NPROC",
            "NOFILE",
            "MEMLOCK",
            "AS",
            "LOCKS",
            "SIGPENDING",
            "MSGQUEUE",
            "NICE",
            "RTPRIO",
            "RTTIME",
        ];
        let short = self.kind.strip_prefix("RLIMIT_");
        NAMES
            .iter()
            .position(|name| Some(*name) == short)
            .map(|number| number as u32)
            .ok_or_else(|| unsupported(format!("the limit {:?}", self.kind), "process.rlimits"))
    }
}

/// Capabilities in the order of their numbers. Source: capabilities(7).
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The bit mask of capabilities by name (`CAP_CHOWN`).
pub fn capability_mask(names: &[String]) -> Result<u64> {
    names.iter().try_fold(0, |mask, name| {
        let short = name.strip_prefix("CAP_");
        match CAPABILITIES.iter().position(|known| Some(*known) == short) {
            Some(number) => Ok(mask | (1 << number)),
            None => Err(unsupported(
                format!("the capability {name:?}"),
                "process.capabilities",
            )),
        }
    })
}

#[cfg(test)]
mod tests;
