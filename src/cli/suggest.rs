//! Words for messages: what is near, and what was written.

use crate::{cli::text, engine::validate::suggest};

/// The longest piece of what was written that a message repeats, in characters.
const MAX_QUOTED: usize = 64;

/// ` (did you mean "x"?)`, or nothing where nothing is near.
pub fn did_you_mean<'a>(written: &str, known: impl Iterator<Item = &'a str>) -> String {
    suggest(written, known).unwrap_or_default()
}

/// What was written, in quotes, without what would disturb a terminal, and cut where it is long.
pub fn quoted(written: &str) -> String {
    let shown: String = written.chars().take(MAX_QUOTED).collect();
    let more = if shown.len() < written.len() { "…" } else { "" };
    format!("\"{}{more}\"", text::one_line(&shown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_only_what_is_near() {
        let known = ["dependsOn", "trigger", "when", "name"];
        for (written, hint) in [
            ("dependson", " (did you mean \"dependsOn\"?)"),
            ("depends_on", " (did you mean \"dependsOn\"?)"),
            ("nmae", " (did you mean \"name\"?)"),
            ("tirgger", " (did you mean \"trigger\"?)"),
            ("image", ""),
            ("", ""),
        ] {
            assert_eq!(did_you_mean(written, known.into_iter()), hint, "{written}");
        }
    }

    #[test]
    fn quotes_safely() {
        assert_eq!(quoted("a\u{1b}[31mb\nc"), "\"a�[31mb c\"");
        assert_eq!(quoted(&"ü".repeat(100)), format!("\"{}…\"", "ü".repeat(64)));
    }
}
