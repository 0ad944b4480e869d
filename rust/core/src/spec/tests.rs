//! Tests of `spec`.

#![allow(clippy::unwrap_used)]
use super::*;

fn minimal() -> serde_json::Value {
    serde_json::json!({
        "root": {"path": "/r"},
        "process": {"args": ["true"], "cwd": "/"},
        "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}]},
    })
}

fn parse(value: &serde_json::Value) -> Result<Spec> {
    Spec::parse(value.to_string().as_bytes())
}

fn refusal(value: &serde_json::Value) -> String {
    match parse(value).unwrap_err() {
        Error::Unsupported { feature, .. } => feature,
        other => panic!("{other}"),
    }
}

#[test]
fn a_minimal_spec_parses() {
    let spec = parse(&minimal()).unwrap();
    assert_eq!(
        spec.namespace_flags(),
        libc::CLONE_NEWPID | libc::CLONE_NEWNS
    );
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    let mut value = minimal();
    value["hooks"] = serde_json::json!({});
    assert!(refusal(&value).contains("hooks"));
    let mut value = minimal();
    value["linux"]["namespaces"] =
        serde_json::json!([{"type": "pid"}, {"type": "mount"}, {"type": "user"}]);
    assert!(refusal(&value).contains("user"));
    let mut value = minimal();
    value["mounts"] =
        serde_json::json!([{"destination": "/x", "type": "ext4", "source": "/dev/sda"}]);
    assert!(refusal(&value).contains("ext4"));
    let mut value = minimal();
    value["process"]["capabilities"] = serde_json::json!({"bounding": ["CAP_FLY"]});
    assert!(refusal(&value).contains("CAP_FLY"));
    let mut value = minimal();
    value["process"]["rlimits"] = serde_json::json!([{"type": "RLIMIT_X", "soft": 1, "hard": 1}]);
    assert!(refusal(&value).contains("RLIMIT_X"));
}

#[test]
fn a_nul_byte_and_a_relative_path_are_refused() {
    let mut value = minimal();
    value["process"]["args"] = serde_json::json!(["a\u{0}b"]);
    assert!(refusal(&value).contains("NUL"));
    let mut value = minimal();
    value["process"]["cwd"] = serde_json::json!("tmp");
    assert!(refusal(&value).contains("relative"));
}

#[test]
fn bytes_that_are_not_utf8_come_through() {
    let text = minimal()
        .to_string()
        .replace("\"true\"", "\"caf\\udcc3\\udca9\\udcff\"");
    let spec = Spec::parse(text.as_bytes()).unwrap();
    assert_eq!(spec.process.args[0].0, b"caf\xc3\xa9\xff");
}

#[test]
fn capabilities_have_the_kernels_numbers() {
    let mask = |name: &str| capability_mask(&[name.to_owned()]).unwrap();
    assert_eq!(mask("CAP_CHOWN"), 1);
    assert_eq!(mask("CAP_SYS_ADMIN"), 1 << 21);
    assert_eq!(mask("CAP_SETFCAP"), 1 << 31);
    assert_eq!(mask("CAP_CHECKPOINT_RESTORE"), 1 << 40);
}
