//! JSON as the API server writes it itself.
//!
//! The data of a `ControllerRevision` can never be changed, and the API server compares bytes. Every patch of its metadata
//! has it read and write the data anew: sorted, and with Go's spelling of numbers and characters. Data that were stored in
//! another spelling would then count as changed, and the patch be refused: the garbage collector could not let go of the
//! revision of a graph that is deleted with `--cascade=orphan`, and the graph would stay for ever.

use std::fmt::Write as _;

use std::collections::BTreeMap;

use serde_json::{Number, Value};

/// Whole numbers up to this are exact in a float.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// A value, spelled as Go's `encoding/json` does.
///
/// # Errors
///
/// As serde's: never for a value.
pub fn bytes(value: &Value) -> serde_json::Result<Vec<u8>> {
    let text = serde_json::to_string(&normal(value))?;
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            // they stand only inside texts
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                // writing to a text does not fail
                let _ = write!(escaped, "\\u{:04x}", u32::from(character));
            }
            _ => escaped.push(character),
        }
    }
    Ok(escaped.into_bytes())
}

/// With members in order, and without fractions that are none.
fn normal(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let sorted: BTreeMap<_, _> = members.iter().map(|(key, value)| (key, normal(value))).collect();
            sorted.into_iter().map(|(key, value)| (key.clone(), value)).collect()
        }
        Value::Array(items) => items.iter().map(normal).collect(),
        Value::Number(number) => Value::Number(whole(number).unwrap_or_else(|| number.clone())),
        other => other.clone(),
    }
}

fn whole(number: &Number) -> Option<Number> {
    let float = number.as_f64().filter(|float| number.is_f64() && float.fract() == 0.0 && float.abs() <= EXACT)?;
    #[expect(clippy::cast_possible_truncation, reason = "checked: whole, and small enough")]
    Some((float as i64).into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn spelled_as_go_does() {
        for (value, expected) in [
            (json!({"b": 1, "a": {"d": [], "c": null}}), r#"{"a":{"c":null,"d":[]},"b":1}"#),
            (
                json!([2.0, 2.5, -3.0, 0.0, 1e15, 18_446_744_073_709_551_615_u64]),
                "[2,2.5,-3,0,1000000000000000,18446744073709551615]",
            ),
            (json!("a<b>&\u{2028}\u{2029}\"\\\n\u{e9}"), "\"a\\u003cb\\u003e\\u0026\\u2028\\u2029\\\"\\\\\\n\u{e9}\""),
            (json!({"<": true}), r#"{"\u003c":true}"#),
        ] {
            let text = String::from_utf8(bytes(&value).unwrap()).unwrap();
            assert_eq!(text, expected);
            let again: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(bytes(&again).unwrap(), text.as_bytes(), "the second time nothing changes");
        }
    }
}
