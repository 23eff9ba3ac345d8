//! Strict reading of JSON objects (RFC 8259).
//!
//! serde's derive is too lenient for text that others sign: members that nobody reads escape the
//! depth limit, lone surrogates and bad numbers pass in them, and arrays fill structs. Here every
//! member is walked, read or not, and a duplicate name at top level is an error.

use std::{borrow::Cow, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};
use smallvec::SmallVec;

/// The text is not one JSON object with distinct member names.
#[derive(Debug)]
pub(crate) struct Invalid;

/// Reads a text that is exactly one JSON object: UTF-8, at most 127 open brackets (serde_json's
/// own limit, which holds because no value is skipped), nothing after the end. Returns the values of these
/// members; all others are walked.
pub(crate) fn read_members<'de, T: Deserialize<'de>, const N: usize>(
    text: &'de [u8],
    names: [&str; N],
) -> Result<[Option<T>; N], Invalid> {
    let mut values = [const { None }; N];
    read_members_into(text, &names, &mut values)?;
    Ok(values)
}

/// Not of a number of names, so that what reads one object has the code of what reads the next at hand.
fn read_members_into<'de, T: Deserialize<'de>>(
    text: &'de [u8],
    names: &[&str],
    values: &mut [Option<T>],
) -> Result<(), Invalid> {
    let text = std::str::from_utf8(text).map_err(|_| Invalid)?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let members = MembersVisitor { names, values };
    let mut others = deserializer.deserialize_map(members).map_err(|_| Invalid)?;
    deserializer.end().map_err(|_| Invalid)?;
    if has_duplicates(&mut others) { Err(Invalid) } else { Ok(()) }
}

/// Reads a text that is exactly one JSON value, within the bounds of [`read_members`].
pub(crate) fn read_any<'de, T: FromAny<'de> + Deserialize<'de>>(text: &'de [u8]) -> Result<T, Invalid> {
    let text = std::str::from_utf8(text).map_err(|_| Invalid)?;
    serde_json::from_str(text).map_err(|_| Invalid)
}

/// Whether a name occurs twice. Sorts, so that many names cost no more than n log n.
pub(crate) fn has_duplicates<T: Ord>(names: &mut [T]) -> bool {
    names.sort_unstable();
    names.windows(2).any(|pair| matches!(pair, [a, b] if a == b))
}

struct MembersVisitor<'m, T> {
    names: &'m [&'m str],
    values: &'m mut [Option<T>],
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for MembersVisitor<'_, T> {
    /// The names of members that are not read.
    type Value = SmallVec<[Cow<'de, str>; 4]>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut others = SmallVec::new();
        while let Some(Text(name)) = map.next_key()? {
            match self.names.iter().position(|read| *read == name).and_then(|at| self.values.get_mut(at)) {
                Some(value) => {
                    if value.replace(map.next_value()?).is_some() {
                        return Err(A::Error::custom("a name twice"));
                    }
                }
                None => {
                    map.next_value::<Walked>()?;
                    others.push(name);
                }
            }
        }
        Ok(others)
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

/// What is made of a value of any type. All of the value is checked; what an implementation does not ask for
/// is not kept, however large it is.
pub(crate) trait FromAny<'de>: Sized {
    /// Null, a boolean, a number that is no integer within i64, or what is not kept.
    const OTHER: Self;

    fn of_integer(_: i64) -> Self {
        Self::OTHER
    }

    fn of_borrowed_str(_: &'de str) -> Self {
        Self::OTHER
    }

    fn of_str(_: &str) -> Self {
        Self::OTHER
    }

    fn of_array<A: SeqAccess<'de>>(mut items: A) -> Result<Self, A::Error> {
        while let Some(Walked) = items.next_element()? {}
        Ok(Self::OTHER)
    }

    fn of_object<A: MapAccess<'de>>(mut members: A) -> Result<Self, A::Error> {
        while let Some((Walked, Walked)) = members.next_entry()? {}
        Ok(Self::OTHER)
    }
}

/// For a [`Deserialize`] of what is [`FromAny`].
pub(crate) fn deserialize<'de, T: FromAny<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    deserializer.deserialize_any(AnyVisitor(PhantomData))
}

struct AnyVisitor<T>(PhantomData<T>);

impl<'de, T: FromAny<'de>> Visitor<'de> for AnyVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<T, E> {
        Ok(T::OTHER)
    }

    fn visit_i64<E>(self, integer: i64) -> Result<T, E> {
        Ok(T::of_integer(integer))
    }

    fn visit_u64<E>(self, integer: u64) -> Result<T, E> {
        Ok(i64::try_from(integer).map_or(T::OTHER, T::of_integer))
    }

    fn visit_f64<E>(self, _: f64) -> Result<T, E> {
        Ok(T::OTHER)
    }

    fn visit_unit<E>(self) -> Result<T, E> {
        Ok(T::OTHER)
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<T, E> {
        Ok(T::of_borrowed_str(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<T, E> {
        Ok(T::of_str(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<T, A::Error> {
        T::of_array(items)
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
        T::of_object(members)
    }
}

/// A value that is checked and not kept.
pub(crate) struct Walked;

impl FromAny<'_> for Walked {
    const OTHER: Self = Self;
}

impl<'de> Deserialize<'de> for Walked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize(deserializer)
    }
}

/// A value of any type, as far as the readers of this crate tell values apart.
pub(crate) enum Value<'de> {
    /// A number without fraction and exponent, within i64.
    Integer(i64),
    String(Cow<'de, str>),
    /// An array of strings and nothing else.
    Strings(Vec<Cow<'de, str>>),
    /// All else, which is not kept.
    Other,
}

impl<'de> Value<'de> {
    /// Of a member that is a string where it is present.
    pub(crate) fn string(member: Option<Self>) -> Result<Option<Cow<'de, str>>, Invalid> {
        match member {
            None => Ok(None),
            Some(Self::String(text)) => Ok(Some(text)),
            Some(_) => Err(Invalid),
        }
    }

    /// Of a member that is an integer where it is present.
    pub(crate) fn integer(member: Option<Self>) -> Result<Option<i64>, Invalid> {
        match member {
            None => Ok(None),
            Some(Self::Integer(integer)) => Ok(Some(integer)),
            Some(_) => Err(Invalid),
        }
    }
}

impl<'de> FromAny<'de> for Value<'de> {
    const OTHER: Self = Self::Other;

    fn of_integer(integer: i64) -> Self {
        Self::Integer(integer)
    }

    fn of_borrowed_str(text: &'de str) -> Self {
        Self::String(Cow::Borrowed(text))
    }

    fn of_str(text: &str) -> Self {
        Self::String(Cow::Owned(text.to_owned()))
    }

    fn of_array<A: SeqAccess<'de>>(mut items: A) -> Result<Self, A::Error> {
        let mut strings = Vec::new();
        while let Some(item) = items.next_element::<Self>()? {
            match item {
                Self::String(text) => strings.push(text),
                _ => return Walked::of_array(items).map(|Walked| Self::Other),
            }
        }
        Ok(Self::Strings(strings))
    }
}

impl<'de> Deserialize<'de> for Value<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize(deserializer)
    }
}
