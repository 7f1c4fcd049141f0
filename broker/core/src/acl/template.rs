//! Filters with `%c`, `%u` and `%{name}` in them, and `%%` for a percent sign.
//!
//! Promises: a value becomes part of one level and nothing else, or it is not used. Whatever the value, the filter is valid.
//!
//! Does not know: what is allowed.

use super::error::AclFault;
use crate::login::Principal;
use motemq_codec::TopicFilter;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Template {
    Fixed(Box<str>),
    Substituted(Box<[Piece]>),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Piece {
    Text(Box<str>),
    ClientId,
    User,
    /// A field of the login, by name.
    Field(Box<str>),
}

/// What a template is for one client.
pub(super) enum Resolved {
    /// As it was written.
    Fixed,
    Filter(Box<str>),
    /// A value cannot be used. Whatever it was meant to be, this filter covers it; `None`: only every topic does.
    Unusable(Option<Box<str>>),
}

impl Template {
    /// A filter without substitutions.
    pub(super) fn fixed(filter: &str) -> Result<Self, AclFault> {
        check(filter)?;
        Ok(Self::Fixed(filter.into()))
    }

    /// Reads all substitutions.
    pub(super) fn parse(text: &str) -> Result<Self, AclFault> {
        let (mut pieces, mut literal, mut rest) = (Vec::new(), String::new(), text);
        while let Some((before, behind)) = rest.split_once('%') {
            literal.push_str(before);
            let (piece, behind) = parse_piece(behind)?;
            rest = behind;
            match piece {
                None => literal.push('%'),
                Some(piece) => push(&mut pieces, &mut literal, piece),
            }
        }
        literal.push_str(rest);
        Self::new(pieces, literal)
    }

    /// Reads `%c` and `%u`; every other percent sign is itself, as in mosquitto's files.
    pub(super) fn parse_mosquitto(text: &str) -> Result<Self, AclFault> {
        let (mut pieces, mut literal, mut rest) = (Vec::new(), String::new(), text);
        while let Some((before, behind)) = rest.split_once('%') {
            literal.push_str(before);
            let piece = [('c', Piece::ClientId), ('u', Piece::User)]
                .into_iter()
                .find_map(|(letter, piece)| Some((piece, behind.strip_prefix(letter)?)));
            match piece {
                Some((piece, behind)) => {
                    push(&mut pieces, &mut literal, piece);
                    rest = behind;
                }
                None => {
                    literal.push('%');
                    rest = behind;
                }
            }
        }
        literal.push_str(rest);
        Self::new(pieces, literal)
    }

    fn new(mut pieces: Vec<Piece>, last: String) -> Result<Self, AclFault> {
        if pieces.is_empty() {
            return Self::fixed(&last);
        }
        if !last.is_empty() {
            pieces.push(Piece::Text(last.into()));
        }
        let any_value = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            _ => "x".into(),
        };
        check(&pieces.iter().map(any_value).collect::<String>())?;
        Ok(Self::Substituted(pieces.into()))
    }

    /// Whether the user's name is a part of it.
    pub(super) fn has_user(&self) -> bool {
        matches!(self, Self::Substituted(pieces) if pieces.contains(&Piece::User))
    }

    pub(super) fn resolve(&self, principal: &Principal) -> Resolved {
        let Self::Substituted(pieces) = self else {
            return Resolved::Fixed;
        };
        let mut filter = String::new();
        for piece in pieces {
            let value = match piece {
                Piece::Text(text) => {
                    filter.push_str(text);
                    continue;
                }
                Piece::ClientId => Some(principal.client_id.as_str()),
                Piece::User => principal.user(),
                Piece::Field(name) => only_value(principal, name),
            };
            match value {
                Some(value) if is_usable(value, filter.is_empty()) => filter.push_str(value),
                _ => {
                    let levels = filter.rsplit_once('/').map(|(levels, _)| levels);
                    return Resolved::Unusable(levels.map(|levels| format!("{levels}/#").into()));
                }
            }
        }
        Resolved::Filter(filter.into())
    }
}

fn push(pieces: &mut Vec<Piece>, literal: &mut String, piece: Piece) {
    if !literal.is_empty() {
        pieces.push(Piece::Text(std::mem::take(literal).into()));
    }
    pieces.push(piece);
}

/// What follows a percent sign: a substitution, or none for a second percent sign.
fn parse_piece(text: &str) -> Result<(Option<Piece>, &str), AclFault> {
    let mut characters = text.chars();
    let piece = match characters.next() {
        Some('%') => None,
        Some('c') => Some(Piece::ClientId),
        Some('u') => Some(Piece::User),
        Some('{') => {
            let (name, behind) = characters
                .as_str()
                .split_once('}')
                .ok_or(AclFault::Substitution)?;
            let is_named = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
            if name.is_empty() || !name.chars().all(is_named) {
                return Err(AclFault::Substitution);
            }
            return Ok((Some(Piece::Field(name.into())), behind));
        }
        _ => return Err(AclFault::Substitution),
    };
    Ok((piece, characters.as_str()))
}

fn check(filter: &str) -> Result<(), AclFault> {
    if motemq_codec::is_shared(filter) {
        return Err(AclFault::SharedFilter);
    }
    if filter.chars().any(char::is_control) {
        return Err(AclFault::ControlCharacter);
    }
    match TopicFilter::parse(filter) {
        Ok(_) => Ok(()),
        Err(error) => Err(AclFault::Filter(error)),
    }
}

/// A field with several values says nothing: which one is meant?
fn only_value<'a>(principal: &'a Principal, name: &str) -> Option<&'a str> {
    let fields = principal.attributes.fields.iter();
    let mut values = fields.filter(|(field, _)| **field == *name);
    let value = values.next().map(|(_, value)| &**value);
    value.filter(|_| values.next().is_none())
}

fn is_usable(value: &str, is_first: bool) -> bool {
    let is_special = |letter: char| matches!(letter, '+' | '#' | '/') || letter.is_control();
    let is_unusable =
        value.is_empty() || value.contains(is_special) || is_first && value.starts_with('$');
    !is_unusable
}
