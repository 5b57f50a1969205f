//! Bounds that hold for every expression before a parser sees it.
//!
//! The parser and the interpreter recurse over what users write, and neither has limits of its own that are
//! tight enough. These are: no text within them comes near the end of a stack.

/// The longest expression, in bytes.
pub const MAX_LENGTH: usize = 2048;
/// How deep brackets may nest.
pub const MAX_NESTING: usize = 24;
/// How many operators one expression may have.
pub const MAX_OPERATORS: usize = 200;
/// How many selections (`.`), indexes and calls one expression may have.
pub const MAX_SELECTIONS: usize = 300;

/// Says what makes `text` too big to be looked at, as a sentence for people.
pub fn check(text: &str) -> Result<(), String> {
    if text.trim().is_empty() {
        return Err("the expression is empty".to_owned());
    }
    if text.len() > MAX_LENGTH {
        return Err(format!("the expression has {} bytes; the limit is {MAX_LENGTH}", text.len()));
    }
    let (mut nesting, mut operators, mut selections) = (0_usize, 0, 0);
    let mut previous = None;
    for (place, byte) in Code::new(text) {
        match byte {
            b'(' | b'[' | b'{' => {
                nesting += 1;
                selections += 1;
            }
            b')' | b']' | b'}' => nesting = nesting.saturating_sub(1),
            b'.' => selections += 1,
            // the second half of <=, >=, != was counted with the first; &&, || and == count once
            b'=' | b'&' | b'|'
                if previous.is_some_and(|(at, before)| at + 1 == place && b"<>!=&|".contains(&before)) => {}
            b'+' | b'-' | b'*' | b'/' | b'%' | b'<' | b'>' | b'!' | b'?' | b'=' | b'&' | b'|' => operators += 1,
            _ => {}
        }
        if nesting > MAX_NESTING {
            return Err(format!("the expression nests more than {MAX_NESTING} deep"));
        }
        previous = Some((place, byte));
    }
    if operators > MAX_OPERATORS {
        return Err(format!("the expression has {operators} operators; the limit is {MAX_OPERATORS}"));
    }
    if selections > MAX_SELECTIONS {
        return Err(format!(
            "the expression has {selections} selections, indexes and calls; the limit is {MAX_SELECTIONS}"
        ));
    }
    Ok(())
}

/// The bytes of a CEL text that stand outside of its string literals, with their places.
///
/// Literals are `'…'`, `"…"` and both tripled; a backslash guards the next byte unless the prefix has an `r`.
/// A literal that never ends takes all that is left.
pub struct Code<'a> {
    text: &'a [u8],
    place: usize,
}

impl<'a> Code<'a> {
    /// The code of `text`.
    pub fn new(text: &'a str) -> Self {
        Self { text: text.as_bytes(), place: 0 }
    }

    /// Goes past the literal that opens at the current place with `quote`.
    fn skip_literal(&mut self, quote: u8) {
        let prefix = self.text.get(self.place.saturating_sub(2)..self.place).unwrap_or_default();
        let raw = prefix.iter().rev().take_while(|byte| b"rRbB".contains(byte)).any(|byte| b"rR".contains(byte));
        let tripled =
            self.text.get(self.place..self.place + 3).is_some_and(|three| three.iter().all(|byte| *byte == quote));
        let width = if tripled { 3 } else { 1 };
        self.place += width;
        while let Some(byte) = self.text.get(self.place) {
            if *byte == b'\\' && !raw {
                self.place += 2;
            } else if *byte == quote
                && (!tripled
                    || self
                        .text
                        .get(self.place..self.place + 3)
                        .is_some_and(|three| three.iter().all(|byte| *byte == quote)))
            {
                self.place += width;
                return;
            } else {
                self.place += 1;
            }
        }
        self.place = self.text.len();
    }
}

impl Iterator for Code<'_> {
    type Item = (usize, u8);

    fn next(&mut self) -> Option<(usize, u8)> {
        loop {
            let byte = *self.text.get(self.place)?;
            if byte == b'"' || byte == b'\'' {
                self.skip_literal(byte);
                continue;
            }
            self.place += 1;
            return Some((self.place - 1, byte));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_leaves_literals_out() {
        for (text, code) in [
            ("a + 'b + c' + d", "a +  + d"),
            (r"'it\'s' + x", " + x"),
            (r"r'\' + x", "r + x"),
            (r#""""a"b""" + x"#, " + x"),
            ("'open", ""),
            ("", ""),
        ] {
            let read: Vec<u8> = Code::new(text).map(|(_, byte)| byte).collect();
            assert_eq!(String::from_utf8(read).unwrap(), code, "{text}");
        }
    }

    #[test]
    fn bounds() {
        let nested = |depth: usize| format!("{}1{}", "(".repeat(depth), ")".repeat(depth));
        for (text, wrong) in [
            (nested(MAX_NESTING), None),
            (nested(MAX_NESTING + 1), Some("nests more than 24 deep")),
            (nested(1000), Some("nests more than 24 deep")),
            (nested(5000), Some("bytes; the limit is 2048")),
            (" ".to_owned(), Some("is empty")),
            (format!("1{}", "+1".repeat(200)), None),
            (format!("1{}", "+1".repeat(201)), Some("201 operators")),
            (format!("true{}", "&&true".repeat(200)), None),
            (format!("1{}", "<=1".repeat(200)), None),
            (format!("a{}", ".a".repeat(301)), Some("301 selections")),
            (format!("'{}'", "(".repeat(100)), None),
        ] {
            match (check(&text), wrong) {
                (Ok(()), None) => {}
                (Err(message), Some(wrong)) => assert!(message.contains(wrong), "{message}"),
                (result, _) => panic!("{text}: {result:?}"),
            }
        }
    }
}
