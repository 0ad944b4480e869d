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
    /// Bits that `who` covers, set-id and sticky bits included.
    who: u32,
    op: char,
    permissions: Permissions,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Permissions {
    /// Bits in the place of every class, and whether `X` was among them.
    Bits { bits: u32, search: bool },
    /// Those of another class: shift of its bits.
    OfClass(u32),
}

const EXECUTE: u32 = 0o111;

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
            Self::Symbolic(clauses) => clauses
                .iter()
                .fold(mode & 0o7777, |mode, clause| clause.apply(mode, is_folder)),
        }
    }
}

fn bad(text: &str) -> Error {
    Error::Copy {
        path: format!("--chmod={text}"),
        reason: "not an octal or symbolic mode".to_owned(),
        not_found: false,
    }
}

/// Reads one comma's worth: a who-list and one or more actions.
fn parse_clause(text: &str, clauses: &mut Vec<Clause>) -> Option<()> {
    let start = text.find(['+', '-', '='])?;
    let mut who = 0;
    for class in text[..start].chars() {
        who |= match class {
            'u' => 0o4700,
            'g' => 0o2070,
            'o' => 0o1007,
            'a' => 0o7777,
            _ => return None,
        };
    }
    // No class means all; a build has no umask to leave bits out for.
    let who = if who == 0 { 0o7777 } else { who };
    let mut rest = &text[start..];
    while let Some(op) = rest.chars().next() {
        let body = &rest[1..];
        let end = body.find(['+', '-', '=']).unwrap_or(body.len());
        clauses.push(Clause {
            who,
            op,
            permissions: parse_permissions(&body[..end])?,
        });
        rest = &body[end..];
    }
    Some(())
}

fn parse_permissions(text: &str) -> Option<Permissions> {
    match text {
        "u" => return Some(Permissions::OfClass(6)),
        "g" => return Some(Permissions::OfClass(3)),
        "o" => return Some(Permissions::OfClass(0)),
        _ => {}
    }
    let (mut bits, mut search) = (0, false);
    for letter in text.chars() {
        match letter {
            'r' => bits |= 0o444,
            'w' => bits |= 0o222,
            'x' => bits |= EXECUTE,
            'X' => search = true,
            's' => bits |= 0o6000,
            't' => bits |= 0o1000,
            _ => return None,
        }
    }
    Some(Permissions::Bits { bits, search })
}

impl Clause {
    fn apply(&self, mode: u32, is_folder: bool) -> u32 {
        let bits = match self.permissions {
            Permissions::Bits { bits, search } => {
                let executable = is_folder || mode & EXECUTE != 0;
                bits | if search && executable { EXECUTE } else { 0 }
            }
            Permissions::OfClass(shift) => ((mode >> shift) & 7) * EXECUTE,
        };
        let bits = bits & self.who;
        match self.op {
            '+' => mode | bits,
            '-' => mode & !bits,
            // The sticky bit goes with `t` alone, unless everyone is meant.
            _ => mode & !(self.who & if self.who == 0o7777 { 0o7777 } else { 0o6777 }) | bits,
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
