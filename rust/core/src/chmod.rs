//! [`ModeChange`]: what `COPY --chmod` asks for, octal or symbolic.
//!
//! `copy` parses one per instruction and applies it to every file and folder that is copied.
//! Source: Dockerfile reference, "COPY --chmod"; POSIX.1-2024, chmod, "Extended Description".

use crate::{Error, Result};

/// A parsed `--chmod`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModeChange {
    /// These bits and no others.
    Octal(u32),
    /// Clauses applied in turn.
    Symbolic(Vec<Clause>),
}

/// One `who op permissions` of a symbolic mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clause {
    /// Bits that `who` covers.
    who: u32,
    op: Op,
    permissions: Permissions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Add,
    Remove,
    Set,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Permissions {
    /// Bits in the place of every class.
    Bits(u32),
    /// `X`: execute, where it is a folder or somebody could execute it to begin with.
    Search,
    /// Those of another class: shift of its bits.
    OfClass(u32),
}

const EXECUTE: u32 = 0o111;
const STICKY: u32 = 0o1000;
/// What `a`, or no class, stands for. The sticky bit belongs to `t` alone.
const ALL: u32 = 0o6777;
const OTHER: u32 = 0o007;

impl ModeChange {
    /// Reads `0755`, `u=rwX,go=rX` and the like.
    pub fn parse(text: &str) -> Result<Self> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return u32::from_str_radix(text, 8)
                .ok()
                .filter(|&bits| bits <= 0o7777)
                .map(Self::Octal)
                .ok_or_else(|| bad(text));
        }
        let mut clauses = Vec::new();
        for clause in text.split(',') {
            parse_clause(clause, &mut clauses).ok_or_else(|| bad(text))?;
        }
        Ok(Self::Symbolic(clauses))
    }

    /// The mode that a file or folder of `mode` gets.
    pub fn apply(&self, mode: u32, is_folder: bool) -> u32 {
        match self {
            Self::Octal(bits) => *bits,
            Self::Symbolic(clauses) => {
                let searchable = is_folder || mode & EXECUTE != 0;
                let mode = mode & 0o7777;
                clauses
                    .iter()
                    .fold(mode, |mode, clause| clause.apply(mode, searchable))
            }
        }
    }
}

fn bad(text: &str) -> Error {
    Error::Copy {
        path: text.to_owned(),
        reason: "no mode: neither octal from 0 to 7777, nor changes such as u=rwX,go=rX".to_owned(),
        not_found: false,
    }
}

/// Reads one comma's worth: classes, and one or more actions on them.
fn parse_clause(text: &str, clauses: &mut Vec<Clause>) -> Option<()> {
    let start = text.find(['+', '-', '='])?;
    let mut who = 0;
    for class in text[..start].chars() {
        who |= match class {
            'u' => 0o4700,
            'g' => 0o2070,
            'o' => OTHER,
            'a' => ALL,
            _ => return None,
        };
    }
    let mut rest = &text[start..];
    while let Some(sign) = rest.chars().next() {
        let op = match sign {
            '+' => Op::Add,
            '-' => Op::Remove,
            _ => Op::Set,
        };
        let body = &rest[1..];
        let end = body.find(['+', '-', '=']).unwrap_or(body.len());
        parse_action(who, op, &body[..end], clauses)?;
        rest = &body[end..];
    }
    Some(())
}

/// Reads what follows one sign. Letters of a class copy its bits as they are by then.
fn parse_action(mut who: u32, op: Op, text: &str, clauses: &mut Vec<Clause>) -> Option<()> {
    let (mut bits, mut search, mut copied) = (0, false, false);
    let mut push = |who, permissions| {
        clauses.push(Clause {
            // No class means all; a build has no umask to leave bits out for.
            who: if who == 0 { ALL } else { who },
            op,
            permissions,
        });
    };
    for letter in text.chars() {
        match letter {
            'r' => bits |= 0o444,
            'w' => bits |= 0o222,
            'x' => bits |= EXECUTE,
            'X' if op == Op::Remove => bits |= EXECUTE,
            'X' => search = true,
            // The others have neither a set-id bit nor the sticky one.
            's' | 't' if who == OTHER => {}
            's' => bits |= 0o6000,
            // Where there is no class, `t` takes the place of one: the reference has it so.
            't' => {
                who |= STICKY;
                bits |= STICKY;
            }
            'u' | 'g' | 'o' => {
                if bits != 0 {
                    push(who, Permissions::Bits(std::mem::take(&mut bits)));
                }
                if std::mem::take(&mut search) {
                    push(who, Permissions::Search);
                }
                copied = true;
                push(
                    who,
                    Permissions::OfClass(match letter {
                        'u' => 6,
                        'g' => 3,
                        _ => 0,
                    }),
                );
            }
            _ => return None,
        }
    }
    if bits != 0 || (op == Op::Set && !copied) {
        push(who, Permissions::Bits(bits));
    }
    if search {
        push(who, Permissions::Search);
    }
    Some(())
}

impl Clause {
    fn apply(&self, mode: u32, searchable: bool) -> u32 {
        let (bits, cleared) = match self.permissions {
            Permissions::Search if searchable => return mode | (EXECUTE & self.who),
            Permissions::Search => return mode,
            Permissions::Bits(bits) => (bits & self.who, self.who),
            Permissions::OfClass(shift) => {
                let bits = ((mode >> shift) & 7) * EXECUTE;
                (bits & self.who, 0o777 & self.who)
            }
        };
        match self.op {
            Op::Add => mode | bits,
            Op::Remove => mode & !bits,
            Op::Set => mode & !cleared | bits,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn modes_are_applied_as_chmod_does() {
        let rows = [
            ("0755", 0o600, false, 0o755),
            ("4711", 0o600, false, 0o4711),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o700, false, 0o755),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("+x", 0o644, false, 0o755),
            ("a-w", 0o666, false, 0o444),
            ("go=", 0o777, false, 0o700),
            ("g=u", 0o740, false, 0o770),
            ("u+s", 0o755, false, 0o4755),
            ("u=rw+x", 0o000, false, 0o700),
            ("+t", 0o777, true, 0o1777),
            ("o+t,o+s", 0o777, true, 0o777),
            ("u+t", 0o777, true, 0o1777),
            ("a=rx", 0o1777, true, 0o1555),
            ("=t", 0o777, true, 0o1777),
            ("+ts", 0o755, false, 0o1755),
            ("a=t", 0o777, true, 0o1000),
            ("u=rwx,go=u-w", 0o600, false, 0o755),
            ("g=u-w", 0o750, false, 0o750),
            ("u=go", 0o421, false, 0o121),
            ("=rw,+X", 0o700, false, 0o777),
            ("a-X", 0o755, false, 0o644),
            ("u-x,+X", 0o700, false, 0o711),
            ("g=s", 0o770, false, 0o2700),
            ("ug=s", 0o077, false, 0o6007),
            ("g=u", 0o2750, true, 0o2770),
            ("g=", 0o2750, true, 0o700),
            ("-u", 0o640, false, 0o000),
            ("a+", 0o640, false, 0o640),
            ("=r", 0o777, false, 0o444),
            ("o=g,g=", 0o750, false, 0o705),
        ];
        for (text, before, is_folder, after) in rows {
            let change = ModeChange::parse(text).unwrap();
            assert_eq!(change.apply(before, is_folder), after, "{text}");
        }
    }

    #[test]
    fn a_bad_mode_is_an_error() {
        for text in ["", "9", "77777", "u", "u=rwz", "x+r", "u=rw,", "rwx", "-1é"] {
            assert!(ModeChange::parse(text).is_err(), "{text}");
        }
    }
}
