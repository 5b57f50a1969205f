//! JSON to CEL and back.

use std::collections::{BTreeMap, HashMap};

use cel::common::{
    types::{CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelOptional, CelString, CelUInt},
    value::Val,
};
use serde_json::{Map, Number, Value};

/// The CEL value of a JSON value. A number without fraction and exponent is an `int` (a `uint` beyond its range),
/// any other a `double`; all of them compare with each other by what they are worth.
pub fn to_cel(value: &Value) -> Box<dyn Val> {
    match value {
        Value::Null => Box::new(CelNull),
        Value::Bool(held) => Box::new(CelBool::from(*held)),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Box::new(CelInt::from(number)),
            (None, Some(number)) => Box::new(CelUInt::from(number)),
            (None, None) => Box::new(CelDouble::from(number.as_f64().unwrap_or(f64::NAN))),
        },
        Value::String(text) => Box::new(CelString::from(text.clone())),
        Value::Array(list) => Box::new(CelList::from(list.iter().map(to_cel).collect::<Vec<_>>())),
        Value::Object(object) => {
            let members: HashMap<CelMapKey<'static>, Box<dyn Val>> = object
                .iter()
                .map(|(name, value)| (CelMapKey::String(CelString::from(name.clone())), to_cel(value)))
                .collect();
            Box::new(CelMap::from(members))
        }
    }
}

/// The JSON value of a CEL value; members of objects in the order of their names, since CEL's maps have none.
pub fn to_json(value: &cel::Value) -> Result<Value, String> {
    use cel::Value as Cel;
    match value {
        Cel::Null => Ok(Value::Null),
        Cel::Bool(held) => Ok(Value::Bool(*held)),
        Cel::Int(number) => Ok((*number).into()),
        Cel::UInt(number) => Ok((*number).into()),
        Cel::Float(number) => {
            Number::from_f64(*number).map(Value::Number).ok_or_else(|| "the value is no finite number".to_owned())
        }
        Cel::String(text) => Ok(Value::String(text.to_string())),
        Cel::List(list) => list.iter().map(to_json).collect::<Result<_, _>>().map(Value::Array),
        Cel::Map(map) => {
            let mut members = BTreeMap::new();
            for (key, value) in map.map.iter() {
                members.insert(key.to_string(), to_json(value)?);
            }
            Ok(Value::Object(Map::from_iter(members)))
        }
        other => match <&cel::objects::OptionalValue>::try_from(other) {
            Ok(_) => Err("the value is optional: add .orValue(...) to say what it is when it is absent".to_owned()),
            Err(_) => Err(format!("a value of type {} has no place in JSON", other.type_of())),
        },
    }
}

/// The name that a map's key has in JSON.
pub fn key_text(key: &CelMapKey<'_>) -> String {
    match key {
        CelMapKey::Bool(held) => held.inner().to_string(),
        CelMapKey::Int(number) => number.inner().to_string(),
        CelMapKey::UInt(number) => number.inner().to_string(),
        CelMapKey::String(text) => text.inner().to_owned(),
    }
}

/// Bytes of text that weigh as much as one value.
const BYTES_A_UNIT: usize = 16;

fn weight_of_text(text: &str) -> u64 {
    1 + (text.len() / BYTES_A_UNIT) as u64
}

/// What it costs to copy or compare a JSON value.
pub fn weight_of_json(value: &Value) -> u64 {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 1,
        Value::String(text) => weight_of_text(text),
        Value::Array(list) => list.iter().fold(1, |sum, value| sum + weight_of_json(value)),
        Value::Object(object) => {
            object.iter().fold(1, |sum, (name, value)| sum + weight_of_text(name) + weight_of_json(value))
        }
    }
}

/// What it costs to copy or compare a CEL value.
pub fn weight(value: &dyn Val) -> u64 {
    if let Some(text) = value.downcast_ref::<CelString>() {
        weight_of_text(text.inner())
    } else if let Some(bytes) = value.downcast_ref::<cel::common::types::CelBytes>() {
        1 + (bytes.inner().len() / BYTES_A_UNIT) as u64
    } else if let Some(list) = value.downcast_ref::<CelList>() {
        list.inner().iter().fold(1, |sum, element| sum + weight(element.as_ref()))
    } else if let Some(map) = value.downcast_ref::<CelMap>() {
        map.inner().iter().fold(1, |sum, (key, value)| sum + weight_of_text(&key_text(key)) + weight(value.as_ref()))
    } else if let Some(value) = value.downcast_ref::<CelOptional>().and_then(CelOptional::option) {
        1 + weight(value)
    } else {
        1
    }
}

/// A value in a few words.
pub fn describe(value: &Value) -> String {
    let kind = match value {
        Value::Null => return "null".to_owned(),
        Value::Bool(held) => return held.to_string(),
        Value::Number(number) => return format!("the number {number}"),
        Value::String(text) => return format!("the text {:?}", cut(text, 60)),
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    kind.to_owned()
}

/// `text`, cut after about `limit` bytes.
pub fn cut(text: &str, limit: usize) -> std::borrow::Cow<'_, str> {
    if text.len() <= limit {
        return text.into();
    }
    format!("{}…", &text[..text.floor_char_boundary(limit)]).into()
}
