//! JSON as `serde_json` reads it, in a tree that keeps members of one name apart.

use std::{collections::HashSet, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::Number;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    Null,
    Bool,
    Number(Number),
    String(String),
    Array(Vec<Json>),
    Object(Object),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Object(pub(crate) Vec<(String, Json)>);

impl Object {
    /// The whole text as one object whose members have names of their own.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        // What `Value` refuses, everybody refuses.
        serde_json::from_slice::<serde_json::Value>(text).ok()?;
        match serde_json::from_slice(text).ok()? {
            Json::Object(object) if object.is_unambiguous() => Some(object),
            _ => None,
        }
    }

    pub(crate) fn is_unambiguous(&self) -> bool {
        self.0.iter().map(|(name, _)| name).collect::<HashSet<_>>().len() == self.0.len()
    }

    pub(crate) fn member(&self, name: &str) -> Option<&Json> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value)
    }

    /// A string that may be missing; `Err` if it is no string.
    pub(crate) fn string(&self, name: &str) -> Result<Option<&str>, ()> {
        match self.member(name) {
            None => Ok(None),
            Some(Json::String(text)) => Ok(Some(text)),
            Some(_) => Err(()),
        }
    }

    /// An integer within i64 that may be missing.
    pub(crate) fn integer(&self, name: &str) -> Result<Option<i64>, ()> {
        match self.member(name) {
            None => Ok(None),
            Some(Json::Number(number)) => number.as_i64().map(Some).ok_or(()),
            Some(_) => Err(()),
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Json, E> {
        Ok(Json::Bool)
    }

    fn visit_i64<E>(self, number: i64) -> Result<Json, E> {
        Ok(Json::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
        Ok(Json::Number(number.into()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Json, E> {
        Number::from_f64(number).map(Json::Number).ok_or_else(|| E::custom("not finite"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::String(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element()? {
            array.push(item);
        }
        Ok(Json::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Json::Object(Object(members)))
    }
}
