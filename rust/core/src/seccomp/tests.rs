//! Tests of `seccomp`.

#![allow(clippy::unwrap_used)]
use super::*;

type Truth = fn(u64, u64) -> bool;

const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;

/// Runs a program over one `seccomp_data`, as the kernel does.
fn run(program: &[Instruction], audit: u32, number: u32, args: [u64; 6]) -> u32 {
    let mut data = Vec::new();
    data.extend(number.to_le_bytes());
    data.extend(audit.to_le_bytes());
    data.extend([0; 8]);
    for arg in args {
        data.extend(arg.to_le_bytes());
    }
    let (mut at, mut value) = (0, 0u32);
    loop {
        let step = program[at];
        at += 1;
        let jump = |holds: bool| usize::from(if holds { step.jt } else { step.jf });
        match step.code {
            LOAD => {
                let start = step.k as usize;
                value = u32::from_le_bytes(data[start..start + 4].try_into().unwrap());
            }
            AND => value &= step.k,
            JUMP => at += step.k as usize,
            IF_EQ => at += jump(value == step.k),
            IF_GT => at += jump(value > step.k),
            IF_GE => at += jump(value >= step.k),
            RETURN => return step.k,
            other => panic!("instruction {other:#x}"),
        }
    }
}

fn number(arch: &Arch, name: &str) -> u32 {
    arch.numbers().find(|(known, _)| *known == name).unwrap().1
}

fn ask(profile: &Seccomp, name: &str, args: [u64; 6]) -> u32 {
    let arch = &MACHINE[0];
    run(
        &compile(profile).unwrap(),
        arch.audit,
        number(arch, name),
        args,
    )
}

#[test]
fn ordinary_calls_pass_and_the_hosts_doors_are_shut() {
    let profile = default_profile(false);
    for name in [
        "read",
        "openat",
        "execve",
        "fchownat",
        "setresuid",
        "mknodat",
        "chroot",
    ] {
        assert_eq!(ask(&profile, name, [0; 6]), ALLOW, "{name}");
    }
    for name in [
        "mount",
        "unshare",
        "setns",
        "bpf",
        "keyctl",
        "init_module",
        "io_uring_setup",
    ] {
        assert_eq!(ask(&profile, name, [0; 6]), ERRNO | EPERM, "{name}");
    }
    assert_eq!(ask(&profile, "clone3", [0; 6]), ERRNO | ENOSYS);
}

#[test]
fn every_number_of_every_table_gets_what_the_rules_say() {
    let profile = default_profile(false);
    let program = compile(&profile).unwrap();
    let allowed = words(&format!("{ALLOWED} {OWNERS} mknod mknodat"));
    let conditional = ["clone", "clone3", "socket", "personality"];
    for arch in MACHINE {
        for (name, number) in arch
            .numbers()
            .filter(|(name, _)| !conditional.contains(name))
        {
            let want = if allowed.iter().any(|known| known == name) {
                ALLOW
            } else {
                ERRNO | EPERM
            };
            assert_eq!(
                run(&program, arch.audit, number, [0; 6]),
                want,
                "{name} {}",
                arch.name
            );
        }
    }
}

#[test]
fn a_clone_with_namespace_flags_is_refused() {
    let profile = default_profile(false);
    assert_eq!(ask(&profile, "clone", [17, 0, 0, 0, 0, 0]), ALLOW);
    assert_eq!(
        ask(&profile, "clone", [0x1000_0011, 0, 0, 0, 0, 0]),
        ERRNO | EPERM
    );
}

#[test]
fn a_vsock_socket_is_refused() {
    let profile = default_profile(false);
    assert_eq!(ask(&profile, "socket", [2, 0, 0, 0, 0, 0]), ALLOW);
    assert_eq!(ask(&profile, "socket", [40, 0, 0, 0, 0, 0]), ERRNO | EPERM);
}

#[test]
fn foreign_architectures_x32_and_calls_of_the_future_get_enosys() {
    let program = compile(&default_profile(false)).unwrap();
    assert_eq!(run(&program, 0x1234, 0, [0; 6]), ERRNO | ENOSYS);
    let own = MACHINE[0].audit;
    assert_eq!(run(&program, own, 0x4000_0000, [0; 6]), ERRNO | ENOSYS);
    assert_eq!(run(&program, own, 1000, [0; 6]), ERRNO | ENOSYS);
}

#[test]
fn emulated_owners_report_success() {
    let profile = default_profile(true);
    assert!(profile.fakes("setresuid") && !default_profile(false).fakes("setresuid"));
    for name in ["fchownat", "setuid", "setgroups", "capset"] {
        assert_eq!(ask(&profile, name, [0; 6]), ERRNO, "{name}");
    }
    assert_eq!(ask(&profile, "mknodat", [0, 0, 0o020_644, 0, 0, 0]), ERRNO);
    assert_eq!(ask(&profile, "mknodat", [0, 0, 0o010_644, 0, 0, 0]), ALLOW);
}

#[test]
fn comparisons_are_64_bits_wide() {
    let big = 0x1_0000_0002;
    let values = [
        0,
        2,
        0x1_0000_0001,
        big,
        0x1_0000_0003,
        0x2_0000_0000,
        u64::MAX,
    ];
    let cases: [(Compare, Truth); 6] = [
        (Compare::Equal, |a, b| a == b),
        (Compare::NotEqual, |a, b| a != b),
        (Compare::Less, |a, b| a < b),
        (Compare::LessOrEqual, |a, b| a <= b),
        (Compare::Greater, |a, b| a > b),
        (Compare::GreaterOrEqual, |a, b| a >= b),
    ];
    for (compare, truth) in cases {
        let mut profile = default_profile(false);
        let condition = test(3, compare, big, 0);
        profile.syscalls = vec![rule("read", Action::Allow, None, vec![condition])];
        for value in values {
            let want = if truth(value, big) {
                ALLOW
            } else {
                ERRNO | EPERM
            };
            assert_eq!(
                ask(&profile, "read", [0, 0, 0, value, 0, 0]),
                want,
                "{compare:?} {value:#x}"
            );
        }
    }
}

#[test]
fn the_json_form_survives_a_round_trip() {
    let profile = default_profile(true);
    let text = serde_json::to_string(&profile).unwrap();
    assert_eq!(serde_json::from_str::<Seccomp>(&text).unwrap(), profile);
    assert!(compile(&profile).unwrap().len() < 1500);
}

#[test]
fn an_unknown_action_is_refused() {
    let text = r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#;
    assert!(serde_json::from_str::<Seccomp>(text).is_err());
}
