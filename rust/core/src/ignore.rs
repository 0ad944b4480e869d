//! [`Ignore`]: the matcher of `.dockerignore`, of `--exclude`, and of what `--parents` takes.
//!
//! `select` compiles one of each per COPY and asks for every name of a walk, folder by folder.
//! The last pattern that matches a path or one of its parents decides, so a folder's [`Matched`]
//! is a number, the last pattern that has matched so far, and the later ones that may still match
//! below: in most folders few are left, and where none is, nothing is asked. Most of those are
//! settled by a comparison of bytes. Nothing here touches a disk.
//!
//! Patterns are rooted; `*` and `?` stop at `/`, `**` does not. What a pattern means is defined by
//! its translation to a regular expression, odd corners included (`[*]` is no star, `\d` is a
//! digit), so it is translated in the same way here.
//! Source: Dockerfile reference, ".dockerignore file"; github.com/moby/patternmatcher.

use crate::glob::{run, Glob, Token, Tokens};
use crate::{Error, Result};

/// Compiled patterns, in their order.
#[derive(Debug, Default)]
pub struct Ignore {
    patterns: Vec<Pattern>,
}

/// What is known in a folder of a walk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Matched {
    /// The last pattern that matched the folder or one of its parents.
    last: Option<usize>,
    /// Later patterns that may match something below, in their order.
    live: Vec<usize>,
    /// Slashes in the path of a name in this folder.
    depth: usize,
}

#[derive(Debug)]
struct Pattern {
    /// Position among the lines that the caller gave.
    line: usize,
    exception: bool,
    matcher: Matcher,
}

#[derive(Debug)]
enum Matcher {
    /// No wildcard at all.
    Exact(Vec<u8>),
    /// Ends in `**` and has no other wildcard: whatever begins so.
    Prefix(Vec<u8>),
    /// Begins with `**` and has no other wildcard: whatever ends so.
    Suffix(Vec<u8>),
    /// Expressions over the whole path: one that matches is enough.
    Path(Vec<Expression>),
    /// `**/` and an expression over the path's last name.
    Name(Expression),
}

/// An expression, and what is cheap to ask before it is run.
#[derive(Debug)]
struct Expression {
    tokens: Vec<Token>,
    begins: Vec<u8>,
    ends: Vec<u8>,
    /// How many slashes a match has, where that is certain.
    slashes: Option<usize>,
    /// One star and bytes around it: what is cheap to ask tells all.
    one_star: bool,
}

impl Ignore {
    /// Compiles the lines of an ignore file; comments and blank lines were removed.
    ///
    /// A line that is not a valid pattern is an error that names it.
    pub fn new<S: AsRef<[u8]>>(lines: impl IntoIterator<Item = S>) -> Result<Self> {
        let mut patterns = Vec::new();
        for (line, text) in lines.into_iter().enumerate() {
            patterns.extend(Pattern::parse(line, text.as_ref())?);
        }
        Ok(Self { patterns })
    }

    /// Compiles one path with wildcards that names what is taken: `!` and blanks are ordinary.
    pub fn of_path(path: &str) -> Result<Self> {
        let pattern = Pattern {
            line: 0,
            exception: false,
            matcher: Matcher::compile(path.as_bytes()).ok_or_else(|| bad(path, INVALID))?,
        };
        Ok(Self {
            patterns: vec![pattern],
        })
    }

    /// True where there is nothing to ask.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// What is known at the top of a tree.
    pub fn top(&self) -> Matched {
        Matched {
            last: None,
            live: (0..self.patterns.len()).collect(),
            depth: 0,
        }
    }

    /// The pattern that decides about `path` (relative, no trailing slash), a name in the folder
    /// that `parent` was made for.
    pub fn decide(&self, path: &[u8], parent: &Matched) -> Option<usize> {
        let own = parent.live.iter().rev().copied().find(|&index| {
            let matcher = &self.patterns[index].matcher;
            matcher.matches(path, parent.depth)
        });
        own.or(parent.last)
    }

    /// What is known inside the folder `path` in `parent`, about which the pattern `decided`.
    pub fn enter(&self, path: &[u8], parent: &Matched, decided: Option<usize>) -> Matched {
        let below = [path, b"/"].concat();
        let later = parent.live.iter().copied().filter(|&index| {
            decided.is_none_or(|last| index > last)
                && self.patterns[index].matcher.may_match_below(&below)
        });
        Matched {
            last: decided,
            live: later.collect(),
            depth: parent.depth + 1,
        }
    }

    /// Does it take a path out (or, of `of_path`, in) that this pattern decides about?
    pub fn takes(&self, decided: Option<usize>) -> bool {
        decided.is_some_and(|index| !self.patterns[index].exception)
    }

    /// Is the path out that [`Ignore::walk_to`] or [`Ignore::enter`] went to?
    pub fn is_out(&self, known: &Matched) -> bool {
        self.takes(known.last)
    }

    /// Can anything below the folder be brought back by a `!` pattern?
    pub fn may_return(&self, folder: &Matched) -> bool {
        let mut live = folder.live.iter();
        live.any(|&index| self.patterns[index].exception)
    }

    /// Can anything below the folder be taken?
    pub fn may_take(&self, folder: &Matched) -> bool {
        self.is_out(folder) || !folder.live.is_empty()
    }

    /// Judges one path with all its parents: for names that no walk leads to.
    pub fn excludes(&self, path: &[u8]) -> bool {
        self.is_out(&self.walk_to(path))
    }

    /// Position, among the lines given, of the pattern that takes `path` out; None where none does.
    pub fn excluding_line(&self, path: &[u8]) -> Option<usize> {
        let decided = self.walk_to(path).last;
        let pattern = &self.patterns[decided?];
        (!pattern.exception).then_some(pattern.line)
    }

    /// Judges one path with all its parents, as if it were a folder, to walk on below it.
    pub fn walk_to(&self, path: &[u8]) -> Matched {
        let mut known = self.top();
        if self.is_empty() || path.is_empty() {
            return known;
        }
        let ends = path.iter().enumerate().filter(|(_, &byte)| byte == b'/');
        for end in ends.map(|(at, _)| at).chain([path.len()]) {
            let decided = self.decide(&path[..end], &known);
            known = self.enter(&path[..end], &known, decided);
        }
        known
    }
}

impl Pattern {
    fn parse(line: usize, text: &[u8]) -> Result<Option<Self>> {
        let shown = || String::from_utf8_lossy(text).into_owned();
        let trimmed = text.trim_ascii();
        let (exception, body) = match trimmed.strip_prefix(b"!") {
            Some(body) => (true, body.trim_ascii()),
            None => (false, trimmed),
        };
        if body.is_empty() && !exception {
            return Ok(None);
        }
        let cleaned = clean(body);
        if exception && (body.is_empty() || cleaned == b"/") {
            return Err(bad(&shown(), "nothing follows the `!`"));
        }
        let rooted = match cleaned.strip_prefix(b"/") {
            Some(rest) if !rest.is_empty() => rest,
            _ => &cleaned,
        };
        if exception {
            return Self::compiled(line, true, rooted, shown);
        }
        // The reference reads what is left once more, so that `/!x` is an exception, too.
        let cleaned = clean(rooted.trim_ascii());
        match cleaned.strip_prefix(b"!") {
            Some(b"") => Err(bad(&shown(), "nothing follows the `!`")),
            Some(rest) => Self::compiled(line, true, rest, shown),
            None if rooted.trim_ascii().is_empty() => Ok(None),
            None => Self::compiled(line, false, &cleaned, shown),
        }
    }

    fn compiled(
        line: usize,
        exception: bool,
        pattern: &[u8],
        shown: impl Fn() -> String,
    ) -> Result<Option<Self>> {
        Ok(Some(Self {
            line,
            exception,
            matcher: Matcher::compile(pattern).ok_or_else(|| bad(&shown(), INVALID))?,
        }))
    }
}

const INVALID: &str = "not a valid pattern";

fn bad(pattern: &str, reason: &str) -> Error {
    Error::Copy {
        path: pattern.to_owned(),
        reason: reason.to_owned(),
        not_found: false,
    }
}

/// Go's `path.Clean`: no doubled slashes, no `.`, `..` taken back where it can be.
pub fn clean(path: &[u8]) -> Vec<u8> {
    let rooted = path.starts_with(b"/");
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if parts.last().is_some_and(|&last| last != b"..") => {
                parts.pop();
            }
            b".." if rooted => {}
            other => parts.push(other),
        }
    }
    let joined = parts.join(&b'/');
    match (rooted, joined.is_empty()) {
        (true, _) => [b"/", &joined[..]].concat(),
        (false, true) => b".".to_vec(),
        (false, false) => joined,
    }
}

impl Matcher {
    /// None for a pattern that `filepath.Match` or the expression's own grammar calls bad.
    ///
    /// The form is chosen as the reference chooses it: only a leading or only a closing `**`
    /// compares bytes (`**foo` matches `xfoo`, `foo**` matches `foo.c/x`), everything else is an
    /// expression in which `**` takes whole folders.
    fn compile(pattern: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(pattern);
        Glob::new(&text).ok()?;
        let (form, expression) = translate(&text);
        match form {
            Form::Exact => return Some(Self::Exact(pattern.to_vec())),
            Form::Prefix => return Some(Self::Prefix(pattern[..pattern.len() - 2].to_vec())),
            Form::Suffix => return Some(Self::Suffix(pattern[2..].to_vec())),
            Form::Expression => {}
        }
        let tokens = Tokens::parse(&expression)?;
        Some(match tokens.branches() {
            [one] => match one.as_slice() {
                [Token::Folders, rest @ ..]
                    if slashes(rest) == Some(0) && !rest.contains(&Token::Start) =>
                {
                    Self::Name(Expression::new(rest))
                }
                all => Self::Path(vec![Expression::new(all)]),
            },
            all => Self::Path(all.iter().map(|branch| Expression::new(branch)).collect()),
        })
    }

    fn matches(&self, path: &[u8], depth: usize) -> bool {
        match self {
            Self::Exact(name) => name == path,
            Self::Prefix(prefix) => path.starts_with(prefix),
            Self::Suffix(suffix) => {
                path.ends_with(suffix) || suffix.strip_prefix(b"/").is_some_and(|name| name == path)
            }
            Self::Path(branches) => branches.iter().any(|branch| branch.matches(path, depth)),
            Self::Name(expression) => {
                let slash = path.iter().rposition(|&byte| byte == b'/');
                let name = slash.map_or(0, |at| at + 1);
                expression.matches(&path[name..], 0) && !path[..name].contains(&b'\n')
            }
        }
    }

    /// May a path that begins with `below` (a folder and its slash) match? True where that is not
    /// ruled out.
    fn may_match_below(&self, below: &[u8]) -> bool {
        match self {
            Self::Exact(name) => name.starts_with(below),
            Self::Prefix(prefix) => prefix.starts_with(below) || below.starts_with(prefix),
            Self::Suffix(_) | Self::Name(_) => true,
            Self::Path(branches) => branches.iter().any(|branch| {
                let begins = &branch.begins;
                (begins.starts_with(below) || below.starts_with(begins))
                    && run(&branch.tokens, below).1
            }),
        }
    }
}

enum Form {
    Exact,
    Prefix,
    Suffix,
    Expression,
}

/// Writes a pattern as a regular expression, and says which form it has.
///
/// It works on characters, not on what they mean: wildcards within brackets are replaced, too, and
/// `|` and braces are left as they are.
fn translate(pattern: &str) -> (Form, String) {
    let mut expression = String::new();
    let mut form = Form::Exact;
    let mut rest = pattern.chars().peekable();
    let mut first = true;
    while let Some(c) = rest.next() {
        match c {
            '*' if rest.next_if_eq(&'*').is_some() => {
                rest.next_if_eq(&'/');
                let last = rest.peek().is_none();
                expression.push_str(if last { ".*" } else { "(.*/)?" });
                form = match form {
                    Form::Exact if last => Form::Prefix,
                    _ => Form::Expression,
                };
                if first {
                    form = Form::Suffix;
                }
            }
            '*' | '?' => {
                expression.push_str(if c == '*' { "[^/]*" } else { "[^/]" });
                form = Form::Expression;
            }
            '.' | '+' | '(' | ')' | '$' => expression.extend(['\\', c]),
            '\\' => {
                expression.push('\\');
                expression.extend(rest.next());
                form = Form::Expression;
            }
            '[' | ']' => {
                expression.push(c);
                form = Form::Expression;
            }
            other => expression.push(other),
        }
        first = false;
    }
    (form, expression)
}

/// How many slashes a match of the tokens has; None where that is open.
fn slashes(tokens: &[Token]) -> Option<usize> {
    tokens.iter().try_fold(0, |count, token| match token {
        Token::Literal(text) => Some(count + text.split(|&byte| byte == b'/').count() - 1),
        Token::One | Token::Star | Token::Start => Some(count),
        Token::Class(class) | Token::Many(class) | Token::Maybe(class) => {
            (!class.contains('/')).then_some(count)
        }
        Token::Folders | Token::All | Token::Rest => None,
    })
}

impl Expression {
    fn new(tokens: &[Token]) -> Self {
        let text = |token: Option<&Token>| match token {
            Some(Token::Literal(text)) => text.clone(),
            _ => Vec::new(),
        };
        Self {
            begins: text(tokens.first()),
            ends: text(tokens.last()),
            slashes: slashes(tokens),
            one_star: matches!(
                tokens,
                [Token::Star]
                    | [Token::Literal(_), Token::Star]
                    | [Token::Star, Token::Literal(_)]
                    | [Token::Literal(_), Token::Star, Token::Literal(_)]
            ),
            tokens: tokens.to_vec(),
        }
    }

    fn matches(&self, path: &[u8], depth: usize) -> bool {
        if self.slashes.is_some_and(|slashes| slashes != depth)
            || !path.ends_with(&self.ends)
            || !path.starts_with(&self.begins)
        {
            return false;
        }
        if self.one_star {
            return path.len() >= self.begins.len() + self.ends.len();
        }
        run(&self.tokens, path).0
    }
}

#[cfg(test)]
mod tests;
