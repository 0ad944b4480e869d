//! [`Ignore`]: the matcher of `.dockerignore` and `--exclude`; [`Glob`]: one component of a source.
//!
//! `select` compiles one of each per COPY and asks for every name of a walk, folder by folder: a
//! folder's [`Matched`] carries what its parents matched, so a name costs one test per pattern and
//! a pruned folder costs nothing below it. Patterns are rooted; `*` and `?` stop at `/`, `**` does
//! not; the last pattern that matches a path or one of its parents decides.
//! Nothing here touches a disk. Matching is linear in the path for every token, whatever the
//! pattern, so no pattern can make a walk hang.
//! Source: Dockerfile reference, ".dockerignore file"; Go `path/filepath`, `Match`.

use crate::{Error, Result};

/// Compiled ignore patterns, in their order.
#[derive(Debug, Default)]
pub struct Ignore {
    patterns: Vec<Pattern>,
    has_exceptions: bool,
}

/// Which patterns matched a folder or one of its parents.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Matched {
    bits: Vec<u64>,
}

#[derive(Debug)]
struct Pattern {
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
    Tokens(Vec<Token>),
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Literal(Vec<u8>),
    /// `?`: one character, no slash.
    One,
    /// `*`: any number of characters, no slash.
    Star,
    /// `**` and the slash after it: nothing, or anything that ends with a slash.
    Folders,
    /// `**` at the end: anything.
    All,
    Class(Class),
}

#[derive(Debug, PartialEq, Eq)]
struct Class {
    negated: bool,
    ranges: Vec<(char, char)>,
}

impl Ignore {
    /// Compiles the lines of an ignore file; comments and blank lines were removed.
    ///
    /// A line that is not a valid pattern is an error that names it.
    pub fn new<S: AsRef<str>>(lines: impl IntoIterator<Item = S>) -> Result<Self> {
        let mut patterns = Vec::new();
        for line in lines {
            if let Some(pattern) = Pattern::parse(line.as_ref())? {
                patterns.push(pattern);
            }
        }
        let has_exceptions = patterns.iter().any(|pattern| pattern.exception);
        Ok(Self {
            patterns,
            has_exceptions,
        })
    }

    /// True where there is nothing to ask.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Judges `path` (relative, no trailing slash), whose parent folder matched `parent`.
    ///
    /// Fills `own` with what the path and its parents matched, for the names below it.
    pub fn excludes_below(&self, path: &[u8], parent: &Matched, own: &mut Matched) -> bool {
        own.bits.clear();
        own.bits.resize(self.patterns.len().div_ceil(64), 0);
        let mut excluded = false;
        for (index, pattern) in self.patterns.iter().enumerate() {
            let (word, bit) = (index / 64, 1 << (index % 64));
            let inherited = parent.bits.get(word).is_some_and(|bits| bits & bit != 0);
            if inherited || pattern.matcher.matches(path) {
                own.bits[word] |= bit;
                excluded = !pattern.exception;
            }
        }
        excluded
    }

    /// Judges one path with all its parents: for names that no walk leads to.
    pub fn excludes(&self, path: &[u8]) -> bool {
        self.judge(path).0
    }

    /// Judges one path with all its parents, and tells what it matched, to walk on below it.
    pub fn judge(&self, path: &[u8]) -> (bool, Matched) {
        let (mut parent, mut own) = (Matched::default(), Matched::default());
        let mut excluded = false;
        if self.is_empty() || path.is_empty() {
            return (excluded, own);
        }
        let ends = path.iter().enumerate().filter(|(_, &byte)| byte == b'/');
        for end in ends.map(|(at, _)| at).chain([path.len()]) {
            excluded = self.excludes_below(&path[..end], &parent, &mut own);
            std::mem::swap(&mut parent, &mut own);
        }
        (excluded, parent)
    }

    /// Can a `!` pattern bring back anything below this excluded folder? Where not, a walk prunes.
    pub fn may_include_below(&self, folder: &[u8]) -> bool {
        self.has_exceptions
            && self
                .patterns
                .iter()
                .any(|pattern| pattern.exception && pattern.matcher.may_match_below(folder))
    }
}

impl Pattern {
    fn parse(line: &str) -> Result<Option<Self>> {
        let line = line.trim();
        let (exception, body) = match line.strip_prefix('!') {
            Some(body) => (true, body.trim()),
            None => (false, line),
        };
        if body.is_empty() {
            return if exception {
                Err(bad(line, "nothing follows the `!`"))
            } else {
                Ok(None)
            };
        }
        let cleaned = clean(body);
        let cleaned = match cleaned.strip_prefix('/') {
            Some(rest) if !rest.is_empty() => rest,
            _ => &cleaned,
        };
        Ok(Some(Self {
            exception,
            matcher: Matcher::compile(cleaned).ok_or_else(|| bad(line, "not a valid pattern"))?,
        }))
    }
}

fn bad(pattern: &str, reason: &str) -> Error {
    Error::Copy {
        path: pattern.to_owned(),
        reason: reason.to_owned(),
        not_found: false,
    }
}

/// Go's `path.Clean`: no doubled slashes, no `.`, `..` taken back where it can be.
pub fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|&last| last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            other => parts.push(other),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

impl Matcher {
    /// None for a pattern that `filepath.Match` calls bad.
    ///
    /// The form is chosen as docker's matcher chooses it: only a leading or only a closing `**`
    /// compares bytes (`**foo` matches `xfoo`, `foo**` matches `foo.c/x`), everything else is an
    /// expression in which `**` takes whole folders.
    fn compile(pattern: &str) -> Option<Self> {
        let mut tokens: Vec<Token> = Vec::new();
        let mut form = Form::Exact;
        let mut rest = pattern.chars().peekable();
        let mut first = true;
        while let Some(c) = rest.next() {
            match c {
                '*' if rest.next_if_eq(&'*').is_some() => {
                    rest.next_if_eq(&'/');
                    if rest.peek().is_some() {
                        tokens.push(Token::Folders);
                        form = Form::Expression;
                    } else {
                        tokens.push(Token::All);
                        form = match form {
                            Form::Exact => Form::Prefix,
                            _ => Form::Expression,
                        };
                    }
                    if first {
                        form = Form::Suffix;
                    }
                }
                '*' => {
                    tokens.push(Token::Star);
                    form = Form::Expression;
                }
                '?' => {
                    tokens.push(Token::One);
                    form = Form::Expression;
                }
                '[' => {
                    tokens.push(Token::Class(Class::parse(&mut rest)?));
                    form = Form::Expression;
                }
                '\\' => {
                    literal(&mut tokens, rest.next()?);
                    form = Form::Expression;
                }
                other => literal(&mut tokens, other),
            }
            first = false;
        }
        let bytes = pattern.as_bytes();
        Some(match form {
            Form::Exact => Self::Exact(bytes.to_vec()),
            Form::Prefix => Self::Prefix(bytes[..bytes.len() - 2].to_vec()),
            Form::Suffix => Self::Suffix(bytes[2..].to_vec()),
            Form::Expression => Self::Tokens(tokens),
        })
    }

    fn matches(&self, path: &[u8]) -> bool {
        match self {
            Self::Exact(name) => name == path,
            Self::Prefix(prefix) => path.starts_with(prefix),
            Self::Suffix(suffix) => {
                path.ends_with(suffix) || suffix.strip_prefix(b"/").is_some_and(|name| name == path)
            }
            Self::Tokens(tokens) => run(tokens, path).0,
        }
    }

    /// May a path that begins with `folder/` match? True where that is not ruled out.
    fn may_match_below(&self, folder: &[u8]) -> bool {
        let below = [folder, b"/"].concat();
        match self {
            Self::Exact(name) => name.starts_with(&below),
            Self::Prefix(prefix) => prefix.starts_with(&below) || below.starts_with(prefix),
            Self::Suffix(_) => true,
            Self::Tokens(tokens) => run(tokens, &below).1,
        }
    }
}

enum Form {
    Exact,
    Prefix,
    Suffix,
    Expression,
}

fn literal(tokens: &mut Vec<Token>, c: char) {
    let mut buffer = [0; 4];
    let bytes = c.encode_utf8(&mut buffer).as_bytes();
    match tokens.last_mut() {
        Some(Token::Literal(text)) => text.extend_from_slice(bytes),
        _ => tokens.push(Token::Literal(bytes.to_vec())),
    }
}

impl Class {
    /// Reads a class up to its `]`. Source: Go `filepath.Match`, "character-range".
    fn parse(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Self> {
        let negated = rest.next_if_eq(&'^').is_some();
        let mut ranges = Vec::new();
        loop {
            if !ranges.is_empty() && rest.next_if_eq(&']').is_some() {
                return Some(Self { negated, ranges });
            }
            let low = Self::member(rest)?;
            let high = match rest.next_if_eq(&'-') {
                Some(_) => Self::member(rest)?,
                None => low,
            };
            ranges.push((low, high));
        }
    }

    fn member(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<char> {
        match rest.next()? {
            '-' | ']' => None,
            '\\' => rest.next(),
            other => Some(other),
        }
    }

    fn contains(&self, c: char) -> bool {
        let inside = self.ranges.iter().any(|&(low, high)| low <= c && c <= high);
        inside != self.negated
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

/// Runs the tokens over a path: (does it match, may a longer path that begins so match).
fn run(tokens: &[Token], path: &[u8]) -> (bool, bool) {
    let mut places = Places::new(path.len());
    places.add(0);
    let mut longer = false;
    for token in tokens {
        if places.contains(path.len()) || matches!(token, Token::All) {
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
        Token::Literal(text) => {
            if rest.starts_with(text) {
                after.add(at + text.len());
            } else if text.starts_with(rest) {
                *longer = true;
            }
        }
        Token::One | Token::Class(_) => {
            if let Some((c, length)) = first_char(rest) {
                let fits = match token {
                    Token::Class(class) => class.contains(c),
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
        Token::Folders => {
            after.add(at);
            let slashes = (at..path.len()).filter(|&place| path[place] == b'/');
            slashes.for_each(|place| after.add(place + 1));
            *longer = true;
        }
        Token::All => {
            (at..=path.len()).for_each(|place| after.add(place));
            return path.len() + 1;
        }
    }
    at + 1
}

/// One component of a source pattern. Source: Go `path/filepath`, `Match`.
#[derive(Debug)]
pub struct Glob {
    tokens: Vec<Token>,
}

impl Glob {
    /// Compiles one component; a bad pattern is an error that names it.
    pub fn new(component: &str) -> Result<Self> {
        let mut tokens = Vec::new();
        let mut rest = component.chars().peekable();
        while let Some(c) = rest.next() {
            let parsed = match c {
                '*' => Some(Token::Star),
                '?' => Some(Token::One),
                '[' => Some(Token::Class(
                    Class::parse(&mut rest).ok_or_else(|| bad(component, "not a valid pattern"))?,
                )),
                '\\' => {
                    let next = rest.next();
                    literal(
                        &mut tokens,
                        next.ok_or_else(|| bad(component, "ends in a backslash"))?,
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
mod tests;
