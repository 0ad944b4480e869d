//! What `tests/sandbox.rs` cannot show: the rules that need no second process outside.

#![allow(clippy::unwrap_used)]

use std::os::fd::AsRawFd;

use super::*;

fn sh(script: &str) -> Program {
    Program {
        argv: ["sh", "-c", script].map(str::to_owned).to_vec(),
        env: vec![("GIVEN".to_owned(), "here".to_owned())],
        cwd: PathBuf::from("/"),
        stdin: b"in\n".to_vec(),
    }
}

fn finish(program: &Program) -> Result<Outcome> {
    let mut running = run(program)?;
    loop {
        if let Some(outcome) = running.wait_slice(Duration::from_millis(50))? {
            return Ok(outcome);
        }
    }
}

#[test]
fn a_program_gets_its_input_environment_and_folder_and_gives_its_output() {
    let outcome = finish(&sh("cat; echo $GIVEN; pwd; echo bad >&2; exit 3")).unwrap();
    assert_eq!(outcome.code, 3);
    assert_eq!(outcome.stdout, b"in\nhere\n/\n");
    assert_eq!(outcome.stderr, b"bad\n");
}

#[test]
fn a_program_that_is_not_there_is_an_error_with_its_name() {
    let program = Program {
        argv: vec!["no-such-program-anywhere".to_owned()],
        ..sh("")
    };
    match finish(&program) {
        Err(Error::Io { path, source, .. }) => {
            assert_eq!(path, PathBuf::from("no-such-program-anywhere"));
            assert_eq!(source.kind(), io::ErrorKind::NotFound);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_program_that_is_dropped_ends_with_all_that_it_started() {
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let mut program = sh("exec 9>/proc/$PARENT/fd/$FD; sleep 1000 & sleep 1000");
    program.env = vec![
        ("PARENT".to_owned(), std::process::id().to_string()),
        ("FD".to_owned(), writer.as_raw_fd().to_string()),
        ("PATH".to_owned(), "/usr/bin:/bin".to_owned()),
    ];
    let running = run(&program).unwrap();
    drop(running);
    drop(writer);
    // Ends once the last process that holds the pipe is gone.
    let mut rest = Vec::new();
    std::fs::File::from(reader).read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
}

#[test]
fn a_repository_of_the_caller_and_its_proxies_are_not_inherited() {
    for name in [
        "GIT_DIR",
        "GIT_CONFIG_COUNT",
        "GIT_TRACE",
        "http_proxy",
        "NO_PROXY",
        "ALL_PROXY",
    ] {
        assert!(!inherits(name), "{name}");
    }
    for name in [
        "HOME",
        "PATH",
        "SSH_AUTH_SOCK",
        "GIT_SSH_COMMAND",
        "GIT_SSL_CAINFO",
        "LANG",
    ] {
        assert!(inherits(name), "{name}");
    }
}
