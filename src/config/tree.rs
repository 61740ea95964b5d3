//! From YAML text to a tree of nodes that know their places. Bounded in size, depth and alias expansion.
//!
//! Decides what YAML is accepted (one document, plain maps and lists, aliases, no tags, no merge keys, no
//! duplicate keys) and which values are secret by the keys that lead to them. What keys mean is `file`'s part.

use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;

use serde_saphyr::granit_parser::{self, ErrorKind, Event, Parser, ScalarStyle, ScanError, Span};

use super::diagnostic::{Finding, Place, Source};

/// Nested collections; the configuration itself needs nine.
const MAX_DEPTH: usize = 40;
/// Nodes after all aliases are followed.
const MAX_NODES: usize = 1_000_000;

/// One value of the file.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) kind: Kind,
    depth: usize,
    /// Nodes in this one, aliases followed.
    weight: usize,
}

#[derive(Debug)]
pub(super) enum Kind {
    Null,
    Scalar { text: String, plain: bool },
    Sequence(Vec<Rc<Node>>),
    Mapping(Vec<(Key, Rc<Node>)>),
}

/// A key of a mapping.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) text: String,
    pub(super) place: Place,
}

impl Node {
    /// Calls `visit` with the place of every scalar in this node.
    pub(super) fn scalars(&self, visit: &mut dyn FnMut(Place)) {
        match &self.kind {
            Kind::Null => {}
            Kind::Scalar { .. } => visit(self.place),
            Kind::Sequence(items) => items.iter().for_each(|item| item.scalars(visit)),
            Kind::Mapping(entries) => entries.iter().for_each(|(_, value)| value.scalars(visit)),
        }
    }
}

/// Parses one document.
///
/// # Errors
/// The first syntax error: after one, places and structure mean nothing.
pub(super) fn parse(source: &mut Source<'_>, findings: &mut Vec<Finding>) -> Result<Rc<Node>, Finding> {
    let options = granit_parser::options! {
        emit_comments: false,
        block_nesting_limit: MAX_DEPTH,
        flow_nesting_limit: MAX_DEPTH,
    };
    let text = source.text;
    let events = Parser::new_from_str_with_options(text, options);
    let root = Builder { events, source, anchors: HashMap::new(), findings }.document();
    if root.is_err() {
        source.mask_all();
    }
    root
}

struct Builder<'a, 'f> {
    events: Parser<'a, granit_parser::StrInput<'a>>,
    source: &'f mut Source<'a>,
    anchors: HashMap<usize, Rc<Node>>,
    findings: &'f mut Vec<Finding>,
}

/// The keys that lead to a node, as far as secrecy depends on them.
#[derive(Clone, Copy)]
struct Context<'k> {
    parent: &'k str,
    secret: bool,
}

impl<'a> Builder<'a, '_> {
    fn document(&mut self) -> Result<Rc<Node>, Finding> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => break,
                Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
                _ if root.is_some() => {
                    return Err(Finding::error(place(&span), "the file holds more than one YAML document")
                        .help("remove the line `---` and what follows it"));
                }
                event => root = Some(self.node(event, &span, Context { parent: "", secret: false })?),
            }
        }
        root.filter(|node| !matches!(node.kind, Kind::Null)).ok_or_else(|| {
            Finding::error(Place::default(), "the file is empty")
                .help("a configuration needs at least `endpoints`; see config/minimal.yaml")
        })
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Finding> {
        match self.events.next() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => Err(syntax_error(self.source.text, &error)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn node(&mut self, event: Event<'a>, span: &Span, context: Context<'_>) -> Result<Rc<Node>, Finding> {
        let place = place(span);
        if event.tag().is_some() {
            let tag = span.tag_span().as_ref().map_or(place, self::place);
            Finding::error(tag, "YAML tags (`!…`) are not used here")
                .help("remove the tag")
                .record(self.findings);
        }
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let node = self.scalar(&text, style, place, context);
                Ok(self.keep(anchor, node))
            }
            Event::SequenceStart(_, anchor, _) => {
                let node = self.sequence(place, context)?;
                Ok(self.keep(anchor, node))
            }
            Event::MappingStart(_, anchor, _) => {
                let node = self.mapping(place, context)?;
                Ok(self.keep(anchor, node))
            }
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned().ok_or_else(|| {
                    Finding::error(place, "an alias must not point to a value that contains it")
                })?;
                if context.secret {
                    node.scalars(&mut |scalar| self.source.mask(scalar));
                }
                Ok(node)
            }
            _ => Err(Finding::error(place, "the YAML cannot be understood here")),
        }
    }

    fn keep(&mut self, anchor: usize, node: Node) -> Rc<Node> {
        let node = Rc::new(node);
        if anchor > 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        node
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, place: Place, context: Context<'_>) -> Node {
        let plain = style == ScalarStyle::Plain;
        let is_reference = text.starts_with("env:") || text.starts_with("file:");
        if context.secret && !is_reference && !text.is_empty() {
            self.source.mask(place);
        }
        let kind = if plain && matches!(text, "" | "~" | "null") {
            Kind::Null
        } else {
            Kind::Scalar { text: text.to_owned(), plain }
        };
        Node { place, kind, depth: 0, weight: 1 }
    }

    fn sequence(&mut self, start: Place, context: Context<'_>) -> Result<Node, Finding> {
        // The list `keys` of a token's rules holds entries with keys of their own; the map `keys` holds secrets.
        let secret = context.secret && context.parent != "keys";
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                let place = around(start, &span, items.first().map(|item: &Rc<Node>| item.place));
                let inner = items.iter().map(|item| &**item);
                let (depth, weight) = measure(place, inner)?;
                return Ok(Node { place, kind: Kind::Sequence(items), depth, weight });
            }
            items.push(self.node(event, &span, Context { parent: context.parent, secret })?);
        }
    }

    fn mapping(&mut self, start: Place, context: Context<'_>) -> Result<Node, Finding> {
        let mut entries: Vec<(Key, Rc<Node>)> = Vec::new();
        let mut seen: HashMap<Cow<'a, str>, Place> = HashMap::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                let place = around(start, &span, entries.first().map(|(key, _)| key.place));
                let (depth, weight) = measure(place, entries.iter().map(|(_, value)| &**value))?;
                return Ok(Node { place, kind: Kind::Mapping(entries), depth, weight });
            }
            let key_place = place(&span);
            let Event::Scalar(text, ..) = event else {
                return Err(Finding::error(key_place, "a key must be a word"));
            };
            let child = Context { parent: &text, secret: context.secret || is_secret(context.parent, &text) };
            let (event, span) = self.next()?;
            let value = self.node(event, &span, child)?;
            if text == "<<" {
                Finding::error(key_place, "merge keys (`<<`) are not supported")
                    .help("name a whole block with `&name` and use it again with `*name`")
                    .record(self.findings);
            } else if let Some(first) = seen.get(&*text) {
                // What is not decoded may be a misspelled secret.
                value.scalars(&mut |scalar| self.source.mask(scalar));
                let line = self.source.line(*first);
                Finding::error(key_place, format!("`{}` is given twice", short(&text)))
                    .help(format!("it is already given on line {line}; keep one of the two"))
                    .record(self.findings);
            } else {
                entries.push((
                    Key { text: text.to_string(), place: key_place },
                    at_key_if_null(value, key_place),
                ));
                seen.insert(text, key_place);
            }
        }
    }
}

/// Keys whose values are never shown. `keys` is one where it is a mapping or a single text. What `callers` names are keys,
/// but what it says of them are words.
fn is_secret(parent: &str, key: &str) -> bool {
    if parent == "callers" {
        return false;
    }
    let secret_word = [
        "keys",
        "primary",
        "secondary",
        "secondary_key",
        "secret",
        "password",
        "token",
        "environment_variables",
    ];
    secret_word.contains(&key) || (key == "key" && parent != "certificates")
}

/// A value that is not there has no place of its own: findings point to its key.
fn at_key_if_null(value: Rc<Node>, place: Place) -> Rc<Node> {
    match value.kind {
        Kind::Null => Rc::new(Node { place, kind: Kind::Null, depth: 0, weight: 1 }),
        _ => value,
    }
}

/// Where a collection is: all of `[…]` and `{…}`, the first key or item of a block.
fn around(start: Place, end: &Span, first: Option<Place>) -> Place {
    let end = place(end).end;
    if start.end > start.start {
        return Place { start: start.start, end: end.max(start.end) };
    }
    first.unwrap_or(start)
}

fn measure<'n>(place: Place, inner: impl Iterator<Item = &'n Node>) -> Result<(usize, usize), Finding> {
    let (mut depth, mut weight) = (0, 1usize);
    for node in inner {
        depth = depth.max(node.depth + 1);
        weight = weight.saturating_add(node.weight);
    }
    if depth > MAX_DEPTH {
        return Err(Finding::error(place, format!("nested deeper than {MAX_DEPTH} levels")));
    }
    if weight > MAX_NODES {
        return Err(Finding::error(place, format!("grows to more than {MAX_NODES} values")));
    }
    Ok((depth, weight))
}

fn place(span: &Span) -> Place {
    let start = span.start.byte_offset().unwrap_or_default();
    Place { start, end: span.end.byte_offset().unwrap_or(start).max(start) }
}

fn short(text: &str) -> String {
    text.chars().take(40).collect()
}

fn syntax_error(text: &str, error: &ScanError) -> Finding {
    let start = error.marker().byte_offset().unwrap_or_default().min(text.len());
    let place = Place { start, end: start + 1 };
    let tab = matches!(
        error.kind(),
        ErrorKind::TabNotAllowed | ErrorKind::TabInBlockIndentation | ErrorKind::TabInIndentation
    );
    let finding = Finding::error(place, format!("not valid YAML: {}", error.kind()));
    match error.kind() {
        _ if tab => finding.help("indent with spaces"),
        ErrorKind::UnknownAnchor => finding.help("an alias `*name` needs an anchor `&name` before it"),
        ErrorKind::RecursionLimitExceeded => finding.help(format!("at most {MAX_DEPTH} levels are allowed")),
        _ => {
            finding.help("values are hidden here (***), because a file that cannot be read may hold secrets")
        }
    }
}
