//! What a token claims, one function a claim.
//!
//! Promises: a claim that is there and not of its form refuses the token; nothing is guessed, nothing is left out.
//!
//! Does not know: signatures.

use super::TokenFault;
use motemq_codec::TopicFilter;
use motemq_core::Timestamp;
use serde_json::{Map, Value};

type Claims = Map<String, Value>;

/// When the login ends: at `exp`, and `leeway_s` later, as long as the token would be taken.
pub(super) fn times(
    claims: &Claims,
    leeway_s: u32,
    now: Timestamp,
) -> Result<Timestamp, TokenFault> {
    let expiry = claims.get("exp").and_then(milliseconds);
    let expiry = expiry.ok_or(TokenFault::NoExpiry)?;
    let ends_at = Timestamp::from_ms(expiry).plus_s(leeway_s);
    if ends_at <= now {
        return Err(TokenFault::Expired);
    }
    if let Some(start) = claims.get("nbf") {
        let start = milliseconds(start).ok_or(TokenFault::NotYet)?;
        if now.plus_s(leeway_s) < Timestamp::from_ms(start) {
            return Err(TokenFault::NotYet);
        }
    }
    Ok(ends_at)
}

/// A NumericDate, which may have a fraction.
fn milliseconds(date: &Value) -> Option<u64> {
    match date.as_u64() {
        Some(seconds) => Some(seconds.saturating_mul(1000)),
        // Saturates: before 1970 is 1970.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "saturates"
        )]
        None => date.as_f64().map(|seconds| (seconds * 1000.0) as u64),
    }
}

/// An empty `issuer` is any.
pub(super) fn check_issuer(claims: &Claims, issuer: &str) -> Result<(), TokenFault> {
    let is_issuer = claims.get("iss").is_some_and(|found| found == issuer);
    match issuer.is_empty() || is_issuer {
        true => Ok(()),
        false => Err(TokenFault::Issuer),
    }
}

/// A text or a list of texts; an empty `audience` is any.
pub(super) fn check_audience(claims: &Claims, audience: &str) -> Result<(), TokenFault> {
    let is_audience = match claims.get("aud") {
        Some(Value::Array(all)) => all.iter().any(|found| found == audience),
        Some(found) => found == audience,
        None => false,
    };
    match audience.is_empty() || is_audience {
        true => Ok(()),
        false => Err(TokenFault::Audience),
    }
}

pub(super) fn user(claims: &Claims, claim: &str) -> Result<String, TokenFault> {
    let user = claims.get(claim).and_then(Value::as_str);
    user.filter(|user| is_name(user))
        .map(str::to_owned)
        .ok_or(TokenFault::User)
}

/// Without a name of a claim any client identifier will do.
pub(super) fn check_client(
    claims: &Claims,
    claim: &str,
    client_id: &str,
) -> Result<(), TokenFault> {
    let is_client = claims.get(claim).is_some_and(|found| found == client_id);
    match claim.is_empty() || is_client && !client_id.is_empty() {
        true => Ok(()),
        false => Err(TokenFault::ClientId),
    }
}

/// Names in a list, or one alone.
pub(super) fn groups(claims: &Claims, claim: &str) -> Result<Box<[Box<str>]>, TokenFault> {
    let groups = match claims.get(claim).filter(|_| !claim.is_empty()) {
        None => return Ok(Box::default()),
        Some(Value::Array(groups)) => groups.as_slice(),
        Some(group) => std::slice::from_ref(group),
    };
    let names: Option<Vec<Box<str>>> = groups
        .iter()
        .map(|group| group.as_str().filter(|name| is_name(name)).map(Box::from))
        .collect();
    names
        .filter(|names| names.len() <= GROUPS_MAX)
        .map(Into::into)
        .ok_or(TokenFault::Groups)
}

/// Lines of an ACL, one for each filter and kind.
pub(super) fn rules(claims: &Claims, claim: &str) -> Result<Box<[Box<str>]>, TokenFault> {
    let lists = match claims.get(claim).filter(|_| !claim.is_empty()) {
        None => return Ok(Box::default()),
        Some(Value::Object(lists)) => lists,
        Some(_) => return Err(TokenFault::Acl),
    };
    let mut rules = Vec::new();
    for (kind, filters) in lists {
        let kinds: &[&str] = match kind.as_str() {
            "publish" | "pub" => &["publish"],
            "subscribe" | "sub" => &["subscribe"],
            "all" => &["publish", "subscribe"],
            _ => return Err(TokenFault::Acl),
        };
        for filter in filters.as_array().ok_or(TokenFault::Acl)? {
            let filter = filter.as_str().ok_or(TokenFault::Acl)?;
            let filter = quoted(filter).ok_or(TokenFault::Acl)?;
            rules.extend(
                kinds
                    .iter()
                    .map(|kind| format!("allow {kind} {filter}").into()),
            );
        }
    }
    if rules.is_empty() {
        // Allows nothing: without any rule it would say nothing, and where there is no ACL everything is allowed.
        rules.push("deny publish \"$SYS\"".into());
    }
    match rules.len() <= RULES_MAX {
        true => Ok(rules.into()),
        false => Err(TokenFault::Acl),
    }
}

/// A filter as an ACL has it, whatever is in it.
fn quoted(filter: &str) -> Option<String> {
    let is_plain = TopicFilter::parse(filter).is_ok() && !filter.chars().any(char::is_control);
    let escaped = filter.replace('\\', "\\\\").replace('"', "\\\"");
    is_plain.then(|| format!("\"{escaped}\""))
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control)
}

/// Longest user or group.
const NAME_BYTES_MAX: usize = 256;
const GROUPS_MAX: usize = 100;
/// Each is looked at for every new topic.
const RULES_MAX: usize = 200;
