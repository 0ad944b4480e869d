//! [`Glob`]: Go's `filepath.Match` on one component; [`Tokens`]: an expression over a whole path.
//!
//! `source` finds files by the one, `ignore` compiles its patterns to the other. Both run as a set
//! of places in the path, so a match is linear in the path for every token, whatever the pattern:
//! none can make a walk hang. Nothing here touches a disk.
//! Source: Go `path/filepath`, `Match`; Go `regexp/syntax`, character classes and escapes.

use std::iter::Peekable;
use std::str::Chars;

use crate::{Error, Result};

/// One step of an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    /// These bytes.
    Literal(Vec<u8>),
    /// One character, no slash.
    One,
    /// Any number of characters, no slash.
    Star,
    /// Nothing, or anything without a line end that ends with a slash.
    Folders,
    /// Anything without a line end.
    All,
    /// One character of a class.
    Class(Class),
    /// Any number of characters of a class.
    Many(Class),
    /// One character of a class, or none.
    Maybe(Class),
    /// Anything at all.
    Rest,
    /// Nothing, at the path's very beginning.
    Start,
}

/// A set of characters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Class {
    negated: bool,
    ranges: Vec<(char, char)>,
}

impl Class {
    fn one(c: char) -> Self {
        Self {
            negated: false,
            ranges: vec![(c, c)],
        }
    }

    fn not_slash() -> Self {
        Self {
            negated: true,
            ranges: vec![('/', '/')],
        }
    }

    /// Is the character in it?
    pub fn contains(&self, c: char) -> bool {
        let inside = self.ranges.iter().any(|&(low, high)| low <= c && c <= high);
        inside != self.negated
    }

    /// Adds what another class holds.
    fn add(&mut self, other: &Self) {
        if !other.negated {
            self.ranges.extend_from_slice(&other.ranges);
            return;
        }
        let mut ranges = other.ranges.clone();
        ranges.sort_unstable();
        let mut low = 0;
        for (from, to) in ranges {
            self.add_between(low, u32::from(from));
            low = low.max(u32::from(to) + 1);
        }
        self.add_between(low, u32::from(char::MAX) + 1);
    }

    /// Adds `low..high`; both are next to characters, so neither lies among the surrogates' inside.
    fn add_between(&mut self, low: u32, high: u32) {
        let skip = |point: u32| {
            if (0xd800..0xe000).contains(&point) {
                0xe000
            } else {
                point
            }
        };
        if low < high {
            if let (Some(low), Some(high)) = (
                char::from_u32(skip(low)),
                char::from_u32(high - 1).or(Some('\u{d7ff}')),
            ) {
                self.ranges.push((low, high));
            }
        }
    }

    /// Reads a class of `filepath.Match` up to its `]`.
    fn of_glob(rest: &mut Peekable<Chars<'_>>) -> Option<Self> {
        let negated = rest.next_if_eq(&'^').is_some();
        let mut ranges = Vec::new();
        loop {
            if !ranges.is_empty() && rest.next_if_eq(&']').is_some() {
                return Some(Self { negated, ranges });
            }
            let low = Self::glob_member(rest)?;
            let high = match rest.next_if_eq(&'-') {
                Some(_) => Self::glob_member(rest)?,
                None => low,
            };
            ranges.push((low, high));
        }
    }

    fn glob_member(rest: &mut Peekable<Chars<'_>>) -> Option<char> {
        match rest.next()? {
            '-' | ']' => None,
            '\\' => rest.next(),
            other => Some(other),
        }
    }
}

/// The expression of a whole path, in the dialect that the reference matcher translates to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens(Vec<Vec<Token>>);

impl Tokens {
    /// Reads the text of an expression; its anchors at both ends are left out.
    ///
    /// Of the language of `regexp` it knows what a translated pattern can hold: classes, escapes,
    /// `(.*/)?`, `.*`, `^`, a star after a class, `{2,3}` and `|`, which the reference forgets to
    /// escape. None for anything else.
    pub fn parse(expression: &str) -> Option<Self> {
        let mut branches = Vec::new();
        let mut tokens = Vec::new();
        let mut rest = expression;
        // What a repetition would repeat: one character of a class; None where it is an error.
        let mut atom: Option<Class> = None;
        while let Some(c) = rest.chars().next() {
            let after = &rest[c.len_utf8()..];
            let repeated = if c == '{' { repetition(after) } else { None };
            if let Some((least, most, after)) = repeated {
                repeat(&mut tokens, &atom.take()?, least, most)?;
                rest = after;
                continue;
            }
            atom = None;
            rest = match c {
                '^' => {
                    tokens.push(Token::Start);
                    after
                }
                '|' => {
                    branches.push(std::mem::take(&mut tokens));
                    after
                }
                '(' => {
                    tokens.push(Token::Folders);
                    after.strip_prefix(".*/)?")?
                }
                '.' => {
                    tokens.push(Token::All);
                    after.strip_prefix('*')?
                }
                '[' => {
                    let (class, after) = class(after)?;
                    let starred = after.strip_prefix('*');
                    let any = class == Class::not_slash();
                    atom = starred.is_none().then(|| class.clone());
                    tokens.push(match (any, starred.is_some()) {
                        (true, true) => Token::Star,
                        (true, false) => Token::One,
                        (false, true) => Token::Many(class),
                        (false, false) => Token::Class(class),
                    });
                    starred.unwrap_or(after)
                }
                '\\' => {
                    let (escaped, after) = escape(after)?;
                    match escaped {
                        Escaped::Char(c) => {
                            atom = Some(Class::one(c));
                            literal(&mut tokens, c);
                        }
                        Escaped::Class(class) => {
                            atom = Some(class.clone());
                            tokens.push(Token::Class(class));
                        }
                    }
                    after
                }
                other => {
                    atom = Some(Class::one(other));
                    literal(&mut tokens, other);
                    after
                }
            };
        }
        branches.push(tokens);
        // Of several branches only the first is held at the path's beginning, and only the last
        // at its end.
        let last = branches.len() - 1;
        for (number, branch) in branches.iter_mut().enumerate() {
            if number > 0 {
                branch.insert(0, Token::Rest);
            }
            if number < last {
                branch.push(Token::Rest);
            }
        }
        Some(Self(branches))
    }

    /// The steps of each branch; one that matches is enough.
    pub fn branches(&self) -> &[Vec<Token>] {
        &self.0
    }
}

/// The most that `regexp` repeats.
const MOST: usize = 1000;

/// Reads `2}`, `2,}` or `2,3}`; None for a brace that is an ordinary character.
fn repetition(text: &str) -> Option<(usize, Option<usize>, &str)> {
    let (inside, after) = text.split_once('}')?;
    let number = |text: &str| {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && text.len() < 9;
        let zeros = text.len() > 1 && text.starts_with('0');
        (plain && !zeros).then(|| text.parse().ok()).flatten()
    };
    match inside.split_once(',') {
        None => number(inside).map(|count| (count, Some(count), after)),
        Some((least, "")) => number(least).map(|least| (least, None, after)),
        Some((least, most)) => Some((number(least)?, Some(number(most)?), after)),
    }
}

/// Replaces the last character that was read by so many of it; None where that is an error.
fn repeat(tokens: &mut Vec<Token>, of: &Class, least: usize, most: Option<usize>) -> Option<()> {
    let highest = most.unwrap_or(least);
    if least > MOST || highest > MOST || highest < least {
        return None;
    }
    match tokens.last_mut() {
        Some(Token::Literal(text)) => {
            let shown = String::from_utf8_lossy(text).into_owned();
            let kept = shown.char_indices().next_back().map_or(0, |(at, _)| at);
            text.truncate(kept);
            if kept == 0 {
                tokens.pop();
            }
        }
        _ => {
            tokens.pop();
        }
    }
    tokens.extend((0..least).map(|_| Token::Class(of.clone())));
    match most {
        None => tokens.push(Token::Many(of.clone())),
        Some(most) => tokens.extend((least..most).map(|_| Token::Maybe(of.clone()))),
    }
    Some(())
}

enum Escaped {
    Char(char),
    Class(Class),
}

/// Reads what follows a backslash. Escapes that stand for places or for code points are refused.
fn escape(rest: &str) -> Option<(Escaped, &str)> {
    let c = rest.chars().next()?;
    let after = &rest[c.len_utf8()..];
    let escaped = match c {
        'a' => Escaped::Char('\x07'),
        'f' => Escaped::Char('\x0c'),
        'n' => Escaped::Char('\n'),
        'r' => Escaped::Char('\r'),
        't' => Escaped::Char('\t'),
        'v' => Escaped::Char('\x0b'),
        'd' | 's' | 'w' | 'D' | 'S' | 'W' => Escaped::Class(Class {
            negated: c.is_ascii_uppercase(),
            ranges: match c.to_ascii_lowercase() {
                'd' => DIGIT,
                's' => &[('\t', '\n'), ('\x0c', '\r'), (' ', ' ')],
                _ => WORD,
            }
            .to_vec(),
        }),
        c if c.is_ascii() && !c.is_ascii_alphanumeric() => Escaped::Char(c),
        _ => return None,
    };
    Some((escaped, after))
}

const DIGIT: &[(char, char)] = &[('0', '9')];
const WORD: &[(char, char)] = &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')];

/// The named classes of a bracket expression.
const NAMED: &[(&str, &[(char, char)])] = &[
    ("alnum", &[('0', '9'), ('A', 'Z'), ('a', 'z')]),
    ("alpha", &[('A', 'Z'), ('a', 'z')]),
    ("ascii", &[('\0', '\x7f')]),
    ("blank", &[('\t', '\t'), (' ', ' ')]),
    ("cntrl", &[('\0', '\x1f'), ('\x7f', '\x7f')]),
    ("digit", DIGIT),
    ("graph", &[('!', '~')]),
    ("lower", &[('a', 'z')]),
    ("print", &[(' ', '~')]),
    ("punct", &[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')]),
    ("space", &[('\t', '\r'), (' ', ' ')]),
    ("upper", &[('A', 'Z')]),
    ("word", WORD),
    ("xdigit", &[('0', '9'), ('A', 'F'), ('a', 'f')]),
];

/// Reads a class after its `[`; gives it and what follows its `]`.
fn class(text: &str) -> Option<(Class, &str)> {
    let mut found = Class::default();
    let (negated, mut rest) = match text.strip_prefix('^') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut first = true;
    while first || !rest.starts_with(']') {
        first = false;
        if let Some((named, after)) = rest
            .strip_prefix("[:")
            .and_then(|text| text.split_once(":]"))
        {
            let (not, name) = match named.strip_prefix('^') {
                Some(name) => (true, name),
                None => (false, named),
            };
            let (_, ranges) = NAMED.iter().find(|(known, _)| *known == name)?;
            found.add(&Class {
                negated: not,
                ranges: ranges.to_vec(),
            });
            rest = after;
            continue;
        }
        let (low, after) = member(rest)?;
        rest = after;
        match low {
            Escaped::Class(class) => found.add(&class),
            Escaped::Char(low) => {
                let range = rest.strip_prefix('-').filter(|rest| !rest.starts_with(']'));
                let high = match range {
                    Some(after) => {
                        let (Escaped::Char(high), after) = member(after)? else {
                            return None;
                        };
                        rest = after;
                        high
                    }
                    None => low,
                };
                if high < low {
                    return None;
                }
                found.ranges.push((low, high));
            }
        }
    }
    found.negated = negated;
    Some((found, &rest[1..]))
}

fn member(rest: &str) -> Option<(Escaped, &str)> {
    let c = rest.chars().next()?;
    let after = &rest[c.len_utf8()..];
    if c == '\\' {
        return escape(after);
    }
    Some((Escaped::Char(c), after))
}

fn literal(tokens: &mut Vec<Token>, c: char) {
    let mut buffer = [0; 4];
    let bytes = c.encode_utf8(&mut buffer).as_bytes();
    match tokens.last_mut() {
        Some(Token::Literal(text)) => text.extend_from_slice(bytes),
        _ => tokens.push(Token::Literal(bytes.to_vec())),
    }
}

/// The character at the start of `bytes` and its length; a byte that is no UTF-8 counts as one.
fn first_char(bytes: &[u8]) -> Option<(char, usize)> {
    let &first = bytes.first()?;
    if first.is_ascii() {
        return Some((first as char, 1));
    }
    for length in 2..=bytes.len().min(4) {
        if let Ok(text) = std::str::from_utf8(&bytes[..length]) {
            return text.chars().next().map(|c| (c, length));
        }
    }
    Some((char::REPLACEMENT_CHARACTER, 1))
}

/// Places in a path, as a bit set.
struct Places {
    words: [u64; Self::INLINE],
    more: Vec<u64>,
}

impl Places {
    /// Paths up to 511 bytes need no allocation.
    const INLINE: usize = 8;

    fn new(length: usize) -> Self {
        let words = length / 64 + 1;
        let more = if words > Self::INLINE {
            vec![0; words]
        } else {
            Vec::new()
        };
        Self {
            words: [0; Self::INLINE],
            more,
        }
    }

    fn words(&self) -> &[u64] {
        if self.more.is_empty() {
            &self.words
        } else {
            &self.more
        }
    }

    fn add(&mut self, at: usize) {
        let words = if self.more.is_empty() {
            &mut self.words[..]
        } else {
            &mut self.more
        };
        words[at / 64] |= 1 << (at % 64);
    }

    fn contains(&self, at: usize) -> bool {
        self.words()[at / 64] & (1 << (at % 64)) != 0
    }

    /// The first place at or after `from`.
    fn next(&self, from: usize) -> Option<usize> {
        let words = self.words();
        let mut word = from / 64;
        let mut bits = *words.get(word)? & (!0 << (from % 64));
        while bits == 0 {
            word += 1;
            bits = *words.get(word)?;
        }
        Some(word * 64 + bits.trailing_zeros() as usize)
    }
}

/// Runs tokens over a path: (does it match, may a longer path that begins so match).
///
/// An expression holds [`Token::Start`] for every `^` in it: the match is of the whole path anyhow.
pub fn run(tokens: &[Token], path: &[u8]) -> (bool, bool) {
    let mut places = Places::new(path.len());
    places.add(0);
    let mut longer = false;
    for token in tokens {
        if places.contains(path.len()) || matches!(token, Token::All | Token::Rest) {
            longer = true;
        }
        let mut after = Places::new(path.len());
        let mut from = 0;
        while let Some(at) = places.next(from) {
            if at > path.len() {
                break;
            }
            from = step(token, path, at, &mut after, &mut longer);
        }
        places = after;
    }
    (places.contains(path.len()), longer)
}

/// Adds where a token may lead from `at`; returns from where on to go on looking for places.
fn step(token: &Token, path: &[u8], at: usize, after: &mut Places, longer: &mut bool) -> usize {
    let rest = &path[at..];
    match token {
        Token::Start => {
            if at == 0 {
                after.add(0);
            }
        }
        Token::Literal(text) => {
            if rest.starts_with(text) {
                after.add(at + text.len());
            } else if text.starts_with(rest) {
                *longer = true;
            }
        }
        Token::One | Token::Class(_) | Token::Maybe(_) => {
            if matches!(token, Token::Maybe(_)) {
                after.add(at);
            }
            if let Some((c, length)) = first_char(rest) {
                let fits = match token {
                    Token::Class(class) | Token::Maybe(class) => class.contains(c),
                    _ => c != '/',
                };
                if fits {
                    after.add(at + length);
                }
            }
        }
        Token::Star => {
            let stop = rest.iter().position(|&byte| byte == b'/');
            let end = at + stop.unwrap_or(rest.len());
            (at..=end).for_each(|place| after.add(place));
            *longer |= end == path.len();
            // Every place up to the slash leads to no more than this one did.
            return end + 1;
        }
        Token::Many(class) => {
            let mut place = at;
            after.add(place);
            while let Some((c, length)) = first_char(&path[place..]) {
                if !class.contains(c) {
                    break;
                }
                place += length;
                after.add(place);
            }
            *longer |= place == path.len();
        }
        Token::Folders => {
            after.add(at);
            let end = at + line_end(rest);
            let slashes = (at..end).filter(|&place| path[place] == b'/');
            slashes.for_each(|place| after.add(place + 1));
            *longer |= end == path.len();
        }
        Token::Rest => {
            (at..=path.len()).for_each(|place| after.add(place));
            return path.len() + 1;
        }
        Token::All => {
            let end = at + line_end(rest);
            (at..=end).for_each(|place| after.add(place));
            return end + 1;
        }
    }
    at + 1
}

fn line_end(rest: &[u8]) -> usize {
    let end = rest.iter().position(|&byte| byte == b'\n');
    end.unwrap_or(rest.len())
}

/// One component of a source pattern. Source: Go `path/filepath`, `Match`.
#[derive(Debug)]
pub struct Glob {
    tokens: Vec<Token>,
}

impl Glob {
    /// Compiles one component; a bad pattern is an error that names it.
    pub fn new(component: &str) -> Result<Self> {
        let bad = |reason: &str| Error::Copy {
            path: component.to_owned(),
            reason: reason.to_owned(),
            not_found: false,
        };
        let mut tokens = Vec::new();
        let mut rest = component.chars().peekable();
        while let Some(c) = rest.next() {
            let parsed = match c {
                '*' => Some(Token::Star),
                '?' => Some(Token::One),
                '[' => Some(Token::Class(Class::of_glob(&mut rest).ok_or_else(
                    || bad("not a valid pattern: a class in brackets has no end, or no members"),
                )?)),
                '\\' => {
                    let next = rest.next();
                    literal(
                        &mut tokens,
                        next.ok_or_else(|| bad("not a valid pattern: it ends in a backslash"))?,
                    );
                    None
                }
                other => {
                    literal(&mut tokens, other);
                    None
                }
            };
            tokens.extend(parsed);
        }
        Ok(Self { tokens })
    }

    /// The name that this component stands for, where it has no wildcard.
    pub fn plain(&self) -> Option<&[u8]> {
        match self.tokens.as_slice() {
            [Token::Literal(name)] => Some(name),
            _ => None,
        }
    }

    /// Does the name match?
    pub fn matches(&self, name: &[u8]) -> bool {
        run(&self.tokens, name).0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn globs_match_one_component() {
        let matches = |glob: &str, name: &str| Glob::new(glob).unwrap().matches(name.as_bytes());
        assert!(matches("*.txt", "a.txt"));
        assert!(!matches("*.txt", "a.txt.bak"));
        assert!(matches("[[]x", "[x"));
        assert!(matches("a\\*", "a*"));
        assert!(matches("**", "anything"));
        assert!(!matches("?", "\u{e9}x"));
        assert!(matches("?x", "\u{e9}x"));
        assert_eq!(Glob::new("a\\[").unwrap().plain(), Some(&b"a["[..]));
        assert!(Glob::new("a?").unwrap().plain().is_none());
        for bad in ["[", "[]", "[-x]", "a\\", "[a-]", "[^]"] {
            assert!(Glob::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn expressions_match_whole_paths() {
        let matches = |expression: &str, path: &str| {
            let tokens = Tokens::parse(expression).unwrap();
            let mut branches = tokens.branches().iter();
            branches.any(|branch| run(branch, path.as_bytes()).0)
        };
        assert!(matches(r"(.*/)?[^/]*\.go", "a/b/c.go"));
        assert!(!matches(r"(.*/)?[^/]*\.go", "a\n/c.go"));
        assert!(matches(r"[[:alpha:]_]\d", "x7"));
        assert!(matches(r"[[:^alpha:]]", "7"));
        assert!(!matches(r"[^\W]", "-"));
        assert!(matches(r"[\D]", "\u{10ffff}"));
        assert!(matches("[[^/]*]", "[^/[]"));
        assert!(matches("^a.*", "abc"));
        assert!(!matches("a^b", "ab"));
        assert!(matches("a|b|c", "xbx") && matches("a|b|c", "ax") && matches("a|b|c", "xc"));
        assert!(!matches("a|b|c", "xax") && !matches("a|b|c", "cx"));
        assert!(matches(r"xa{2}[bc]{1,2}\d{0,}", "xaabc77") && !matches("xa{2}", "xa"));
        assert!(matches("{{x}}{a}{,2}", "{{x}}{a}{,2}"));
        for bad in [
            "{2}",
            "a{2}{3}",
            "[^/]*{2}",
            "a{3,2}",
            "a{1001}",
            "a|{2}",
            "[z-a]",
            r"\b",
            r"\pL",
            r"\q",
            "[[:none:]]",
            r"[a-\d]",
            "(",
        ] {
            assert!(Tokens::parse(bad).is_none(), "{bad}");
        }
    }
}
