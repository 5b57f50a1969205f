//! Reads JSON as a Rust type and reports everything that does not fit, each with its field path.
//!
//! A deserializer that does not stop at the first misfit: what is wrong is noted, a zero value put in
//! its place, and reading goes on. It knows the names of a struct's fields, since `serde`
//! tells them, and so finds unknown fields and suggests what may have been meant.

use std::{cell::RefCell, fmt};

use serde::{
    Deserialize,
    de::{self, DeserializeSeed, IntoDeserializer, Visitor, value::StrDeserializer},
    forward_to_deserialize_any,
};
use serde_json::{Map, Value};

use super::required;
use crate::engine::{Problem, validate::suggest};

/// Reads `value`, which stands at `path`, as a `T`. The result is `None` where no `T` could be made of it even
/// with zero values in place of what is wrong; then there is at least one problem.
pub fn read<'de, T: Deserialize<'de>>(value: &'de Value, path: &str) -> (Option<T>, Vec<Problem>) {
    let found = RefCell::new(Vec::new());
    let root = Path::Root(path);
    let result = T::deserialize(Reader { value, path: &root, found: &found });
    let result = result.map_err(|misfit| misfit.note(&root, &found)).ok();
    (result, found.into_inner())
}

/// Where a value stands.
enum Path<'a> {
    Root(&'a str),
    Field(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root(path) => f.write_str(path),
            Self::Field(parent, name) => f.write_str(&field_path(&parent.to_string(), name)),
            Self::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// The path of member `name` of the object at `parent`: `parent.name`, or `parent["a.b/c"]` where a name has other
/// characters than letters, digits, dashes and underscores.
pub fn field_path(parent: &str, name: &str) -> String {
    let plain =
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    match (plain, parent) {
        (true, "") => name.to_owned(),
        (true, _) => format!("{parent}.{name}"),
        (false, _) => format!("{parent}[{name:?}]"),
    }
}

/// An error that a type's own reading raised. Empty once it was noted.
#[derive(Debug)]
struct Misfit(String);

impl Misfit {
    const NOTED: Self = Self(String::new());

    fn note(self, path: &Path<'_>, found: &RefCell<Vec<Problem>>) -> Self {
        if !self.0.is_empty() {
            found.borrow_mut().push(Problem { path: path.to_string(), message: self.0 });
        }
        Self::NOTED
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Misfit {}

impl de::Error for Misfit {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }

    fn invalid_type(unexpected: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self(format!("expected {expected}, found {unexpected}"))
    }

    fn missing_field(field: &'static str) -> Self {
        Self(format!("{field} is required"))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let meant = suggest(variant, expected.iter().copied());
        Self(format!("{variant:?} is none of {}{}", expected.join(", "), meant.unwrap_or_default()))
    }
}

/// Reads one value.
struct Reader<'de, 'a> {
    value: &'de Value,
    path: &'a Path<'a>,
    found: &'a RefCell<Vec<Problem>>,
}

impl Reader<'_, '_> {
    fn note(&self, message: String) {
        self.found.borrow_mut().push(Problem { path: self.path.to_string(), message });
    }

    fn wrong(&self, expected: &str) {
        let hint = match self.value {
            Value::Number(_) | Value::Bool(_) if expected == "a text" => "; put it in quotes",
            Value::String(text) if text.contains("${{") => "; an expression gives a text, so it cannot stand here",
            _ => "",
        };
        self.note(format!("expected {expected}, found {}{hint}", describe(self.value)));
    }
}

/// A value in a few words.
fn describe(value: &Value) -> String {
    match value {
        Value::Null => "nothing (null)".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) if text.len() <= 40 => format!("the text {text:?}"),
        Value::String(_) => "a text".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

static NO_FIELDS: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);

macro_rules! integers {
    ($($method:ident $visit:ident $type:ty),*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
            let whole = self.value.as_i64().map(i128::from).or_else(|| self.value.as_u64().map(i128::from));
            let number = whole.and_then(|whole| <$type>::try_from(whole).ok());
            if number.is_none() {
                match whole {
                    Some(_) => self.note(format!("{} is out of range: {} to {}", self.value, <$type>::MIN, <$type>::MAX)),
                    None => self.wrong("a whole number"),
                }
            }
            visitor.$visit(number.unwrap_or_default())
        }
    )*};
}

impl<'de> de::Deserializer<'de> for Reader<'de, '_> {
    type Error = Misfit;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Array(_) => self.deserialize_seq(visitor),
            Value::Object(_) => self.deserialize_map(visitor),
            Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(number), ..) => visitor.visit_i64(number),
                (_, Some(number), _) => visitor.visit_u64(number),
                (.., number) => visitor.visit_f64(number.unwrap_or(f64::MAX)),
            },
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        if !self.value.is_boolean() {
            self.wrong("true or false");
        }
        visitor.visit_bool(self.value.as_bool().unwrap_or_default())
    }

    integers!(
        deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16, deserialize_i32 visit_i32 i32, deserialize_i64 visit_i64 i64,
        deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16, deserialize_u32 visit_u32 u32, deserialize_u64 visit_u64 u64
    );

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        if !self.value.is_number() {
            self.wrong("a number");
        }
        visitor.visit_f64(self.value.as_f64().unwrap_or_default())
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        if !self.value.is_string() {
            self.wrong("a text");
        }
        visitor.visit_borrowed_str(self.value.as_str().unwrap_or_default())
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        if self.value.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Misfit> {
        match (name, self.value) {
            ("Quantity", Value::String(text)) if !is_quantity(text) && !text.contains("${{") => {
                self.note(format!(
                    "{text:?} is no quantity; write a number with a unit, as in \"500m\", \"2\" or \"1Gi\""
                ));
            }
            ("Quantity", value) if !value.is_string() && !value.is_number() => {
                self.wrong("a quantity, as \"500m\", \"2\" or \"1Gi\"");
                return visitor.visit_borrowed_str("0");
            }
            _ => {}
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        if !self.value.is_array() {
            self.wrong("a list");
        }
        let items = self.value.as_array().map(Vec::as_slice).unwrap_or_default();
        visitor.visit_seq(Items { rest: items.iter().enumerate(), path: self.path, found: self.found })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        if !self.value.is_object() {
            self.wrong("an object");
        }
        let members = self.value.as_object().unwrap_or(&NO_FIELDS);
        visitor.visit_map(Members { rest: members.iter(), known: None, next: None, path: self.path, found: self.found })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        let Some(members) = self.value.as_object() else {
            self.wrong("an object");
            let members = NO_FIELDS.iter();
            return visitor.visit_map(Members {
                rest: members,
                known: None,
                next: None,
                path: self.path,
                found: self.found,
            });
        };
        for field in required::fields(name) {
            if members.get(*field).is_none_or(Value::is_null) {
                let path = Path::Field(self.path, field).to_string();
                self.found.borrow_mut().push(Problem { path, message: "required, but missing".to_owned() });
            }
        }
        visitor.visit_map(Members {
            rest: members.iter(),
            known: Some(fields),
            next: None,
            path: self.path,
            found: self.found,
        })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        let Value::String(text) = self.value else {
            self.wrong("a text");
            return Err(Misfit::NOTED);
        };
        visitor.visit_enum(IntoDeserializer::<Misfit>::into_deserializer(text.as_str()))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! { char bytes byte_buf unit unit_struct tuple tuple_struct identifier i128 u128 }
}

/// Reads a list.
struct Items<'de, 'a> {
    rest: std::iter::Enumerate<std::slice::Iter<'de, Value>>,
    path: &'a Path<'a>,
    found: &'a RefCell<Vec<Problem>>,
}

impl<'de> de::SeqAccess<'de> for Items<'de, '_> {
    type Error = Misfit;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Misfit> {
        let Some((index, value)) = self.rest.next() else { return Ok(None) };
        let path = Path::Index(self.path, index);
        let result = seed.deserialize(Reader { value, path: &path, found: self.found });
        result.map(Some).map_err(|misfit| misfit.note(&path, self.found))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}

/// Reads an object.
struct Members<'de, 'a> {
    rest: serde_json::map::Iter<'de>,
    /// The fields of the struct; `None` for a map, where every name may stand.
    known: Option<&'static [&'static str]>,
    next: Option<(&'de str, &'de Value)>,
    path: &'a Path<'a>,
    found: &'a RefCell<Vec<Problem>>,
}

impl<'de> de::MapAccess<'de> for Members<'de, '_> {
    type Error = Misfit;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Misfit> {
        for (key, value) in self.rest.by_ref() {
            if let Some(known) = self.known.filter(|known| !known.contains(&key.as_str())) {
                let meant = suggest(key, known.iter().copied()).unwrap_or_default();
                let path = Path::Field(self.path, key).to_string();
                self.found.borrow_mut().push(Problem { path, message: format!("unknown field{meant}") });
                continue;
            }
            self.next = Some((key, value));
            return seed.deserialize(StrDeserializer::new(key)).map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Misfit> {
        let (key, value) = self.next.take().unwrap_or(("", &Value::Null));
        let path = Path::Field(self.path, key);
        let result = seed.deserialize(Reader { value, path: &path, found: self.found });
        result.map_err(|misfit| misfit.note(&path, self.found))
    }
}

/// Whether a text is a quantity of Kubernetes: a decimal number with an SI or binary unit or a decimal exponent.
fn is_quantity(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let digits = unsigned.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    let (number, unit) = unsigned.split_at(digits);
    let is_number = number.bytes().any(|byte| byte.is_ascii_digit()) && number.matches('.').count() <= 1;
    let exponent = unit.strip_prefix(['e', 'E']).map(|exponent| exponent.strip_prefix(['+', '-']).unwrap_or(exponent));
    let is_exponent =
        exponent.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()));
    let units = ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    is_number && (units.contains(&unit) || is_exponent)
}

#[cfg(test)]
pub(super) mod tests {
    use k8s_openapi::api::core::v1::{Container, PodTemplateSpec};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::api::TaskGraphSpec;

    fn problems<T: for<'de> Deserialize<'de>>(value: &Value) -> Vec<String> {
        read::<T>(value, "x").1.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_misfit_is_found_at_once() {
        let value = json!({
            "name": "main", "comand": ["sh"], "image": 5, "tty": "yes", "args": ["a", 1],
            "ports": [{"containerPort": "80"}, {"containerPort": 3_000_000_000_u32}, {"hostPort": 1.5}],
            "env": [{"value": "a"}, {"name": "B", "value": true}, "C"],
            "resources": {"limits": {"cpu": 1, "memory": "1 GB", "nvidia.com/gpu": [1]}},
            "livenessProbe": {"httpGet": {"port": "http", "pth": "/"}},
            "zzz": {},
        });
        assert_eq!(
            problems::<Container>(&value),
            [
                "x.comand: unknown field (did you mean \"command\"?)",
                "x.image: expected a text, found 5; put it in quotes",
                "x.tty: expected true or false, found the text \"yes\"",
                "x.args[1]: expected a text, found 1; put it in quotes",
                "x.ports[0].containerPort: expected a whole number, found the text \"80\"",
                "x.ports[1].containerPort: 3000000000 is out of range: -2147483648 to 2147483647",
                "x.ports[2].containerPort: required, but missing",
                "x.ports[2].hostPort: expected a whole number, found 1.5",
                "x.env[0].name: required, but missing",
                "x.env[1].value: expected a text, found true; put it in quotes",
                "x.env[2]: expected an object, found the text \"C\"",
                "x.resources.limits.memory: \"1 GB\" is no quantity; write a number with a unit, as in \"500m\", \"2\" or \"1Gi\"",
                "x.resources.limits[\"nvidia.com/gpu\"]: expected a quantity, as \"500m\", \"2\" or \"1Gi\", found a list",
                "x.livenessProbe.httpGet.pth: unknown field (did you mean \"path\"?)",
                "x.zzz: unknown field",
            ]
        );
    }

    #[test]
    fn our_own_kinds_too() {
        let value = json!({
            "failurePolicy": "StopLaunchin",
            "tasks": [{"name": "a", "dependson": ["b"], "containr": {}}, {"displayName": "x"}],
        });
        assert_eq!(
            problems::<TaskGraphSpec>(&value),
            [
                "x.failurePolicy: \"StopLaunchin\" is none of StopLaunching, CancelRunning, FinishBranches (did you mean \"StopLaunching\"?)"
            ]
        );
        let value = json!({"arguments": {"any": [null, {"b": 1.5}]}, "tasks": [{"name": "a", "dependson": ["b"]}, {"displayName": "x"}]});
        assert_eq!(
            problems::<TaskGraphSpec>(&value),
            ["x.tasks[0].dependson: unknown field (did you mean \"dependsOn\"?)", "x.tasks[1]: name is required",]
        );
    }

    #[test]
    fn quantities() {
        for good in ["1", "0.5", ".5", "5.", "100m", "1Gi", "1e3", "1E-2", "-1", "+2k", "1E"] {
            assert!(is_quantity(good), "{good}");
        }
        for bad in ["", "m", "1g", "1gi", "1 Gi", "1.2.3", "1e", "e3", ".", "1e1.5", "1GiB"] {
            assert!(!is_quantity(bad), "{bad}");
        }
    }

    /// JSON made of names that pod templates know, so that it reaches deep.
    pub fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
            Just(json!("${{ args.x }}")),
        ];
        let key = prop_oneof![
            "[a-z]{0,6}",
            proptest::sample::select(vec![
                "spec",
                "metadata",
                "labels",
                "annotations",
                "containers",
                "initContainers",
                "name",
                "image",
                "env",
                "value",
                "valueFrom",
                "resources",
                "limits",
                "cpu",
                "ports",
                "containerPort",
                "volumes",
                "volumeMounts",
                "securityContext",
                "tolerations",
                "creationTimestamp",
                "affinity",
                "livenessProbe",
                "httpGet",
                "port",
                "restartPolicy",
            ])
            .prop_map(str::to_owned),
        ];
        leaf.prop_recursive(6, 64, 6, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::vec((key.clone(), inner), 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn agrees_with_serde_and_never_panics(value in json()) {
            let (read, problems) = read::<PodTemplateSpec>(&value, "");
            prop_assert!(read.is_some() || !problems.is_empty());
            if problems.is_empty() {
                // what passes without a problem means the same to serde_json
                prop_assert_eq!(read, serde_json::from_value(value).ok());
            }
        }
    }
}
