//! Containers for real, without Python: enters a namespace and runs busybox in an overlay.
//!
//! A process enters a namespace once, and before it has threads, which the usual test harness
//! starts: so this file has a `main` of its own, and runs each scenario in a child of itself.

#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::{chown, symlink, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use img_core::idmap::{self, Kind};
use img_core::{mounts, sandbox, seccomp, Error};

const BUSYBOX: &str = "/bin/busybox";
/// A user without a name, and so without a range of ids.
const NOBODY_IN_PARTICULAR: u32 = 65_533;

type Scenario = (&'static str, fn(&Bench));

const SCENARIOS: &[Scenario] = &[
    ("exit codes come through", exit_codes),
    ("the filter refuses mounts", filter_refuses_mounts),
    ("a hostile symlink leads no mount outside", hostile_symlink),
    ("a deleted file becomes a whiteout", whiteout),
    ("three hundred layers mount at once", many_layers),
    ("a foreign user needs a range of ids", foreign_user),
];

fn main() -> ExitCode {
    if let Some(name) = std::env::args()
        .nth(1)
        .filter(|word| word.starts_with("run:"))
    {
        let scenario = SCENARIOS
            .iter()
            .find(|(known, _)| name == format!("run:{known}"));
        scenario.unwrap().1(&Bench::new());
        return ExitCode::SUCCESS;
    }
    if !Path::new(BUSYBOX).exists() {
        println!("skipped: no {BUSYBOX}");
        return ExitCode::SUCCESS;
    }
    let mut failed = 0;
    for (name, _) in SCENARIOS {
        for ordinary in [false, true] {
            let passed = run_in_child(name, ordinary);
            let who = if ordinary { "ordinary user" } else { "caller" };
            println!(
                "test {name} ({who}) ... {}",
                if passed { "ok" } else { "FAILED" }
            );
            failed += i32::from(!passed);
        }
    }
    ExitCode::from(u8::from(failed > 0))
}

/// True where the scenario passed, or where this process cannot become the ordinary user.
fn run_in_child(name: &str, ordinary: bool) -> bool {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.path().join("test");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let home = folder.path().join("home");
    fs::create_dir(&home).unwrap();
    let mut command = Command::new(&program);
    command
        .arg(format!("run:{name}"))
        .env("TMPDIR", &home)
        .current_dir("/");
    if ordinary {
        let id = Some(NOBODY_IN_PARTICULAR);
        if chown(&home, id, id).is_err() {
            return true;
        }
        command.uid(NOBODY_IN_PARTICULAR).gid(NOBODY_IN_PARTICULAR);
    }
    command.status().unwrap().success()
}

/// A namespace that was entered, and a root made of a busybox layer and an upper.
struct Bench {
    folder: PathBuf,
    kind: Kind,
}

impl Bench {
    fn new() -> Bench {
        let entered = idmap::enter(false).unwrap();
        assert_eq!(idmap::enter(true).unwrap(), entered);
        let folder = PathBuf::from(std::env::var_os("TMPDIR").unwrap());
        for name in [
            "lower/bin",
            "lower/tmp",
            "lower/proc",
            "empty",
            "upper",
            "work",
            "root",
        ] {
            fs::create_dir_all(folder.join(name)).unwrap();
        }
        fs::copy(BUSYBOX, folder.join("lower/bin/busybox")).unwrap();
        symlink("busybox", folder.join("lower/bin/sh")).unwrap();
        fs::write(folder.join("lower/tmp/file"), "x").unwrap();
        let bench = Bench {
            folder,
            kind: entered.kind,
        };
        let (upper, work) = (bench.at("upper"), bench.at("work"));
        let lowers = [bench.at("empty"), bench.at("lower")];
        mounts::mount_overlay(&bench.at("root"), &lowers, Some((&upper, &work))).unwrap();
        bench
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn spec(&self, script: &str) -> serde_json::Value {
        let names = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_SETUID", "CAP_SETGID"];
        serde_json::json!({
            "root": {"path": self.at("root")},
            "process": {
                "args": ["sh", "-c", script],
                "cwd": "/",
                "env": ["PATH=/bin"],
                "capabilities": {"bounding": names, "permitted": names, "effective": names},
            },
            "mounts": [{"destination": "/proc", "type": "proc"}],
            "linux": {
                "namespaces": [{"type": "pid"}, {"type": "mount"}],
                "seccomp": seccomp::default_profile(self.kind == Kind::Single),
            },
        })
    }

    fn run(&self, spec: &serde_json::Value) -> Result<(i32, String), Error> {
        let path = self.at("output");
        let output = File::create(&path).unwrap();
        let container = sandbox::spawn(&spec.to_string(), output.as_fd())?;
        let code = container.wait()?;
        assert_eq!(container.wait()?, code);
        Ok((code, fs::read_to_string(path).unwrap()))
    }

    fn sh(&self, script: &str) -> (i32, String) {
        self.run(&self.spec(script)).unwrap()
    }
}

fn exit_codes(bench: &Bench) {
    assert_eq!(bench.sh("exit 0").0, 0);
    assert_eq!(bench.sh("exit 42").0, 42);
    assert_eq!(bench.sh("kill -9 $$").0, 137);
    assert_eq!(bench.sh("nope").0, 127);
    assert_eq!(bench.sh("echo $$").1, "2\n");
}

fn filter_refuses_mounts(bench: &Bench) {
    let (code, text) = bench.sh("busybox mount -t tmpfs x /tmp");
    assert_ne!(code, 0, "{text}");
    let status = bench.sh("busybox grep Seccomp: /proc/self/status").1;
    assert!(status.ends_with("2\n"), "{status}");
}

fn hostile_symlink(bench: &Bench) {
    let outside = bench.at("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, bench.at("root/tmp/absolute")).unwrap();
    symlink("../../../../..", bench.at("root/tmp/climbing")).unwrap();
    let mut spec = bench.spec("busybox touch /tmp/climbing/x/made");
    spec["mounts"] = serde_json::json!([
        {"destination": "/proc", "type": "proc"},
        {"destination": "/tmp/absolute/x", "type": "tmpfs"},
        {"destination": "/tmp/climbing/x", "type": "tmpfs"},
    ]);
    assert_eq!(bench.run(&spec).unwrap().0, 0);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert!(!bench.at("upper/x").exists());
}

fn whiteout(bench: &Bench) {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let (code, text) = bench.sh("busybox rm /bin/sh && busybox echo yes > /tmp/new");
    assert_eq!(code, 0, "{text}");
    let gone = fs::symlink_metadata(bench.at("upper/bin/sh")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    assert_eq!(
        fs::read_to_string(bench.at("upper/tmp/new")).unwrap(),
        "yes\n"
    );
}

fn many_layers(bench: &Bench) {
    let mut lowers: Vec<PathBuf> = Vec::new();
    for number in 0..300 {
        let layer = bench.at(&format!("layer, number:{number}"));
        fs::create_dir(&layer).unwrap();
        fs::write(layer.join("which"), number.to_string()).unwrap();
        lowers.push(layer);
    }
    lowers.push(lowers[7].clone()); // the same layer again, on top
    let target = bench.at("many");
    fs::create_dir(&target).unwrap();
    mounts::mount_overlay(&target, &lowers, None).unwrap();
    assert_eq!(fs::read_to_string(target.join("which")).unwrap(), "7");
    assert!(fs::write(target.join("which"), "").is_err());
    mounts::unmount(&target).unwrap();
    mounts::unmount(&target).unwrap();
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
}

fn foreign_user(bench: &Bench) {
    let mut spec = bench.spec("exit 0");
    spec["process"]["user"] = serde_json::json!({"uid": 1000, "gid": 1000});
    spec["linux"]["seccomp"] = serde_json::to_value(seccomp::default_profile(false)).unwrap();
    match (bench.kind, bench.run(&spec)) {
        (Kind::Single, Err(Error::Sandbox { step, hint, .. })) => {
            assert!(
                step.contains("1000") && hint.contains("--add-subuids"),
                "{step}: {hint}"
            );
        }
        (Kind::Single, other) => panic!("{other:?}"),
        (_, done) => assert_eq!(done.unwrap().0, 0),
    }
}
