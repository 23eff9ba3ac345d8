//! Strict reading of JSON objects (RFC 8259).
//!
//! serde's derive is too lenient for text that others sign: members that nobody reads escape the
//! depth limit, lone surrogates and bad numbers pass in them, and arrays fill structs. Here every
//! member is walked, read or not, and a duplicate name at top level is an error.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use smallvec::SmallVec;

/// What reads the members of one object.
pub(crate) trait Members<'de> {
    /// Reads the value of the member `name`, or walks it with [`Walked`].
    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error>;
}

/// The text is not one JSON object with distinct member names that `members` can read.
#[derive(Debug)]
pub(crate) struct Invalid;

/// Reads a text that is exactly one JSON object: UTF-8, at most 127 open brackets (serde_json's
/// own limit, which holds because no value is skipped), nothing after the end.
pub(crate) fn read_object<'de, M: Members<'de>>(text: &'de [u8], members: &mut M) -> Result<(), Invalid> {
    if read_members(text, members)? { Err(Invalid) } else { Ok(()) }
}

/// As [`read_object`], but tells whether a name occurs twice.
pub(crate) fn read_members<'de, M: Members<'de>>(text: &'de [u8], members: &mut M) -> Result<bool, Invalid> {
    let text = std::str::from_utf8(text).map_err(|_| Invalid)?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let mut names = deserializer.deserialize_map(ObjectVisitor(members)).map_err(|_| Invalid)?;
    deserializer.end().map_err(|_| Invalid)?;
    Ok(has_duplicates(&mut names))
}

/// Whether a name occurs twice. Sorts, so that many names cost no more than n log n.
pub(crate) fn has_duplicates<T: Ord>(names: &mut [T]) -> bool {
    names.sort_unstable();
    names.windows(2).any(|pair| matches!(pair, [a, b] if a == b))
}

struct ObjectVisitor<'m, M>(&'m mut M);

impl<'de, M: Members<'de>> Visitor<'de> for ObjectVisitor<'_, M> {
    type Value = SmallVec<[Cow<'de, str>; 8]>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut names = SmallVec::new();
        while let Some(Text(name)) = map.next_key()? {
            self.0.member(&name, &mut map)?;
            names.push(name);
        }
        Ok(names)
    }
}

/// A string, borrowed from the text where it has no escapes. Anything else is an error.
pub(crate) struct Text<'de>(pub(crate) Cow<'de, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

/// A value that is checked and not kept, however large it is.
pub(crate) struct Walked;

impl<'de> Deserialize<'de> for Walked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WalkedVisitor)
    }
}

struct WalkedVisitor;

impl<'de> Visitor<'de> for WalkedVisitor {
    type Value = Walked;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Walked, E> {
        Ok(Walked)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Walked, E> {
        Ok(Walked)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Walked, E> {
        Ok(Walked)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Walked, E> {
        Ok(Walked)
    }

    fn visit_unit<E>(self) -> Result<Walked, E> {
        Ok(Walked)
    }

    fn visit_str<E>(self, _: &str) -> Result<Walked, E> {
        Ok(Walked)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Walked, A::Error> {
        while let Some(Walked) = items.next_element()? {}
        Ok(Walked)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Walked, A::Error> {
        while let Some((Walked, Walked)) = map.next_entry()? {}
        Ok(Walked)
    }
}

/// A value of any type, as far as the readers of this crate tell values apart.
pub(crate) enum Value<'de> {
    String(Cow<'de, str>),
    Array(Vec<Value<'de>>),
    /// Names may occur twice: see [`has_duplicates`].
    Object(Vec<(Cow<'de, str>, Value<'de>)>),
    /// Null, a boolean or a number.
    Other,
}

impl<'de> Deserialize<'de> for Value<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Value::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Value::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Value::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Value::Other)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Value::Other)
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Value::String(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Value::String(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element()? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some((Text(name), value)) = map.next_entry()? {
            members.push((name, value));
        }
        Ok(Value::Object(members))
    }
}
