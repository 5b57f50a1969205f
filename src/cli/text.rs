//! Text in a terminal: how wide it is, how to cut and wrap it, and what of it must not get there.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Columns that a text takes.
pub fn width(text: &str) -> usize {
    text.width()
}

/// The text on one line: whitespace of any kind is one space, and characters that would move the
/// cursor, colour the rest or turn its direction are replaced.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    let mut space = false;
    for c in text.trim().chars() {
        if c.is_whitespace() {
            space = true;
            continue;
        }
        if std::mem::take(&mut space) {
            line.push(' ');
        }
        line.push(if is_harmful(c) { char::REPLACEMENT_CHARACTER } else { c });
    }
    line
}

/// Control characters, and those that reorder text.
fn is_harmful(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text in at most `columns` columns, with `…` at its end where something was cut.
pub fn cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut shown = take_columns(text, columns.saturating_sub(1)).trim_end().to_owned();
    if columns > 0 {
        shown.push('…');
    }
    shown
}

/// As much of the beginning as fits into `columns`.
fn take_columns(text: &str, columns: usize) -> &str {
    let mut used = 0;
    let end = text.char_indices().find(|(_, c)| {
        used += c.width().unwrap_or(0);
        used > columns
    });
    end.map_or(text, |(end, _)| &text[..end])
}

/// Spaces that fill a text up to `columns`.
pub fn padding(text: &str, columns: usize) -> String {
    " ".repeat(columns.saturating_sub(width(text)))
}

/// The text in lines of at most `columns` columns, broken at spaces where there are some; at most
/// `lines` of them, the last cut.
pub fn wrap(text: &str, columns: usize, lines: usize) -> Vec<String> {
    let columns = columns.max(1);
    let mut wrapped = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        if wrapped.len() + 1 >= lines || width(rest) <= columns {
            wrapped.push(cut(rest, columns));
            break;
        }
        let mut piece = take_columns(rest, columns);
        let ends_with_word = rest[piece.len()..].starts_with(' ');
        if !ends_with_word && let Some(space) = piece.rfind(' ').filter(|space| *space > piece.len() / 3) {
            piece = &piece[..space];
        }
        if piece.is_empty() {
            // a character wider than the line
            let first = rest.chars().next().map_or(rest.len(), char::len_utf8);
            piece = &rest[..first];
        }
        wrapped.push(piece.trim_end().to_owned());
        rest = rest[piece.len()..].trim_start();
    }
    wrapped
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cuts_and_wraps() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdef", 5), "abcd…");
        assert_eq!(cut("データ処理", 5), "デー…");
        assert_eq!(cut("a", 0), "");
        assert_eq!(wrap("the quick brown fox", 10, 5), ["the quick", "brown fox"]);
        assert_eq!(wrap("the quick brown fox jumps", 10, 2), ["the quick", "brown fox…"]);
        assert_eq!(wrap("abcdefghij", 4, 9), ["abcd", "efgh", "ij"]);
        assert_eq!(wrap("データ", 1, 9), ["デ", "ー", "タ"]);
        assert!(wrap("", 10, 3).is_empty());
    }

    #[test]
    fn lets_nothing_harmful_through() {
        assert_eq!(one_line(" a\t\n b\u{1b}[31m\u{202e}c\u{7}\r\n"), "a b�[31m�c�");
    }

    proptest! {
        #[test]
        fn never_wider_than_asked(text in "\\PC{0,60}", columns in 2..30_usize, lines in 1..6_usize) {
            prop_assert!(width(&cut(&text, columns)) <= columns);
            let wrapped = wrap(&text, columns, lines);
            prop_assert!(wrapped.len() <= lines);
            for line in &wrapped {
                prop_assert!(width(line) <= columns, "{line:?}");
            }
        }
    }
}
