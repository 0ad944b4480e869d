//! Tests of `sandbox`.

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
    let (a, b) = packets().unwrap();
    let file = in_memory(b"text").unwrap();
    send(a.as_fd(), b"r", &[file.as_fd(), file.as_fd()]).unwrap();
    let request = receive_request(b.as_fd()).unwrap().unwrap();
    let mut text = String::new();
    io::Read::read_to_string(&mut std::fs::File::from(request.spec), &mut text).unwrap();
    assert_eq!(text, "text");
    drop(a);
    assert!(receive_request(b.as_fd()).unwrap().is_none());
}

#[test]
fn a_request_without_its_descriptors_is_refused() {
    let (a, b) = packets().unwrap();
    send(a.as_fd(), b"r", &[]).unwrap();
    assert!(receive_request(b.as_fd()).is_err());
}
