//! From a tree of nodes to the types of `file`, past every error: a value that does not fit is recorded and
//! left out, and decoding goes on beside it.
//!
//! That works because every field and item of a file is a `Field`: it asks for its value in a way that only
//! this deserializer understands, and gets `Bad` instead of an error. What values mean is `check`'s part.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use serde::de::value::{BorrowedStrDeserializer, U64Deserializer};
use serde::de::{self, Deserialize, DeserializeSeed, IntoDeserializer, Visitor};

use super::diagnostic::{Finding, Place, Source};
use super::field::{FIELD, Field};
use super::suggest;
use super::tree::{Key, Kind, Node};

/// What a value must be, as the rest of the sentence "`key` must be …".
#[derive(Debug)]
pub(super) struct Misfit {
    must_be: String,
    help: Option<String>,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.must_be)
    }
}

impl std::error::Error for Misfit {}

impl de::Error for Misfit {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { must_be: message.to_string(), help: None }
    }

    fn invalid_type(_: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::custom(expected)
    }

    fn invalid_value(_: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::custom(expected)
    }
}

/// Decodes the whole file; `Bad` when it is not even a mapping.
pub(super) fn decode<T: for<'de> Deserialize<'de>>(
    root: &Node,
    source: &mut Source<'_>,
    findings: &mut Vec<Finding>,
) -> Field<T> {
    let sink = Sink { source: RefCell::new(source), findings: RefCell::new(findings) };
    let decoder = Decoder { value: Value::Node(root), label: Label::File, sink: &sink };
    // A `Field` absorbs every error of its value.
    Field::deserialize(decoder).unwrap_or(Field::Bad)
}

struct Sink<'s, 't> {
    source: RefCell<&'s mut Source<'t>>,
    findings: RefCell<&'s mut Vec<Finding>>,
}

/// How a message names the value.
#[derive(Clone, Copy)]
enum Label<'n> {
    File,
    Key(&'n str),
    Item(&'n str, usize),
}

impl fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => f.write_str("the file"),
            Self::Key(key) => write!(f, "`{key}`"),
            Self::Item(list, index) => write!(f, "item {} of `{list}`", index + 1),
        }
    }
}

#[derive(Clone, Copy)]
enum Value<'n> {
    Key(&'n Key),
    Node(&'n Node),
}

#[derive(Clone, Copy)]
struct Decoder<'n, 's, 't> {
    value: Value<'n>,
    label: Label<'n>,
    sink: &'s Sink<'s, 't>,
}

impl<'n, 's, 't> Decoder<'n, 's, 't> {
    fn place(&self) -> Place {
        match self.value {
            Value::Key(key) => key.place,
            Value::Node(node) => node.place,
        }
    }

    fn report(&self, misfit: Misfit) {
        let Misfit { must_be, help } = misfit;
        let label = self.label;
        let message = match self.value {
            Value::Node(Node { kind: Kind::Null, .. }) => {
                format!("{label} has no value; it must be {must_be}")
            }
            Value::Node(Node { kind: Kind::Mapping(_), .. }) => {
                format!("{label} must be {must_be}, not a mapping")
            }
            Value::Node(Node { kind: Kind::Sequence(_), .. }) => {
                format!("{label} must be {must_be}, not a list")
            }
            _ => {
                let quote = self.sink.source.borrow().quote(self.place());
                format!("{label} must be {must_be}, not `{quote}`")
            }
        };
        let mut finding = Finding::error(self.place(), message);
        finding.help = help;
        finding.record(&mut self.sink.findings.borrow_mut());
    }

    fn text(&self) -> Option<&'n str> {
        match self.value {
            Value::Key(key) => Some(&key.text),
            Value::Node(Node { kind: Kind::Scalar { text, .. }, .. }) => Some(text),
            Value::Node(_) => None,
        }
    }

    /// A text that is not in quotes, as numbers and truth values are written.
    fn plain(&self) -> Option<&'n str> {
        match self.value {
            Value::Node(Node { kind: Kind::Scalar { text, plain: true }, .. }) => Some(text),
            _ => None,
        }
    }

    fn misfit<V: Visitor<'n>>(visitor: &V) -> Misfit {
        de::Error::custom(visitor as &dyn de::Expected)
    }

    /// Reports a key that the mapping does not have; hides its value, which may be a misspelled secret.
    fn unknown(&self, key: &Key, value: &Node, known: &[&str]) {
        value.scalars(&mut |place| self.sink.source.borrow_mut().mask_unless_harmless(place));
        let place = match self.label {
            Label::File => "at the top of the file".to_owned(),
            label => format!("in {label}"),
        };
        let shown = self.sink.source.borrow().quote(key.place);
        let mut finding = Finding::error(key.place, format!("unknown key `{shown}` {place}"))
            .help(suggest::unknown_key(&key.text, known));
        finding.meant = suggest::nearest(&key.text, known).map(|near| (self.place(), near.to_owned()));
        finding.record(&mut self.sink.findings.borrow_mut());
    }
}

impl<'n> de::Deserializer<'n> for Decoder<'n, '_, '_> {
    type Error = Misfit;

    fn deserialize_newtype_struct<V: Visitor<'n>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        if name == FIELD {
            return visitor.visit_seq(FieldParts { decoder: self, part: 0 });
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'n>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        let Value::Node(Node { kind: Kind::Mapping(entries), .. }) = self.value else {
            return Err(Misfit {
                must_be: "a mapping".to_owned(),
                help: Some(format!("its keys are {}", suggest::list(fields))),
            });
        };
        let known = entries
            .iter()
            .filter(|(key, value)| {
                let known = fields.contains(&key.text.as_str());
                if !known {
                    self.unknown(key, value, fields);
                }
                known
            })
            .collect();
        visitor.visit_map(MapParts { entries: known, next: 0, parent: self })
    }

    fn deserialize_map<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Misfit> {
        let Value::Node(Node { kind: Kind::Mapping(entries), .. }) = self.value else {
            return Err(Self::misfit(&visitor));
        };
        visitor.visit_map(MapParts { entries: entries.iter().collect(), next: 0, parent: self })
    }

    fn deserialize_seq<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Misfit> {
        let Value::Node(Node { kind: Kind::Sequence(items), .. }) = self.value else {
            return Err(Misfit { must_be: "a list".to_owned(), help: None });
        };
        visitor.visit_seq(ListParts { items, next: 0, parent: self })
    }

    fn deserialize_enum<V: Visitor<'n>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        let text = self.text().unwrap_or_default();
        match variants.iter().find(|variant| variant.eq_ignore_ascii_case(text)) {
            Some(variant) => visitor.visit_enum(variant.into_deserializer()),
            None => Err(Misfit {
                must_be: format!("one of {}", suggest::list(variants)),
                help: suggest::nearest(text, variants).map(|near| format!("did you mean `{near}`?")),
            }),
        }
    }

    fn deserialize_str<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Misfit> {
        let text = self.text().ok_or_else(|| Self::misfit(&visitor))?;
        visitor.visit_borrowed_str(text)
    }

    fn deserialize_string<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Misfit> {
        let text = self.text().ok_or_else(|| Misfit { must_be: "a text".to_owned(), help: None })?;
        visitor.visit_borrowed_str(text)
    }

    fn deserialize_bool<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self.plain() {
            Some("true" | "True" | "TRUE") => visitor.visit_bool(true),
            Some("false" | "False" | "FALSE") => visitor.visit_bool(false),
            _ => Err(Misfit { must_be: "`true` or `false`".to_owned(), help: None }),
        }
    }

    fn deserialize_u64<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self.plain().and_then(|text| text.parse().ok()) {
            Some(number) => visitor.visit_u64(number),
            None => Err(Self::misfit(&visitor)),
        }
    }

    fn deserialize_f64<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self.plain().and_then(|text| text.parse().ok()) {
            Some(number) => visitor.visit_f64(number),
            None => Err(Self::misfit(&visitor)),
        }
    }

    fn deserialize_any<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Misfit> {
        // No type of `file` leaves its form open.
        Err(Self::misfit(&visitor))
    }

    serde::forward_to_deserialize_any! {
        <V: Visitor<'n>>
        i8 i16 i32 i64 i128 u8 u16 u32 u128 f32 char bytes byte_buf option unit unit_struct tuple
        tuple_struct identifier ignored_any
    }
}

/// The answer to a `Field`: start, end, value. An error of the value is reported, and the value is missing.
struct FieldParts<'n, 's, 't> {
    decoder: Decoder<'n, 's, 't>,
    part: u8,
}

impl<'n> de::SeqAccess<'n> for FieldParts<'n, '_, '_> {
    type Error = Misfit;

    fn next_element_seed<S: DeserializeSeed<'n>>(&mut self, seed: S) -> Result<Option<S::Value>, Misfit> {
        let place = self.decoder.place();
        self.part += 1;
        match self.part {
            1 => seed.deserialize(U64Deserializer::new(place.start as u64)).map(Some),
            2 => seed.deserialize(U64Deserializer::new(place.end as u64)).map(Some),
            _ => match seed.deserialize(self.decoder) {
                Ok(value) => Ok(Some(value)),
                Err(misfit) => {
                    self.decoder.report(misfit);
                    Ok(None)
                }
            },
        }
    }
}

struct ListParts<'n, 's, 't> {
    items: &'n [Rc<Node>],
    next: usize,
    parent: Decoder<'n, 's, 't>,
}

impl<'n> de::SeqAccess<'n> for ListParts<'n, '_, '_> {
    type Error = Misfit;

    fn next_element_seed<S: DeserializeSeed<'n>>(&mut self, seed: S) -> Result<Option<S::Value>, Misfit> {
        let Some(item) = self.items.get(self.next) else { return Ok(None) };
        let label = match self.parent.label {
            Label::Key(list) | Label::Item(list, _) => Label::Item(list, self.next),
            Label::File => Label::File,
        };
        self.next += 1;
        seed.deserialize(Decoder { value: Value::Node(item), label, ..self.parent }).map(Some)
    }
}

struct MapParts<'n, 's, 't> {
    entries: Vec<&'n (Key, Rc<Node>)>,
    next: usize,
    parent: Decoder<'n, 's, 't>,
}

impl<'n> de::MapAccess<'n> for MapParts<'n, '_, '_> {
    type Error = Misfit;

    fn next_key_seed<S: DeserializeSeed<'n>>(&mut self, seed: S) -> Result<Option<S::Value>, Misfit> {
        let Some((key, _)) = self.entries.get(self.next) else { return Ok(None) };
        let label = Label::Key(&key.text);
        seed.deserialize(MapKey(Decoder { value: Value::Key(key), label, ..self.parent })).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'n>>(&mut self, seed: S) -> Result<S::Value, Misfit> {
        let (key, value) = self.entries[self.next];
        self.next += 1;
        let label = Label::Key(&key.text);
        seed.deserialize(Decoder { value: Value::Node(value), label, ..self.parent })
    }
}

/// A key: for a struct its plain text, for `Entries` a `Field` with a place.
struct MapKey<'n, 's, 't>(Decoder<'n, 's, 't>);

impl<'n> de::Deserializer<'n> for MapKey<'n, '_, '_> {
    type Error = Misfit;

    fn deserialize_newtype_struct<V: Visitor<'n>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        self.0.deserialize_newtype_struct(name, visitor)
    }

    fn deserialize_any<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Misfit> {
        BorrowedStrDeserializer::new(self.0.text().unwrap_or_default()).deserialize_any(visitor)
    }

    serde::forward_to_deserialize_any! {
        <V: Visitor<'n>>
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}
