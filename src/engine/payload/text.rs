//! Texts with `${{ }}` in them.

use serde_json::Value;

use crate::engine::expr::{EvalError, Expression, Scope, limits::Code};

/// What opens an expression in a text.
pub const OPEN: &str = "${{";

/// A piece of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Stands for itself.
    Literal(&'a str),
    /// The inside of `${{ }}`.
    Expression(&'a str),
}

/// Splits a text at its expressions. `}}` inside a string literal or between braces of the expression closes nothing.
/// The error says what is wrong.
pub fn split(text: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((literal, tail)) = rest.split_once(OPEN) {
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        let end = end_of_expression(tail).ok_or_else(|| "`${{` is not closed by `}}`".to_owned())?;
        let inside = tail.get(..end).unwrap_or_default();
        if inside.trim().is_empty() {
            return Err("`${{ }}` is empty: put an expression in it".to_owned());
        }
        pieces.push(Piece::Expression(inside));
        rest = tail.get(end + 2..).unwrap_or_default();
    }
    if !rest.is_empty() {
        pieces.push(Piece::Literal(rest));
    }
    Ok(pieces)
}

fn end_of_expression(text: &str) -> Option<usize> {
    let mut open = 0_usize;
    for (place, byte) in Code::new(text) {
        match byte {
            b'{' => open += 1,
            b'}' if open > 0 => open -= 1,
            b'}' if text.as_bytes().get(place + 1) == Some(&b'}') => return Some(place),
            _ => {}
        }
    }
    None
}

/// A text with its expressions compiled.
#[derive(Clone, Debug)]
pub struct Text(pub Vec<Part>);

/// A part of a [`Text`].
#[derive(Clone, Debug)]
pub enum Part {
    /// Stands for itself.
    Literal(Box<str>),
    /// Replaced by its value.
    Expression(Expression),
}

impl Text {
    /// The expressions in it.
    pub fn expressions(&self) -> impl Iterator<Item = &Expression> {
        self.0.iter().filter_map(|part| match part {
            Part::Expression(expression) => Some(expression),
            Part::Literal(_) => None,
        })
    }

    /// The text with every expression replaced by its value as text. With `double_dollars`, each `$` of a value is
    /// doubled: Kubernetes reads `$$` in an env value as one `$`, and never looks inside.
    pub fn render(&self, scope: &Scope<'_>, double_dollars: bool) -> Result<String, EvalError> {
        let mut rendered = String::new();
        for part in &self.0 {
            match part {
                Part::Literal(text) => rendered.push_str(text),
                Part::Expression(expression) => {
                    let value = as_text(expression.eval(scope)?);
                    if double_dollars {
                        rendered.push_str(&value.replace('$', "$$"));
                    } else {
                        rendered.push_str(&value);
                    }
                }
            }
        }
        Ok(rendered)
    }

    /// Its value: that of its expression with its own JSON type if there is nothing else, a text otherwise.
    pub fn value(&self, scope: &Scope<'_>) -> Result<Value, EvalError> {
        match self.0.as_slice() {
            [Part::Expression(expression)] => expression.eval(scope),
            _ => self.render(scope, false).map(Value::String),
        }
    }
}

/// Strings as they are, all else as JSON.
fn as_text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits() {
        use Piece::{Expression as E, Literal as L};
        for (text, pieces) in [
            ("", vec![]),
            ("plain $ { }} $x", vec![L("plain $ { }} $x")]),
            ("${{ a }}", vec![E(" a ")]),
            ("x${{a}}y${{b}}", vec![L("x"), E("a"), L("y"), E("b")]),
            ("${{ {'a': {'b': 1}} }}", vec![E(" {'a': {'b': 1}} ")]),
            ("${{ '}}' }}", vec![E(" '}}' ")]),
            (r"${{ 'it\'s }}' }}", vec![E(r" 'it\'s }}' ")]),
            ("ä${{ 'ö' }}ü", vec![L("ä"), E(" 'ö' "), L("ü")]),
            ("${{ a }}}", vec![E(" a "), L("}")]),
            ("${{ \"${{\" }}", vec![E(" \"${{\" ")]),
        ] {
            assert_eq!(split(text).unwrap(), pieces, "{text}");
        }
    }

    #[test]
    fn refuses_what_does_not_close() {
        for text in ["${{", "${{ a", "${{ a }", "${{ 'a }}", "${{ {'a': 1 }}", "${{ a }} ${{"] {
            assert!(split(text).unwrap_err().contains("not closed"), "{text}");
        }
        for text in ["${{}}", "${{  }}", "a ${{\n}} b"] {
            assert!(split(text).unwrap_err().contains("empty"), "{text}");
        }
    }
}
